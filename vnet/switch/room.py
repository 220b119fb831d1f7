"""The room in the dataplane's arrays: what is taken for rules, groups and meters, and given back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack

from vnet.openflow.group import Group, Meter
from vnet.switch import abi
from vnet.switch.lower import LoweredGroup
from vnet.switch.lower_actions import Lowerable
from vnet.switch.placed import EntryWrite, PlacedActions, PlacedGroup, PlacedMeter, Variants, port_lists, show
from vnet.switch.pool import Full, Numbers, Ranges

FIRST_LIST = 2 * abi.PORTS
"""Output lists begin here; before it lie the two banks of the list of all ports."""
FLOW_ACTIONS = abi.ACTIONS - abi.RULE_ACTIONS
"""Records that flows and buckets may take; behind them lie those of a controller's packet."""


class Entries:
    """The entries that stand for numbers that controllers choose: those of groups, or those of meters.

    An entry stays while its number is in force; what it shows is a slot of the array of that name.
    """

    def __init__(self, map_name: str, limit: int) -> None:
        self.by_number: dict[int, int] = {}
        self._map_name = map_name
        self._pool = Numbers(0, limit)
        self._shown: dict[int, Variants] = {}
        """By entry."""

    def take(self, number: int) -> int:
        """The entry of a number, a new one if it has none. Raises `Full`."""
        if number not in self.by_number:
            entry = self.by_number[number] = self._pool.take()
            self._shown[entry] = [(0, 0), (0, 0)]
        return self.by_number[number]

    def give_back(self, number: int) -> None:
        """A number is not in force any more."""
        entry = self.by_number.pop(number)
        del self._shown[entry]
        self._pool.give_back(entry)

    def show(self, number: int, slot: int, version: int) -> EntryWrite:
        """Let the entry of a number show a slot from `version` on; 0 is none."""
        entry = self.by_number[number]
        return EntryWrite(entry, show(self._shown[entry], version, slot), slot, version, self._map_name)

    def adopt(self, by_number: Mapping[int, int], shown: Mapping[int, Variants]) -> None:
        """Take over what the maps hold: entries by number, and what they show."""
        self.by_number, self._shown = dict(by_number), dict(shown)
        self._pool.claim(set(by_number.values()))


class Room:
    """Numbers and ranges of rules, actions, output lists, groups, buckets and meters."""

    def __init__(self) -> None:
        self.group_entries = Entries("group_entries", abi.GROUPS)
        self.meter_entries = Entries("meter_entries", abi.METERS)
        self._rules = Numbers(1, abi.RULES)  # rule 0 is a controller's packet
        self._actions = Ranges(FLOW_ACTIONS)
        self._lists = Ranges(abi.OUTPUTS - FIRST_LIST)
        self._buckets = Ranges(abi.RULES)
        self._group_slots = Numbers(1, 2 * abi.GROUPS)
        self._meter_slots = Numbers(1, 2 * abi.METERS)

    def place(self, records: tuple[Lowerable, ...]) -> PlacedActions:
        """Take a rule number, an action range and output lists. Raises `Full`, holding nothing."""
        rule = self._rules.take()
        ranges = [(self._actions, len(records))]
        ranges += [(self._lists, len(ports) + 1) for ports in port_lists(records)]
        taken: list[tuple[Ranges, int, int]] = []
        try:
            for pool, length in ranges:
                taken.append((pool, pool.take(length), length))
        except Full:
            self._rules.give_back(rule)
            for pool, start, length in taken:
                pool.give_back(start, length)
            raise
        (_, first, _), *lists = taken
        held = tuple((start + FIRST_LIST, length) for _, start, length in lists)
        return PlacedActions(rule, first, records, held)

    def release(self, placed: PlacedActions) -> None:
        """Give back what `place` took."""
        self._rules.give_back(placed.rule)
        self._actions.give_back(placed.first_action, len(placed.records))
        for start, length in placed.lists:
            self._lists.give_back(start - FIRST_LIST, length)

    def place_group(self, group: Group, form: LoweredGroup) -> PlacedGroup:
        """Find room for a group and its buckets. Raises `Full`, holding nothing."""
        with ExitStack() as undo:
            slot, size = self._group_slots.take(), len(form.buckets)
            undo.callback(self._group_slots.give_back, slot)
            rule = self._rules.take()
            undo.callback(self._rules.give_back, rule)
            first = self._buckets.take(size)
            undo.callback(self._buckets.give_back, first, size)
            buckets: list[PlacedActions] = []
            for records in form.buckets:
                buckets.append(self.place(records))
                undo.callback(self.release, buckets[-1])
            entry = self.group_entries.take(group.number)
            undo.pop_all()
        return PlacedGroup(group, form, entry, slot, rule, first, tuple(buckets))

    def release_group(self, placed: PlacedGroup) -> None:
        """Give back what `place_group` took, but for the entry, which its successor has."""
        self._group_slots.give_back(placed.slot)
        self._rules.give_back(placed.rule)
        self._buckets.give_back(placed.first_bucket, len(placed.buckets))
        for bucket in placed.buckets:
            self.release(bucket)

    def place_meter(self, meter: Meter) -> PlacedMeter:
        """Find room for a meter. Raises `Full`, holding nothing."""
        slot = self._meter_slots.take()
        try:
            return PlacedMeter(meter, self.meter_entries.take(meter.number), slot)
        except Full:
            self._meter_slots.give_back(slot)
            raise

    def release_meter(self, placed: PlacedMeter) -> None:
        """Give back what `place_meter` took, but for the entry."""
        self._meter_slots.give_back(placed.slot)

    def adopt(
        self,
        flows: Iterable[PlacedActions],
        groups: Iterable[PlacedGroup],
        meters: Iterable[PlacedMeter],
        shown: tuple[Mapping[int, Variants], Mapping[int, Variants]],
    ) -> None:
        """What is in use is not to be given away; `shown` by the entries of groups and of meters."""
        groups, meters = tuple(groups), tuple(meters)
        lists = [*flows, *(bucket for group in groups for bucket in group.buckets)]
        self._rules.claim({held.rule for held in lists} | {group.rule for group in groups})
        self._actions.claim([(held.first_action, len(held.records)) for held in lists])
        self._lists.claim([(start - FIRST_LIST, length) for held in lists for start, length in held.lists])
        self._buckets.claim([(group.first_bucket, len(group.buckets)) for group in groups])
        self._group_slots.claim({group.slot for group in groups})
        self._meter_slots.claim({meter.slot for meter in meters})
        self.group_entries.adopt({group.number: group.entry for group in groups}, shown[0])
        self.meter_entries.adopt({meter.number: meter.entry for meter in meters}, shown[1])
