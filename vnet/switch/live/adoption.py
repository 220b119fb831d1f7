"""Learning from the maps what a switch is doing: after a restart, or when a change could not be written.

What a killed agent left half-written has versions above the cell's, so no packet has seen it: it is
wiped here, before the next commit would make it visible.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from vnet.base.errors import HostError
from vnet.openflow.codec import decode
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowMod
from vnet.switch import abi
from vnet.switch.image import Image, MaskKey, Words
from vnet.switch.live.bpf import Map
from vnet.switch.live.writer import delete_text, pack_key
from vnet.switch.lower import PortList, lower_instructions

Rules = dict[int, tuple[Flow, int, tuple[tuple[int, int], ...]]]
Entries = dict[tuple[int, Words], tuple[int, list[tuple[int, int]]]]


def read(maps: Mapping[str, Map], ports: tuple[int, ...]) -> Image:
    """The image of what is in force."""
    version = abi.Control.from_buffer_copy(maps["control"].index(0) or b"").version
    image = Image(version, ports)
    rules = _rules(maps, version)
    entries = _entries(maps, version, set(rules))
    masks = _masks(maps, {mask for mask, _ in entries})
    image.adopt(rules, masks, entries, [_bank(maps, 0), _bank(maps, 1)])
    return image


def _rules(maps: Mapping[str, Map], version: int) -> Rules:
    heads, chunks, leftovers = {}, {}, []
    for key, value in maps["rule_text"].items():
        rule, chunk = struct.unpack("<II", key)
        chunks[rule, chunk] = value[16:]
        if chunk == 0:
            heads[rule] = struct.unpack_from("<III", value)
    rules: Rules = {}
    for rule, (since, until, length) in heads.items():
        if since > version or 0 < until <= version:
            leftovers.append(rule)
            continue
        text = b"".join(chunks[rule, n] for n in range(-(-length // abi.TEXT_CHUNK)))[:length]
        rules[rule] = _rule(maps, rule, _flow(text))
        if until:  # hidden by a change that never came into force
            maps["rule_text"].update(
                struct.pack("<II", rule, 0), struct.pack("<IIII", since, 0, length, 0) + chunks[rule, 0]
            )
    for rule in leftovers:
        delete_text(maps["rule_text"], rule)
    return rules


def _flow(text: bytes) -> Flow:
    _, message = decode(text)
    if not isinstance(message, FlowMod):
        raise HostError("the switch's rules cannot be read back: take the fabric down and up again")
    return message.flow


def _rule(maps: Mapping[str, Map], number: int, flow: Flow) -> tuple[Flow, int, tuple[tuple[int, int], ...]]:
    """The flow with where its actions and output lists lie."""
    rule = abi.Rule.from_buffer_copy(maps["rules"].index(number) or b"")
    lists = []
    for offset, action in enumerate(lower_instructions(flow.instructions)):
        if isinstance(action, PortList):
            stored = abi.Action.from_buffer_copy(maps["actions"].index(rule.first_action + offset) or b"")
            length = struct.unpack("<I", maps["outputs"].index(stored.b) or bytes(4))[0]
            lists.append((stored.b, length + 1))
    return flow, rule.first_action, tuple(lists)


def _entries(maps: Mapping[str, Map], version: int, alive: set[int]) -> Entries:
    window, found, dead = maps["entries"].window(), {}, []
    widths: dict[int, int] = {}
    for raw, value in maps["rule_index"].items():
        mask, _, *words = struct.unpack(f"<II{abi.MASK_WORDS}Q", raw)
        if mask not in widths:
            widths[mask] = abi.Mask.from_buffer_copy(maps["masks"].index(mask) or b"").n_words
        key = mask, tuple(words[: widths[mask]])
        entry = struct.unpack("<I", value)[0]
        shown = _variants(window, entry, version)
        if max(shown)[1] in alive:
            found[key] = entry, shown
        else:
            dead.append(key)
    for number, values in dead:
        maps["rule_index"].delete(pack_key(number, values))
    return found


def _variants(window: memoryview, entry: int, version: int) -> list[tuple[int, int]]:
    """(version, rule) of both variants; one above the version in force is wiped."""
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


def _bank(maps: Mapping[str, Map], bank: int) -> dict[int, tuple[tuple[int, int], ...]]:
    tables = {}
    for number in range(abi.TABLES):
        table = abi.Table.from_buffer_copy(maps["tables"].index(number + bank * abi.TABLES) or b"")
        if table.n_masks:
            tables[number] = tuple((m.mask_id, m.max_priority) for m in table.masks[: table.n_masks])
    return tables
