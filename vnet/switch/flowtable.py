"""What flow_mods mean (OpenFlow 1.3.5, section 6.4): the agent's copy of the flows in force.

A `FlowDraft` applies flow_mods to it, one after the other: the part of `draft.Draft` that is about flows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from vnet.openflow.flow import ALL_TABLES, Flow, FlowFlag, Match, Output, Port, ToGroup
from vnet.openflow.group import ANY_GROUP
from vnet.openflow.message import (
    AggregateRequest,
    ErrorType,
    FlowCommand,
    FlowMod,
    FlowModFailed,
    FlowRemovedReason,
    FlowStatsRequest,
)
from vnet.switch import abi
from vnet.switch.datapath import Counter, FlowKey, Refused

N_TABLES = abi.TABLES
MAX_ACTIONS = 384
"""Of one flow or group: what is told of it fits one message, whichever actions they are."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A flow in force since `created_s`."""

    flow: Flow
    created_s: float

    def count(self, counters: Mapping[FlowKey, Counter]) -> Counter:
        """Its packets and bytes among those of all flows."""
        return counters.get(self.flow.key, Counter())


@dataclass(frozen=True, slots=True)
class Filter:
    """Which flows a non-strict request is about."""

    table: int
    match: Match
    cookie: int = 0
    cookie_mask: int = 0
    out_port: int = Port.ANY
    out_group: int = ANY_GROUP

    def takes(self, flow: Flow) -> bool:
        """Whether the flow is as narrow as the filter's match or narrower, and passes the rest."""
        return self.takes_strictly(flow) and covers(self.match, flow.match)

    def takes_strictly(self, flow: Flow) -> bool:
        """The same for a flow whose match and priority are known to be equal."""
        if (flow.cookie ^ self.cookie) & self.cookie_mask:
            return False
        if self.out_group != ANY_GROUP and self.out_group not in groups_of(flow):
            return False
        return self.out_port == Port.ANY or sends_to(flow, self.out_port)


def filter_of_mod(mod: FlowMod) -> Filter:
    """Only deletions look at where a flow sends to."""
    flow = mod.flow
    if mod.command in (FlowCommand.DELETE, FlowCommand.DELETE_STRICT):
        return Filter(flow.table, flow.match, flow.cookie, mod.cookie_mask, mod.out_port, mod.out_group)
    return Filter(flow.table, flow.match, flow.cookie, mod.cookie_mask)


def filter_of_request(request: FlowStatsRequest | AggregateRequest) -> Filter:
    """The flows that statistics are asked for."""
    return Filter(
        request.table,
        request.match,
        request.cookie,
        request.cookie_mask,
        request.out_port,
        request.out_group,
    )


def covers(wider: Match, narrower: Match) -> bool:
    """Whether every packet that `narrower` takes is taken by `wider`."""
    for name, value, mask in wider:
        other = narrower.get(name)
        if other is None or other[1] & mask != mask or (other[0] ^ value) & mask:
            return False
    return True


def overlap(one: Match, other: Match) -> bool:
    """Whether a packet could match both (section 6.4)."""
    for name, value, mask in one:
        theirs = other.get(name)
        if theirs is not None and (theirs[0] ^ value) & theirs[1] & mask:
            return False
    return True


def sends_to(flow: Flow, port: int) -> bool:
    """Whether an output action of the flow names the port."""
    actions = flow.instructions.apply + flow.instructions.write
    return any(isinstance(action, Output) and action.port == port for action in actions)


def groups_of(flow: Flow) -> set[int]:
    """The groups that the flow sends to."""
    actions = flow.instructions.apply + flow.instructions.write
    return {action.group for action in actions if isinstance(action, ToGroup)}


_Table = dict[tuple[int, Match], Entry]


