"""Learning from the maps what a switch is doing: after a restart, or when a change could not be written.

What a killed agent left half-written has versions above the cell's, so no packet has seen it: it is
wiped here, before the next commit would make it visible.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

from vnet.base.errors import HostError
from vnet.openflow.codec import CodecError, decode
from vnet.openflow.message import FlowMod, GroupMod, Message, MeterMod
from vnet.switch import abi
from vnet.switch.datapath import Refused
from vnet.switch.image import Image
from vnet.switch.live.bpf import Map
from vnet.switch.live.sound import Unsound, check
from vnet.switch.live.writer import METER_TEXT, delete_text, index_of, pack_key, seal
from vnet.switch.lower import lower, lower_group
from vnet.switch.lower_actions import Lowerable, PortList
from vnet.switch.placed import (
    MaskKey,
    Masks,
    Placed,
    PlacedActions,
    PlacedGroup,
    PlacedMeter,
    Variants,
    Words,
)

Entries = dict[tuple[int, Words], tuple[int, Variants]]


@dataclass(slots=True)
class _Found:
    """What the texts in force tell."""

    flows: list[Placed] = field(default_factory=list)
    groups: list[PlacedGroup] = field(default_factory=list)
    meters: list[PlacedMeter] = field(default_factory=list)


_UNREADABLE = (CodecError, Refused, Unsound, struct.error, LookupError, ValueError, OverflowError)
"""What is raised on the way to an image of maps that hold what no vnet has written."""


def read(maps: Mapping[str, Map], ports: tuple[int, ...]) -> Image:
    """The image of what is in force. Raises HostError if the maps do not agree with themselves."""
    try:
        return _read(maps, ports)
    except _UNREADABLE as error:
        raise HostError(
            f"the running switch's rules cannot be read back ({error}): take the fabric down and up again"
        ) from error


def _read(maps: Mapping[str, Map], ports: tuple[int, ...]) -> Image:
    version = abi.Control.from_buffer_copy(maps["control"].index(0) or b"").version
    image = Image(version, ports)
    found = _found(maps, version)
    entries = _entries(maps, version, {placed.rule for placed in found.flows})
    masks = _masks(maps, {mask for mask, _ in entries})
    shown = (
        _numbered(maps, "group_entries", version, {placed.entry for placed in found.groups}),
        _numbered(maps, "meter_entries", version, {placed.entry for placed in found.meters}),
    )
    banks = [_bank(maps, 0), _bank(maps, 1)]
    image.adopt(found.flows, found.groups, found.meters, masks, entries, shown, banks)
    check(maps, image, shown)
    return image


def _found(maps: Mapping[str, Map], version: int) -> _Found:
    found = _Found()
    for number, (message, place) in _texts(maps, version).items():
        match message:
            case FlowMod(flow=flow):
                form = lower(flow)
                found.flows.append(Placed(flow, form, _actions(maps, number, form.actions)))
            case GroupMod():
                found.groups.append(_group(maps, number, message, place))
            case MeterMod(meter=meter):
                found.meters.append(PlacedMeter(meter, place >> 16, number - METER_TEXT))
            case _:
                raise Unsound(f"text {number} is a {type(message).__name__}")
    return found


def _texts(maps: Mapping[str, Map], version: int) -> dict[int, tuple[Message, int]]:
    """By number: the message in force, and where the maps have it."""
    heads, chunks, leftovers = {}, {}, []
    for key, value in maps["rule_text"].items():
        number, chunk = struct.unpack("<II", key)
        chunks[number, chunk] = value[16:]
        if chunk == 0:
            heads[number] = struct.unpack_from("<IIII", value)
    texts: dict[int, tuple[Message, int]] = {}
    for number, (since, until, length, place) in heads.items():
        if since > version or 0 < until <= version:
            leftovers.append(number)
            continue
        text = b"".join(chunks[number, n] for n in range(-(-length // abi.TEXT_CHUNK)))[:length]
        texts[number] = _message(text), place
        if until:  # hidden by a change that never came into force
            head = struct.pack("<IIII", since, 0, length, place)
            maps["rule_text"].update(struct.pack("<II", number, 0), head + chunks[number, 0])
    for number in leftovers:
        delete_text(maps["rule_text"], number)
    return texts


def _message(text: bytes) -> Message:
    if seal(text) != text:
        raise Unsound("a text has been changed")
    return decode(text)[1]


def _actions(maps: Mapping[str, Map], number: int, records: tuple[Lowerable, ...]) -> PlacedActions:
    """Records with where they and their output lists lie."""
    rule = abi.Rule.from_buffer_copy(maps["rules"].index(number) or b"")
    lists = []
    for offset, record in enumerate(records):
        if isinstance(record, PortList):
            stored = abi.Action.from_buffer_copy(maps["actions"].index(rule.first_action + offset) or b"")
            length = struct.unpack("<I", maps["outputs"].index(stored.b) or bytes(4))[0]
            lists.append((stored.b, length + 1))
    return PlacedActions(number, rule.first_action, records, tuple(lists))


def _group(maps: Mapping[str, Map], rule: int, message: GroupMod, place: int) -> PlacedGroup:
    form, slot = lower_group(message.group), place & 0xFFFF
    stored = abi.Group.from_buffer_copy(maps["groups"].index(slot) or b"")
    buckets = []
    for offset, records in enumerate(form.buckets):
        raw = maps["buckets"].index(stored.first_bucket + offset) or b""
        buckets.append(_actions(maps, abi.Bucket.from_buffer_copy(raw).rule, records))
    return PlacedGroup(message.group, form, place >> 16, slot, rule, stored.first_bucket, tuple(buckets))


def _entries(maps: Mapping[str, Map], version: int, alive: set[int]) -> Entries:
    window, found, dead = maps["entries"].window(), {}, []
    widths: dict[int, int] = {}
    for raw, value in (*maps["rule_index"].items(), *maps["small_index"].items()):
        mask, _, *words = struct.unpack(f"<II{len(raw) // 8 - 1}Q", raw)
        if mask not in widths:
            widths[mask] = abi.Mask.from_buffer_copy(maps["masks"].index(mask) or b"").n_words
        key = mask, tuple(words[: widths[mask]])
        entry = struct.unpack("<I", value)[0]
        shown = _variants(window, entry, version)
        rule = max(shown)[1]
        if rule in alive:
            found[key] = entry, shown
        elif rule:
            raise Unsound(f"packets meet rule {rule}, of which there is no text")
        else:
            dead.append(key)
    for number, values in dead:
        maps[index_of(values)].delete(pack_key(number, values))
    return found


def _numbered(maps: Mapping[str, Map], name: str, version: int, entries: set[int]) -> dict[int, Variants]:
    """The variants of the entries of groups or meters; all others show nothing."""
    window = maps[name].window()
    found = {entry: _variants(window, entry, version) for entry in range(len(window) // 4)}
    for entry in found.keys() - entries:
        if slot := max(found[entry])[1]:
            raise Unsound(f"{name}[{entry}] shows {slot}, of which there is no text")
    return {entry: found[entry] for entry in entries}


def _variants(window: memoryview, entry: int, version: int) -> Variants:
    """(version, what it shows) of both variants; one above the version in force is wiped."""
    shown = []
    for variant in (0, 1):
        if window[4 * entry + 2 + variant] > version:
            window[4 * entry + 2 + variant] = 0
            window[4 * entry + variant] = 0
        shown.append((window[4 * entry + 2 + variant], window[4 * entry + variant]))
    return shown


def _masks(maps: Mapping[str, Map], numbers: set[int]) -> dict[MaskKey, int]:
    found: dict[MaskKey, int] = {}
    for number in numbers:
        mask = abi.Mask.from_buffer_copy(maps["masks"].index(number) or b"")
        words = tuple((mask.word[n], mask.mask[n]) for n in range(mask.n_words))
        found[mask.table, words] = number
    return found


def _bank(maps: Mapping[str, Map], bank: int) -> dict[int, Masks]:
    tables = {}
    for number in range(abi.TABLES):
        table = abi.Table.from_buffer_copy(maps["tables"].index(number + bank * abi.TABLES) or b"")
        if table.n_masks:
            masks = table.masks[: table.n_masks]
            tables[number] = tuple((m.mask_id, m.max_priority, abi.Trait(m.traits)) for m in masks)
    return tables
