"""All that controllers have put into the switch, and drafts of changes to it.

A `Draft` applies flow_mods, group_mods and meter_mods one after the other and tells the one `Change` they
amount to; if the datapath refuses that, `rollback` takes all of them back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from vnet.openflow.flow import Action, Conntrack, Flow, FlowFlag, Resubmit, ToGroup
from vnet.openflow.group import ALL_GROUPS, ALL_METERS, Group, Meter
from vnet.openflow.message import (
    BadAction,
    BadInstruction,
    ErrorType,
    FlowMod,
    FlowRemovedReason,
    GroupCommand,
    GroupMod,
    MeterCommand,
    MeterMod,
    MeterModFailed,
)
from vnet.switch import grouptable, metertable
from vnet.switch.datapath import Change, ChangeKey, GroupKey, MeterKey, Refused
from vnet.switch.flowtable import MAX_ACTIONS, N_TABLES, Entry, FlowDraft, FlowTable
from vnet.switch.numbered import NumberedDraft, NumberedTable

Mod = FlowMod | GroupMod | MeterMod


@dataclass(frozen=True, slots=True)
class Tables:
    """The agent's copy of what is in force."""

    flows: FlowTable
    groups: NumberedTable[Group]
    meters: NumberedTable[Meter]

    def check(self, flow: Flow) -> None:
        """Raise Refused if the flow leads to a table, group or meter that there is not."""
        instructions = flow.instructions
        goto, meter = instructions.goto, instructions.meter
        if goto is not None and not flow.table < goto < N_TABLES:
            why = f"goto table {goto}"
            raise Refused(ErrorType.BAD_INSTRUCTION, BadInstruction.BAD_TABLE_ID, why, flow.key)
        if meter is not None and meter not in self.meters:
            why = f"no meter {meter}"
            raise Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.INVALID_METER, why, flow.key)
        self.check_actions(instructions.apply + instructions.write, flow.key)

    def check_actions(self, actions: tuple[Action, ...], key: ChangeKey | None = None) -> None:
        """The same for actions, and for too many of them."""
        if len(actions) > MAX_ACTIONS:
            raise Refused(ErrorType.BAD_ACTION, BadAction.TOO_MANY, f"{len(actions)} actions", key)
        for action in actions:
            if isinstance(action, ToGroup) and action.group not in self.groups:
                why = f"no group {action.group}"
                raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP, why, key)
            if (
                isinstance(action, Conntrack | Resubmit)
                and action.table is not None
                and action.table >= N_TABLES
            ):
                why = f"no table {action.table}"
                raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_ARGUMENT, why, key)


def tables(flows: Iterable[Flow], groups: Iterable[Group], meters: Iterable[Meter], now: float) -> Tables:
    """The tables of a switch in which these are in force."""
    return Tables(
        FlowTable(flows, now), NumberedTable(groups, ALL_GROUPS, now), NumberedTable(meters, ALL_METERS, now)
    )


class Draft:
    """Changes not yet in force; only one at a time for each `Tables`."""

    def __init__(self, tables: Tables, now: float) -> None:
        self._tables = tables
        self._flows = FlowDraft(tables.flows, now, tables.check)
        self._groups = NumberedDraft(tables.groups, now)
        self._meters = NumberedDraft(tables.meters, now)

    @property
    def deleted(self) -> Collection[tuple[Entry, FlowRemovedReason]]:
        """Flows that were in force and that a deletion took, of a flow itself or of what it used."""
        return self._flows.deleted.values()

    def apply(self, mod: Mod) -> tuple[ChangeKey, ...]:
        """Carry out one request; the keys of what it put.

        Raises: Refused, and then nothing has changed.
        """
        match mod:
            case FlowMod():
                return self._flows.apply(mod)
            case GroupMod():
                return self._group_mod(mod.command, mod.group)
            case MeterMod():
                return self._meter_mod(mod.command, mod.meter)

    def expire(self, entry: Entry) -> None:
        """Take away a flow whose time is over; that is not a deletion."""
        self._flows.expire(entry)

    def _group_mod(self, command: GroupCommand, group: Group) -> tuple[ChangeKey, ...]:
        if command is GroupCommand.DELETE:
            for number in self._groups.remove(group.number):
                self._flows.delete(self._tables.flows.of_group(number), FlowRemovedReason.GROUP_DELETE)
            return ()
        groups = self._tables.groups
        known = command is not GroupCommand.ADD and (command is GroupCommand.MODIFY or group.number in groups)
        check = grouptable.check_known if known else grouptable.check_new
        check(groups, group)
        self._groups.put(group)
        return (GroupKey(group.number),)

    def _meter_mod(self, command: MeterCommand, meter: Meter) -> tuple[ChangeKey, ...]:
        """The reason METER_DELETE is of OpenFlow 1.4."""
        if command is MeterCommand.DELETE:
            for number in self._meters.remove(meter.number):
                self._flows.delete(self._tables.flows.of_meter(number), FlowRemovedReason.DELETE)
            return ()
        check = metertable.check_new if command is MeterCommand.ADD else metertable.check_known
        check(self._tables.meters, meter)
        self._meters.put(meter)
        return (MeterKey(meter.number),)

    def change(self) -> Change:
        """What the datapath must do; nothing for what is as before."""
        return Change(*self._flows.change(), *self._groups.change(), *self._meters.change())

    def wants_counters(self) -> bool:
        """Whether a controller is to be told what a deleted flow has counted."""
        return any(entry.flow.flags & FlowFlag.SEND_FLOW_REM for entry, _ in self.deleted)

    def rollback(self) -> None:
        """The change was refused: the tables are as before the draft."""
        for draft in (self._flows, self._groups, self._meters):
            draft.rollback()