class FlowTable:
    """All entries, by table."""

    def __init__(self, flows: Iterable[Flow], now: float) -> None:
        self._tables: tuple[_Table, ...] = tuple({} for _ in range(N_TABLES))
        self._timed: set[FlowKey] = set()
        self._by_group: dict[int, set[FlowKey]] = {}
        self._by_meter: dict[int, set[FlowKey]] = {}
        for flow in flows:
            self.set(flow.key, Entry(flow, now))

    def __len__(self) -> int:
        return sum(map(len, self._tables))

    def __iter__(self) -> Iterator[Entry]:
        for table in self._tables:
            yield from table.values()

    def active(self, table: int) -> int:
        """The number of flows of one table."""
        return len(self._tables[table])

    def get(self, key: FlowKey) -> Entry | None:
        """The entry in force under a key."""
        return self._tables[key[0]].get(key[1:])

    def set(self, key: FlowKey, entry: Entry | None) -> None:
        """Put an entry, or take it away."""
        before = self.get(key)
        if before is not None:
            self._forget(before.flow)
        if entry is None:
            self._tables[key[0]].pop(key[1:], None)
        else:
            self._tables[key[0]][key[1:]] = entry
            self._note(entry.flow)

    def _note(self, flow: Flow) -> None:
        """Keep the indexes of `timed`, `of_group` and `of_meter`."""
        if flow.idle_timeout_s or flow.hard_timeout_s:
            self._timed.add(flow.key)
        if flow.instructions.meter is not None:
            self._by_meter.setdefault(flow.instructions.meter, set()).add(flow.key)
        for group in groups_of(flow):
            self._by_group.setdefault(group, set()).add(flow.key)

    def _forget(self, flow: Flow) -> None:
        self._timed.discard(flow.key)
        if flow.instructions.meter is not None:
            self._by_meter[flow.instructions.meter].discard(flow.key)
        for group in groups_of(flow):
            self._by_group[group].discard(flow.key)

    def of_group(self, group: int) -> tuple[Entry, ...]:
        """The entries that send to a group."""
        return self._of(sorted(self._by_group.get(group, ())))

    def of_meter(self, meter: int) -> tuple[Entry, ...]:
        """The entries whose packets must pass a meter."""
        return self._of(sorted(self._by_meter.get(meter, ())))

    def _of(self, keys: Iterable[FlowKey]) -> tuple[Entry, ...]:
        return tuple(entry for key in keys if (entry := self.get(key)) is not None)

    def timed(self) -> tuple[Entry, ...]:
        """The entries that will expire."""
        return self._of(self._timed)

    def has_timed(self) -> bool:
        return bool(self._timed)

    def of_table(self, table: int) -> Iterator[Entry]:
        """The entries of one table, or of all."""
        for one in self._tables if table == ALL_TABLES else self._tables[table : table + 1]:
            yield from one.values()

    def select(self, wanted: Filter) -> tuple[Entry, ...]:
        """The entries a filter takes."""
        return tuple(entry for entry in self.of_table(wanted.table) if wanted.takes(entry.flow))

    def select_strictly(self, wanted: Filter, priority: int) -> tuple[Entry, ...]:
        """The entries with exactly the filter's match and the priority: at most one per table."""
        tables = range(N_TABLES) if wanted.table == ALL_TABLES else (wanted.table,)
        found = (self.get((table, priority, wanted.match)) for table in tables)
        return tuple(entry for entry in found if entry is not None and wanted.takes_strictly(entry.flow))


