"""One change on its way into the maps: room for what is new, then a list of what to write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from vnet.openflow.flow import Flow
from vnet.openflow.group import Group, Meter
from vnet.openflow.message import ErrorType, GroupModFailed, MeterModFailed
from vnet.switch import abi
from vnet.switch.classifier import Slot, mask_key, table_full
from vnet.switch.datapath import Change, ChangeKey, FlowKey, GroupKey, MeterKey, Refused
from vnet.switch.image import Image
from vnet.switch.lower import Lowered, LoweredGroup, lower, lower_group
from vnet.switch.placed import (
    EntryWrite,
    MaskKey,
    Placed,
    PlacedActions,
    PlacedGroup,
    PlacedMeter,
    Staged,
    Words,
    port_lists,
)
from vnet.switch.pool import Full
from vnet.switch.room import Entries

T = TypeVar("T", PlacedGroup, PlacedMeter)


def stage(image: Image, change: Change) -> Staged:
    """Bookkeep a change and tell what to write. Raises `Refused`, and then nothing has changed."""
    flows = [(flow, lower(flow)) for flow in {flow.key: flow for flow in change.put}.values()]
    groups = {group.number: (group, lower_group(group)) for group in change.put_groups}
    meters = {meter.number: meter for meter in change.put_meters}
    leaving = [
        key
        for key in dict.fromkeys((*change.remove, *(flow.key for flow, _ in flows)))
        if key in image.placed
    ]
    _check_room(image, flows, leaving)
    for flow, form in flows:
        image.check_references(form.actions, flow.key, change)
    for group, forms in groups.values():
        for records in forms.buckets:
            image.check_references(records, GroupKey(group.number), change)
    arrivals = _find_room(image, flows, groups.values(), meters.values())
    image.version += 1
    staging = _Staging(image)
    for key in leaving:
        staging.remove(image.placed.pop(key))
    for placed in arrivals.flows:
        staging.add(placed)
    staging.exchange_groups(arrivals.groups, change.remove_groups)
    staging.exchange_meters(arrivals.meters, change.remove_meters)
    return staging.staged()


def _check_room(image: Image, flows: list[tuple[Flow, Lowered]], leaving: list[FlowKey]) -> None:
    """Refuse what would not fit; old and new rules exist side by side until the grace period ends."""
    if len(image.placed) + len(flows) >= abi.RULES:
        raise table_full(f"{len(image.placed) + len(flows)} flows; {abi.RULES - 1} fit")
    gone = (image.placed[key] for key in leaving)
    image.classifier.check_room(
        (mask_key(flow.table, form) for flow, form in flows),
        (mask_key(placed.flow.table, placed.lowered) for placed in gone),
    )


@dataclass(slots=True)
class _Arrivals:
    """What is new, with its room in the maps."""

    flows: list[Placed] = field(default_factory=list)
    groups: list[PlacedGroup] = field(default_factory=list)
    meters: list[PlacedMeter] = field(default_factory=list)


def _find_room(
    image: Image,
    flows: Iterable[tuple[Flow, Lowered]],
    groups: Iterable[tuple[Group, LoweredGroup]],
    meters: Iterable[Meter],
) -> _Arrivals:
    """Find room for all that is new. Raises `Refused`, and then nothing of it has any."""
    arrivals = _Arrivals()
    what: ChangeKey | None = None
    try:
        for group, form in groups:
            what = GroupKey(group.number)
            arrivals.groups.append(image.room.place_group(group, form))
        for meter in meters:
            what = MeterKey(meter.number)
            arrivals.meters.append(image.room.place_meter(meter))
        for flow, lowered in flows:
            what = flow.key
            arrivals.flows.append(Placed(flow, lowered, image.room.place(lowered.actions)))
    except Full as full:
        _give_back(image, arrivals)
        raise _no_room(what) from full
    return arrivals


def _give_back(image: Image, arrivals: _Arrivals) -> None:
    """A number that was only taken for this change is free again."""
    for placed in arrivals.flows:
        image.room.release(placed.actions)
    for group in arrivals.groups:
        image.room.release_group(group)
        if group.number not in image.groups:
            image.room.group_entries.give_back(group.number)
    for meter in arrivals.meters:
        image.room.release_meter(meter)
        if meter.number not in image.meters:
            image.room.meter_entries.give_back(meter.number)


def _no_room(what: ChangeKey | None) -> Refused:
    """The refusal of what did not fit any more."""
    if isinstance(what, GroupKey):
        why = f"no room for group {what.number}"
        return Refused(ErrorType.GROUP_MOD_FAILED, GroupModFailed.OUT_OF_GROUPS, why, what)
    if isinstance(what, MeterKey):
        why = f"no room for meter {what.number}"
        return Refused(ErrorType.METER_MOD_FAILED, MeterModFailed.OUT_OF_METERS, why, what)
    return table_full("no room for the flows' actions")


class _Staging:
    """One change while its writes are collected. It cannot fail: what is new has its room."""

    def __init__(self, image: Image) -> None:
        self._image, self._version = image, image.version
        self._touched: dict[tuple[int, Words], Slot] = {}
        self._masks: list[tuple[int, MaskKey]] = []
        self._keys: list[tuple[int, Words, int]] = []
        self._lists: list[tuple[int, tuple[int, ...]]] = []
        self._rules: list[Placed] = []
        self._retired: list[Placed] = []
        self._groups: list[PlacedGroup] = []
        self._retired_groups: list[PlacedGroup] = []
        self._meters: list[PlacedMeter] = []
        self._retired_meters: list[PlacedMeter] = []
        self._entries: list[EntryWrite] = []

    def remove(self, placed: Placed) -> None:
        """Take a flow out."""
        mask, slot = self._image.classifier.where(placed)
        self._image.classifier.remove(placed)
        self._touched[mask, placed.lowered.words] = slot
        self._retired.append(placed)

    def add(self, placed: Placed) -> None:
        """Put a flow in."""
        classifier, words = self._image.classifier, placed.lowered.words
        key = mask_key(placed.flow.table, placed.lowered)
        mask, new_mask = classifier.mask(key)
        slot, new_slot = classifier.slot(mask, words)
        if new_mask:
            self._masks.append((mask, key))
        if new_slot:
            self._keys.append((mask, words, slot.entry))
        classifier.add(placed)
        self._image.placed[placed.flow.key] = placed
        self._touched[mask, words] = slot
        self._rules.append(placed)
        self._fill_lists(placed.actions)

    def _fill_lists(self, placed: PlacedActions) -> None:
        starts = (start for start, _ in placed.lists)
        self._lists += zip(starts, port_lists(placed.records), strict=True)

    def exchange_groups(self, arrivals: Sequence[PlacedGroup], remove: tuple[int, ...]) -> None:
        """Put groups in, take others out."""
        self._retired_groups += self._exchange(
            self._image.groups, self._image.room.group_entries, arrivals, remove
        )
        self._groups += arrivals
        for placed in self._retired_groups:
            self._image.classifier.count_reads(placed.lowered.reads, -1)
        for placed in arrivals:
            self._image.classifier.count_reads(placed.lowered.reads, 1)
            for bucket in placed.buckets:
                self._fill_lists(bucket)

    def exchange_meters(self, arrivals: Sequence[PlacedMeter], remove: tuple[int, ...]) -> None:
        """Put meters in, take others out."""
        self._retired_meters += self._exchange(
            self._image.meters, self._image.room.meter_entries, arrivals, remove
        )
        self._meters += arrivals

    def _exchange(
        self, there: dict[int, T], entries: Entries, arrivals: Sequence[T], remove: tuple[int, ...]
    ) -> list[T]:
        """Those that are gone; the entries show their successors, or none."""
        numbers = dict.fromkeys((*remove, *(placed.number for placed in arrivals)))
        gone = [there.pop(number) for number in numbers if number in there]
        there |= {placed.number: placed for placed in arrivals}
        shown = {placed.number: 0 for placed in gone} | {placed.number: placed.slot for placed in arrivals}
        self._entries += (entries.show(number, slot, self._version) for number, slot in shown.items())
        return gone

    def staged(self) -> Staged:
        """All that is to be written."""
        image, touched = self._image, self._touched
        entries = [write for slot in touched.values() if (write := slot.show(self._version))]
        return Staged(
            version=self._version,
            masks=tuple(self._masks),
            lists=(*image.next_ports(), *self._lists),
            rules=tuple(self._rules),
            groups=tuple(self._groups),
            meters=tuple(self._meters),
            keys=tuple(self._keys),
            entries=(*entries, *self._entries),
            tables=tuple(image.next_tables({image.classifier.table_of(mask) for mask, _ in touched})),
            reads=image.next_reads(),
            references=image.references,
            retired=tuple(self._retired),
            retired_groups=tuple(self._retired_groups),
            retired_meters=tuple(self._retired_meters),
            dead_keys=tuple((*key, slot.entry) for key, slot in touched.items() if not slot.flows),
        )
