"""The dataplane's maps as far as packets find their way by them, and who holds which numbers of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeVar

from vnet.openflow.flow import Flow
from vnet.openflow.group import Group, Meter
from vnet.switch.image import Image
from vnet.switch.lower import Reads, traits
from vnet.switch.placed import (
    MaskKey,
    Masks,
    Placed,
    PlacedActions,
    PlacedGroup,
    PlacedMeter,
    Staged,
    Variants,
    Words,
)

T = TypeVar("T")
Held = tuple[str, int]
"""An index of one of the arrays."""


class Maps:
    """What a change has written. Two may not hold the same index of an array, not even for a moment."""

    def __init__(self) -> None:
        self.version = 1
        self.masks: dict[int, MaskKey] = {}
        self.index: dict[tuple[int, Words], int] = {}
        self.entries: dict[str, dict[int, Variants]] = {
            "entries": {},
            "group_entries": {},
            "meter_entries": {},
        }
        self.flows: dict[int, Placed] = {}
        """By rule."""
        self.groups: dict[int, PlacedGroup] = {}
        self.meters: dict[int, PlacedMeter] = {}
        """By slot."""
        self.banks: list[dict[int, Masks]] = [{}, {}]
        self.reads: list[Reads | None] = [None, None]
        self.lists: dict[int, tuple[int, ...]] = {}

    def held(self) -> list[Held]:
        """Everything that is somebody's."""
        parts: list[Held] = []
        for placed in self.flows.values():
            parts += _of_actions(placed.actions)
        for group in self.groups.values():
            parts += _of_group(group)
        return [
            *parts,
            *(("meter", slot) for slot in self.meters),
            *(("entry", e) for e in self.index.values()),
        ]

    def write(self, staged: Staged) -> None:
        """All up to the flip."""
        self.masks |= dict(staged.masks)
        self.lists |= dict(staged.lists)
        self.flows |= _added(self.flows, {placed.rule: placed for placed in staged.rules})
        self.groups |= _added(self.groups, {placed.slot: placed for placed in staged.groups})
        self.meters |= _added(self.meters, {placed.slot: placed for placed in staged.meters})
        for mask, words, entry in staged.keys:
            self.entries["entries"][entry] = [(0, 0), (0, 0)]
            self.index[mask, words] = entry
        for write in staged.entries:
            shown = self.entries[write.map].setdefault(write.entry, [(0, 0), (0, 0)])
            read = max(variant for variant in shown if variant[0] <= self.version)
            assert not read[1] or shown[write.variant] != read, "it is being read"
            shown[write.variant] = write.version, write.rule
        for bank in staged.tables:
            self.banks[staged.version & 1][bank.table] = bank.masks
        if staged.reads is not None:
            self.reads[staged.version & 1] = staged.reads
        held = self.held()
        assert len(set(held)) == len(held), "two hold the same"

    def finish(self, staged: Staged) -> None:
        """The flip, and what is deleted after it."""
        self.version = staged.version
        for mask, words, _ in staged.dead_keys:
            del self.index[mask, words]
        for placed in staged.retired:
            del self.flows[placed.rule]
        for group in staged.retired_groups:
            del self.groups[group.slot]
        for meter in staged.retired_meters:
            del self.meters[meter.slot]

    def _shows(self, map_name: str, entry: int) -> int:
        return max(variant for variant in self.entries[map_name][entry] if variant[0] <= self.version)[1]

    def visible(self) -> set[Flow]:
        """Flows that a packet of the version in force can reach."""
        found = set()
        banks = self.banks[self.version & 1].values()
        searched = {mask: (top, traits) for masks in banks for mask, top, traits in masks}
        for (mask, _), entry in self.index.items():
            rule = self._shows("entries", entry)
            if rule and mask in searched:
                flow, form = self.flows[rule].flow, self.flows[rule].lowered
                top, asked = searched[mask]
                assert flow.priority <= top, "the search would end before this rule"
                assert asked in traits(form.mask, form.words), "the search would leave this mask out"
                found.add(flow)
        return found

    def visible_groups(self, entries: dict[int, int]) -> dict[int, Group]:
        """By number, for the entries by number that records name."""
        slots = {number: self._shows("group_entries", entry) for number, entry in entries.items()}
        return {number: self.groups[slot].group for number, slot in slots.items() if slot}

    def visible_meters(self, entries: dict[int, int]) -> dict[int, Meter]:
        """The same for meters."""
        slots = {number: self._shows("meter_entries", entry) for number, entry in entries.items()}
        return {number: self.meters[slot].meter for number, slot in slots.items() if slot}

    def adopted(self, ports: tuple[int, ...]) -> Image:
        """The image that an agent makes of these maps when it starts, as `live.adoption` does."""
        image = Image(self.version, ports)
        used = {mask for mask, _ in self.index}
        image.adopt(
            self.flows.values(),
            self.groups.values(),
            self.meters.values(),
            {key: number for number, key in self.masks.items() if number in used},
            {key: (entry, list(self.entries["entries"][entry])) for key, entry in self.index.items()},
            (
                {g.entry: list(self.entries["group_entries"][g.entry]) for g in self.groups.values()},
                {m.entry: list(self.entries["meter_entries"][m.entry]) for m in self.meters.values()},
            ),
            [{table: masks for table, masks in bank.items() if masks} for bank in self.banks],
        )
        return image


def _added(before: dict[int, T], fresh: dict[int, T]) -> dict[int, T]:
    assert not before.keys() & fresh.keys(), "what is in use is not written"
    return fresh


def _of_actions(held: PlacedActions) -> Iterator[Held]:
    yield "rule", held.rule
    yield from (("action", held.first_action + n) for n in range(len(held.records)))
    yield from (("list", start + n) for start, length in held.lists for n in range(length))


def _of_group(group: PlacedGroup) -> Iterator[Held]:
    yield from (("group", group.slot), ("rule", group.rule))
    yield from (("bucket", group.first_bucket + n) for n in range(len(group.buckets)))
    for bucket in group.buckets:
        yield from _of_actions(bucket)