class FlowDraft:
    """Flow_mods carried out on a table, not yet in force; `check` refuses flows that lead nowhere."""

    def __init__(self, table: FlowTable, now: float, check: Callable[[Flow], None]) -> None:
        self._table, self._now, self._check = table, now, check
        self._before: dict[FlowKey, Entry | None] = {}
        self._fresh: set[FlowKey] = set()
        """Keys whose counters start again."""
        self.deleted: dict[FlowKey, tuple[Entry, FlowRemovedReason]] = {}
        """Flows that were in force and that a deletion took; what the draft itself had added was never."""

    def apply(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        """Carry out one flow_mod; the keys of the flows it put.

        Only a deletion may be of all tables (section 7.3.4.1).

        Raises: Refused, and then nothing has changed.
        """
        deletes = mod.command in (FlowCommand.DELETE, FlowCommand.DELETE_STRICT)
        if mod.flow.table >= N_TABLES and not (deletes and mod.flow.table == ALL_TABLES):
            raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID, f"table {mod.flow.table}")
        return _COMMANDS[mod.command](self, mod)

    def expire(self, entry: Entry) -> None:
        """Take away a flow whose time is over; that is not a deletion."""
        self._set(entry.flow.key, None)

    def _add(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        flow = mod.flow
        self._check(flow)
        if flow.flags & FlowFlag.CHECK_OVERLAP:
            self._check_overlap(flow)
        before = self._table.get(flow.key)
        reset = before is None or bool(flow.flags & FlowFlag.RESET_COUNTS)
        self._set(flow.key, Entry(flow, self._now), reset)
        return (flow.key,)

    def _check_overlap(self, flow: Flow) -> None:
        """Of another flow than the one it replaces, as Open vSwitch takes it."""
        for entry in self._table.of_table(flow.table):
            if entry.flow.key == flow.key or entry.flow.priority != flow.priority:
                continue
            if overlap(entry.flow.match, flow.match):
                raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.OVERLAP, "overlap", flow.key)

    def _modify(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        return self._rewrite(self._table.select(filter_of_mod(mod)), mod)

    def _modify_strictly(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        return self._rewrite(self._table.select_strictly(filter_of_mod(mod), mod.flow.priority), mod)

    def _rewrite(self, entries: tuple[Entry, ...], mod: FlowMod) -> tuple[FlowKey, ...]:
        """New instructions; cookie, timeouts, flags and age stay (section 6.4)."""
        reset = bool(mod.flow.flags & FlowFlag.RESET_COUNTS)
        changed = [replace(entry.flow, instructions=mod.flow.instructions) for entry in entries]
        for flow in changed:
            self._check(flow)
        for entry, flow in zip(entries, changed, strict=True):
            self._set(flow.key, Entry(flow, entry.created_s), reset)
        return tuple(flow.key for flow in changed)

    def _delete(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        return self.delete(self._table.select(filter_of_mod(mod)), FlowRemovedReason.DELETE)

    def _delete_strictly(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        entries = self._table.select_strictly(filter_of_mod(mod), mod.flow.priority)
        return self.delete(entries, FlowRemovedReason.DELETE)

    def delete(self, entries: Iterable[Entry], reason: FlowRemovedReason) -> tuple[FlowKey, ...]:
        """Take entries away because somebody wanted it; puts nothing."""
        for entry in entries:
            key = entry.flow.key
            self._set(key, None)
            if self._before[key] is not None:
                self.deleted.setdefault(key, (entry, reason))
        return ()

    def _set(self, key: FlowKey, entry: Entry | None, fresh: bool = True) -> None:
        self._before.setdefault(key, self._table.get(key))
        if fresh:
            self._fresh.add(key)
        self._table.set(key, entry)

    def change(self) -> tuple[tuple[Flow, ...], tuple[FlowKey, ...]]:
        """What to put and what to remove; nothing for flows that are as before."""
        put: list[Flow] = []
        remove: list[FlowKey] = []
        for key, before in self._before.items():
            entry, fresh = self._table.get(key), key in self._fresh
            if before is not None and (entry is None or fresh):
                remove.append(key)
            if entry is not None and (before is None or fresh or before.flow != entry.flow):
                put.append(entry.flow)
        return tuple(put), tuple(remove)

    def rollback(self) -> None:
        """The table is as before the draft."""
        for key, before in self._before.items():
            self._table.set(key, before)


_COMMANDS = {
    FlowCommand.ADD: FlowDraft._add,
    FlowCommand.MODIFY: FlowDraft._modify,
    FlowCommand.MODIFY_STRICT: FlowDraft._modify_strictly,
    FlowCommand.DELETE: FlowDraft._delete,
    FlowCommand.DELETE_STRICT: FlowDraft._delete_strictly,
}
