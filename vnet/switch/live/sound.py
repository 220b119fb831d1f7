"""Whether maps hold what the OpenFlow messages in them mean.

A switch that was tampered with, or of which a part was lost, is not taken over: the agent would believe that
rules are in force which are not. What it would have written is compared with what is there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vnet.switch import abi
from vnet.switch.image import Image
from vnet.switch.live.bpf import Map
from vnet.switch.live.writer import (
    pack_actions,
    pack_bucket,
    pack_group,
    pack_list,
    pack_mask,
    pack_meter,
    pack_rule,
    pack_table,
)
from vnet.switch.lower_actions import PortList
from vnet.switch.placed import PlacedActions, PlacedGroup, References, TableBank, Variants

Cell = tuple[str, int, bytes]
"""What an array holds at an index."""


class Unsound(Exception):
    """Two things in the maps contradict each other."""


def check(maps: Mapping[str, Map], image: Image, shown: tuple[Mapping[int, Variants], ...]) -> None:
    """Raise Unsound unless the maps hold the image; `shown` by the entries of groups and of meters."""
    cells = list(_cells(image))
    arrays = {name: _first(maps[name], index) for name, index in _last(cells).items()}
    for name, index, wanted in cells:
        size = maps[name].value_size
        if (found := arrays[name][index * size : (index + 1) * size]) != wanted:
            raise Unsound(f"{name}[{index}] is {found.hex()} instead of {wanted.hex()}")
    for entry, rule, variants in _entries(image, shown):
        if max(variants)[1] != rule:
            raise Unsound(f"entry {entry} shows {max(variants)[1]} instead of {rule}")
    control = abi.Control.from_buffer_copy(maps["control"].index(0) or b"")
    if image.placed and tuple(control.reads[image.version & 1]) != image.classifier.reads:
        raise Unsound("the flow cache's key is not what the rules ask for")


def _last(cells: list[Cell]) -> dict[str, int]:
    """The highest index of each array."""
    last: dict[str, int] = {}
    for name, index, _ in cells:
        last[name] = max(index, last.get(name, 0))
    return last


def _first(array: Map, last: int) -> bytes:
    """All up to the last one: one system call is faster than thousands."""
    return array.first(min(last + 1, array.max_entries))


def _cells(image: Image) -> Iterator[Cell]:
    """Of all arrays that packets are decided by."""
    references, classifier = image.references, image.classifier
    for placed in image.placed.values():
        yield "rules", placed.rule, pack_rule(placed)
        yield from _actions(placed.actions, references)
    for group in image.groups.values():
        yield from _group(group, references)
    for meter in image.meters.values():
        yield "meters", meter.slot, pack_meter(meter.meter)
    for key, number in classifier.masks.items():
        yield "masks", number, pack_mask(key)
    for table in range(abi.TABLES):
        masks = classifier.search_order(table)
        bank = TableBank(table, masks, classifier.beyond(masks))
        yield "tables", table + (image.version & 1) * abi.TABLES, pack_table(bank)


def _actions(held: PlacedActions, references: References) -> Iterator[Cell]:
    for offset, action in enumerate(pack_actions(held, references)):
        yield "actions", held.first_action + offset, action
    lists = [record for record in held.records if isinstance(record, PortList)]
    for (start, _), record in zip(held.lists, lists, strict=True):
        for offset, value in enumerate((len(record.ports), *record.ports)):
            yield "outputs", start + offset, value.to_bytes(4, "little")


def _group(group: PlacedGroup, references: References) -> Iterator[Cell]:
    yield "groups", group.slot, pack_group(group)
    for offset, (bucket, held) in enumerate(zip(group.group.buckets, group.buckets, strict=True)):
        yield "buckets", group.first_bucket + offset, pack_bucket(bucket, held.rule)
        yield "rules", held.rule, pack_list(held)
        yield from _actions(held, references)


def _entries(image: Image, shown: tuple[Mapping[int, Variants], ...]) -> Iterator[tuple[int, int, Variants]]:
    """(entry, what it should show, its variants) of flows, groups and meters."""
    for slot in image.classifier.slots.values():
        yield slot.entry, slot.flows[0].rule, slot.shown
    for group in image.groups.values():
        yield group.entry, group.slot, shown[0][group.entry]
    for meter in image.meters.values():
        yield meter.entry, meter.slot, shown[1][meter.entry]
