"""What flow_mods mean (OpenFlow 1.3.5, section 6.4): the agent's copy of the flows in force.

A `Draft` applies flow_mods one after the other and tells the one `Change` they amount to; if the
datapath refuses that, `rollback` takes all of them back.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from vnet.openflow.flow import ALL_TABLES, Conntrack, Flow, FlowFlag, Match, Output, Port
from vnet.openflow.group import ANY_GROUP
from vnet.openflow.message import (
    AggregateRequest,
    BadAction,
    BadInstruction,
    ErrorType,
    FlowCommand,
    FlowMod,
    FlowModFailed,
    FlowStatsRequest,
)
from vnet.switch.datapath import Change, Counter, FlowKey, Refused

N_TABLES = 32

_KEPT_FLAGS = FlowFlag.SEND_FLOW_REM | FlowFlag.NO_PACKET_COUNTS | FlowFlag.NO_BYTE_COUNTS
"""Flags that belong to the flow; the others to the request."""


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
        if (flow.cookie ^ self.cookie) & self.cookie_mask or self.out_group != ANY_GROUP:
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


def check_targets(flow: Flow) -> None:
    """Raise Refused if the flow jumps to a table that it must not or that there is not."""
    goto = flow.instructions.goto
    if goto is not None and not flow.table < goto < N_TABLES:
        raise Refused(ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID, f"goto table {goto}", flow.key)
    for action in flow.instructions.apply + flow.instructions.write:
        if isinstance(action, Conntrack) and action.table is not None and action.table >= N_TABLES:
            raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, f"ct table {action.table}", flow.key)


_Table = dict[tuple[int, Match], Entry]


class FlowTable:
    """All entries, by table."""

    def __init__(self, flows: Iterable[Flow], now: float) -> None:
        self._tables: tuple[_Table, ...] = tuple({} for _ in range(N_TABLES))
        self._timed: set[FlowKey] = set()
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
        if entry is None:
            self._tables[key[0]].pop(key[1:], None)
            self._timed.discard(key)
            return
        self._tables[key[0]][key[1:]] = entry
        if entry.flow.idle_timeout_s or entry.flow.hard_timeout_s:
            self._timed.add(key)
        else:
            self._timed.discard(key)

    def timed(self) -> tuple[Entry, ...]:
        """The entries that will expire."""
        return tuple(entry for key in self._timed if (entry := self.get(key)) is not None)

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


class Draft:
    """Flow_mods carried out on a table, not yet in force; only one at a time for each table."""

    def __init__(self, table: FlowTable, now: float) -> None:
        self._table, self._now = table, now
        self._before: dict[FlowKey, Entry | None] = {}
        self._fresh: set[FlowKey] = set()
        """Keys whose counters start again."""
        self._deleted_keys: set[FlowKey] = set()
        self.deleted: list[Entry] = []
        """Entries that were in force and that a deletion took."""

    def apply(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        """Carry out one flow_mod; the keys of the flows it put.

        Raises: Refused, and then nothing has changed.
        """
        last = ALL_TABLES if mod.command != FlowCommand.ADD else N_TABLES - 1
        if mod.flow.table >= N_TABLES and mod.flow.table != last:
            raise Refused(ErrorType.FLOW_MOD_FAILED, FlowModFailed.BAD_TABLE_ID, f"table {mod.flow.table}")
        return _COMMANDS[mod.command](self, mod)

    def expire(self, entry: Entry) -> None:
        """Take away a flow whose time is over; that is not a deletion."""
        self._set(entry.flow.key, None)

    def _add(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        flow = replace(mod.flow, flags=mod.flow.flags & _KEPT_FLAGS)
        check_targets(flow)
        if mod.flow.flags & FlowFlag.CHECK_OVERLAP:
            self._check_overlap(flow)
        before = self._table.get(flow.key)
        reset = before is None or bool(mod.flow.flags & FlowFlag.RESET_COUNTS)
        self._set(flow.key, Entry(flow, self._now), reset)
        return (flow.key,)

    def _check_overlap(self, flow: Flow) -> None:
        for entry in self._table.of_table(flow.table):
            if entry.flow.priority == flow.priority and overlap(entry.flow.match, flow.match):
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
            check_targets(flow)
        for entry, flow in zip(entries, changed, strict=True):
            self._set(flow.key, Entry(flow, entry.created_s), reset)
        return tuple(flow.key for flow in changed)

    def _delete(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        return self._remove(self._table.select(filter_of_mod(mod)))

    def _delete_strictly(self, mod: FlowMod) -> tuple[FlowKey, ...]:
        return self._remove(self._table.select_strictly(filter_of_mod(mod), mod.flow.priority))

    def _remove(self, entries: tuple[Entry, ...]) -> tuple[FlowKey, ...]:
        for entry in entries:
            self._set(entry.flow.key, None)
            self._note_deleted(entry)
        return ()

    def _note_deleted(self, entry: Entry) -> None:
        """Once for each flow that was in force; what the draft itself had added was never."""
        key = entry.flow.key
        if self._before[key] is not None and key not in self._deleted_keys:
            self._deleted_keys.add(key)
            self.deleted.append(entry)

    def _set(self, key: FlowKey, entry: Entry | None, fresh: bool = True) -> None:
        self._before.setdefault(key, self._table.get(key))
        if fresh:
            self._fresh.add(key)
        self._table.set(key, entry)

    def change(self) -> Change:
        """What the datapath must do; nothing for flows that are as before."""
        put: list[Flow] = []
        remove: list[FlowKey] = []
        for key, before in self._before.items():
            entry, fresh = self._table.get(key), key in self._fresh
            if before is not None and (entry is None or fresh):
                remove.append(key)
            if entry is not None and (before is None or fresh or before.flow != entry.flow):
                put.append(entry.flow)
        return Change(tuple(put), tuple(remove))

    def wants_counters(self) -> bool:
        """Whether a controller is to be told what a deleted flow has counted."""
        return any(entry.flow.flags & FlowFlag.SEND_FLOW_REM for entry in self.deleted)

    def rollback(self) -> None:
        """The change was refused: the table is as before the draft."""
        for key, before in self._before.items():
            self._table.set(key, before)


_COMMANDS = {
    FlowCommand.ADD: Draft._add,
    FlowCommand.MODIFY: Draft._modify,
    FlowCommand.MODIFY_STRICT: Draft._modify_strictly,
    FlowCommand.DELETE: Draft._delete,
    FlowCommand.DELETE_STRICT: Draft._delete_strictly,
}
