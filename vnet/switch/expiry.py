"""Idle and hard timeouts (OpenFlow 1.3.5, section 5.5): a look every second while any flow has one."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping

from vnet.openflow.flow import FlowFlag
from vnet.openflow.message import FlowRemoved, FlowRemovedReason
from vnet.switch import stats
from vnet.switch.datapath import Counter, FlowKey
from vnet.switch.desk import Desk
from vnet.switch.draft import Draft
from vnet.switch.flowtable import Entry
from vnet.switch.jobs import Answer, Ask, Commit, Job, Kind, ReadCounters

LOOK_S = 1.0


class Expiry:
    """Remembers when each flow was last seen to count; one per desk."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._seen: dict[FlowKey, tuple[int, float]] = {}
        """Packets, and when they were last found to have grown."""
        self.due_s: float | None = None
        """When to look next, None while no flow has a timeout."""
        self.plan()

    def is_due(self) -> bool:
        return self.due_s is not None and self._desk.now >= self.due_s

    def plan(self) -> None:
        """Flows may have changed: see to it that those with timeouts are looked at."""
        if self.due_s is None and self._desk.tables.flows.has_timed():
            self.due_s = self._desk.now + LOOK_S

    def look(self) -> Job:
        """Remove the flows whose time is over; a failure is made good by the next look."""
        self.due_s = None
        if self._desk.tables.flows.has_timed():
            answer = yield lambda token: ReadCounters(token, Kind.FLOWS)
            if not answer.refusals:
                yield from self._remove_overdue(answer.counters)
        self.plan()

    def _remove_overdue(self, counters: Mapping[FlowKey, Counter]) -> Generator[Ask, Answer, None]:
        timed = self._desk.tables.flows.timed()
        self._note_activity(timed, counters)
        over = [(entry, reason) for entry in timed if (reason := self._overdue(entry)) is not None]
        if not over:
            return
        draft = Draft(self._desk.tables, self._desk.now)
        for entry, _ in over:
            draft.expire(entry)
        change = draft.change()
        answer = yield lambda token: Commit(token, change)
        if answer.refusals:
            draft.rollback()
            return
        announce_removed(self._desk, over, counters)

    def _note_activity(self, timed: Iterable[Entry], counters: Mapping[FlowKey, Counter]) -> None:
        seen = {}
        for entry in timed:
            packets = entry.count(counters).packets
            known = self._seen.get(entry.flow.key)
            if known is None or known[1] < entry.created_s:
                known = 0, entry.created_s
            seen[entry.flow.key] = known if packets == known[0] else (packets, self._desk.now)
        self._seen = seen

    def _overdue(self, entry: Entry) -> FlowRemovedReason | None:
        flow, now = entry.flow, self._desk.now
        if flow.hard_timeout_s and now >= entry.created_s + flow.hard_timeout_s:
            return FlowRemovedReason.HARD_TIMEOUT
        if flow.idle_timeout_s and now >= self._seen[flow.key][1] + flow.idle_timeout_s:
            return FlowRemovedReason.IDLE_TIMEOUT
        return None


def announce_removed(
    desk: Desk, removed: Iterable[tuple[Entry, FlowRemovedReason]], counters: Mapping[FlowKey, Counter]
) -> None:
    """Tell the controllers of flows that asked for it when they were added."""
    for entry, reason in removed:
        if entry.flow.flags & FlowFlag.SEND_FLOW_REM:
            total, age = entry.count(counters), stats.age_ns(entry.created_s, desk.now)
            message = FlowRemoved(reason, entry.flow, age, total.packets, total.bytes)
            for conn in desk.listeners(lambda masks: masks.flow_removed, reason):
                desk.send(conn, message, 0)
