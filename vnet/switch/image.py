"""The dataplane's maps as one value: where each flow lies, and what to write to change flows.

No I/O: `staging.stage` turns a change into map writes, `live.datapath` carries them out. How a change becomes
visible to packets all at once:

* Rules, actions and masks are written to fresh slots, which no packet can reach yet.
* What a hash key stands for is an *entry* with two variants, each with the version from which on it
  holds. The variant no packet uses is overwritten with the next version.
* The list of masks of each table exists in two banks; the next version's bank is rewritten.
* Groups and meters have an entry each, by a number that stays; what it shows is a slot of its own.
* The list of all ports and the bits of the key that rules ask for exist in two banks as well.
* Then the cell `control.version` goes up by one. Packets read it once, so each sees all or nothing.
* After a grace period nobody reads the old version any more: slots are reused, dead keys deleted.

What there is room for `room` knows, which flow an entry shows `classifier`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from vnet.openflow.flow import Flow
from vnet.openflow.message import BadAction, ErrorType, MeterModFailed
from vnet.switch import abi
from vnet.switch.classifier import Classifier
from vnet.switch.datapath import Change, ChangeKey, FlowKey, Refused
from vnet.switch.lower import Reads
from vnet.switch.lower_actions import GroupRef, Lowerable, MeterRef
from vnet.switch.placed import (
    MaskKey,
    Masks,
    Placed,
    PlacedGroup,
    PlacedMeter,
    References,
    Staged,
    TableBank,
    Variants,
    Words,
)
from vnet.switch.room import Room

_NO_CHANGE = Change()


class Image:
    """Mutable bookkeeping of the maps; every method is arithmetic on it.

    A change costs in proportion to itself, not to the flows there are.
    """

    def __init__(self, version: int = 1, ports: Iterable[int] = ()) -> None:
        self.version = version
        self.ports: tuple[int, ...] = tuple(sorted(ports))
        self.placed: dict[FlowKey, Placed] = {}
        self.groups: dict[int, PlacedGroup] = {}
        self.meters: dict[int, PlacedMeter] = {}
        self.room = Room()
        self.classifier = Classifier()
        self._banks: list[dict[int, Masks]] = [{}, {}]
        """By table: what it searches."""
        self._port_banks: list[tuple[int, ...] | None] = [None, None]
        self._read_banks: list[Reads | None] = [None, None]

    @property
    def flows(self) -> tuple[Flow, ...]:
        """All flows, as OpenFlow knows them."""
        return tuple(placed.flow for placed in self.placed.values())

    @property
    def references(self) -> References:
        """Where groups and meters are."""
        return References(self.room.group_entries.by_number, self.room.meter_entries.by_number)

    def check_references(
        self, records: Iterable[Lowerable], key: ChangeKey | None, change: Change = _NO_CHANGE
    ) -> None:
        """Raise `Refused` if records refer to what is not there after a change.

        That nothing refers to what goes is the agent's concern, as the specification has it.
        """
        for record in records:
            if isinstance(record, GroupRef) and not self._has_group(record.group, change):
                why = f"no group {record.group}"
                raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_OUT_GROUP, why, key)
            if isinstance(record, MeterRef) and not self._has_meter(record.meter, change):
                why = f"no meter {record.meter}"
                raise Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.UNKNOWN_METER, why, key)

    def _has_group(self, number: int, change: Change) -> bool:
        put = any(group.number == number for group in change.put_groups)
        return put or number in self.groups and number not in change.remove_groups

    def _has_meter(self, number: int, change: Change) -> bool:
        put = any(meter.number == number for meter in change.put_meters)
        return put or number in self.meters and number not in change.remove_meters

    def finish(self, staged: Staged) -> None:
        """The grace period is over: the slots of retired rules and dead keys may be used again."""
        for placed in staged.retired:
            self.room.release(placed.actions)
        for group in staged.retired_groups:
            self.room.release_group(group)
            if group.number not in self.groups:
                self.room.group_entries.give_back(group.number)
        for meter in staged.retired_meters:
            self.room.release_meter(meter)
            if meter.number not in self.meters:
                self.room.meter_entries.give_back(meter.number)
        for mask, words, _ in staged.dead_keys:
            self.classifier.release(mask, words)

    # -- banks -------------------------------------------------------------------------------------

    def next_tables(self, touched: Iterable[int]) -> list[TableBank]:
        """Bring this version's bank up to the other one, then search the touched tables as they are now."""
        bank, wanted = self._banks[self.version & 1], dict(self._banks[~self.version & 1])
        for table in touched:
            wanted[table] = self.classifier.search_order(table)
        self._banks[self.version & 1] = wanted
        differing = (  # also where a killed agent wrote what never came into force
            (table, wanted.get(table, ()))
            for table in sorted(wanted.keys() | bank.keys())
            if bank.get(table, ()) != wanted.get(table, ())
        )
        return [TableBank(table, masks, self.classifier.beyond(masks)) for table, masks in differing]

    def next_ports(self) -> list[tuple[int, tuple[int, ...]]]:
        """The list of all ports, if this version's bank has another."""
        bank = self.version & 1
        if self._port_banks[bank] == self.ports:
            return []
        self._port_banks[bank] = self.ports
        return [(bank * abi.PORTS, self.ports)]

    def next_reads(self) -> Reads | None:
        """The bits that rules ask for, if this version's bank has others."""
        bank, reads = self.version & 1, self.classifier.reads
        if self._read_banks[bank] == reads:
            return None
        self._read_banks[bank] = reads
        return reads

    # -- adoption ----------------------------------------------------------------------------------

    def adopt(
        self,
        flows: Iterable[Placed],
        groups: Iterable[PlacedGroup],
        meters: Iterable[PlacedMeter],
        masks: Mapping[MaskKey, int],
        entries: Mapping[tuple[int, Words], tuple[int, Variants]],
        shown: tuple[Mapping[int, Variants], Mapping[int, Variants]],
        banks: list[dict[int, Masks]],
    ) -> None:
        """Take over what the maps hold.

        `masks` by (table, mask words); `entries`: by (mask number, words), (entry number, its two
        variants); `shown`: the variants of the entries of groups and of meters; `banks` as read.
        """
        self._banks = banks
        self.placed = {placed.flow.key: placed for placed in flows}
        self.groups = {group.number: group for group in groups}
        self.meters = {meter.number: meter for meter in meters}
        self.classifier.adopt(masks, entries)
        for placed in self.placed.values():
            self.classifier.add(placed)
        for group in self.groups.values():
            self.classifier.count_reads(group.lowered.reads, 1)
        held = (placed.actions for placed in self.placed.values())
        self.room.adopt(held, self.groups.values(), self.meters.values(), shown)
