"""Writes a staged change into the maps, in the order that keeps packets of the old version right."""

from __future__ import annotations

import struct
from collections.abc import Mapping

from vnet.openflow.codec import encode
from vnet.openflow.message import FlowCommand, FlowMod
from vnet.switch import abi
from vnet.switch.image import EntryWrite, MaskKey, Placed, Staged, Words
from vnet.switch.live.bpf import Map
from vnet.switch.lower import PortList, Record


def pack_mask(key: MaskKey) -> bytes:
    """`struct vnet_mask` of a table's mask."""
    table, words = key
    mask = abi.Mask(n_words=len(words), table=table)
    for index, (word, bits) in enumerate(words):
        mask.word[index], mask.mask[index] = word, bits
    return bytes(mask)


def pack_key(mask: int, words: Words) -> bytes:
    """`struct vnet_rule_key`."""
    return struct.pack(f"<II{abi.MASK_WORDS}Q", mask, 0, *words, *[0] * (abi.MASK_WORDS - len(words)))


def pack_rule(placed: Placed) -> bytes:
    """`struct vnet_rule`."""
    flow, form = placed.flow, placed.lowered
    return struct.pack(
        "<QIHHBBB5x",
        flow.cookie,
        placed.first_action,
        len(form.actions),
        flow.priority,
        flow.table,
        form.goto,
        form.drop_reason,
    )


def pack_actions(placed: Placed) -> list[bytes]:
    """A `struct vnet_action` for each action, output lists by their place in `outputs`."""
    lists = iter(placed.lists)
    packed = []
    for action in placed.lowered.actions:
        match action:
            case PortList():
                packed.append(struct.pack("<HHIQQ", abi.Op.OUTPUTS, 0, next(lists)[0], 0, 0))
            case Record(op, a, b, value, mask):
                packed.append(struct.pack("<HHIQQ", op, a, b, value, mask))
    return packed


def pack_table(masks: tuple[tuple[int, int], ...]) -> bytes:
    """`struct vnet_table`."""
    flat = [number for pair in masks for number in pair]
    return struct.pack(
        f"<II{2 * abi.TABLE_MASKS}I", len(masks), 0, *flat, *[0] * (2 * abi.TABLE_MASKS - len(flat))
    )


def delete_text(texts: Map, rule: int) -> None:
    """Forget a rule's OpenFlow form; the chunk that tells its length goes last."""
    value = texts.lookup(struct.pack("<II", rule, 0))
    length = struct.unpack_from("<I", value, 8)[0] if value else 0
    for chunk in reversed(range(-(-length // abi.TEXT_CHUNK))):
        texts.delete(struct.pack("<II", rule, chunk))


class Writer:
    """Carries out `Staged` on the open maps."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps
        self._entries = maps["entries"].window()

    def write(self, staged: Staged) -> None:
        """Everything up to the flip of the cell. No packet in flight can see any of it."""
        for number, key in staged.masks:
            self._map["masks"].set(number, pack_mask(key))
        for start, ports in staged.lists:
            for offset, value in enumerate((len(ports), *ports)):
                self._map["outputs"].set(start + offset, struct.pack("<I", value))
        for placed in staged.rules:
            self._write_rule(placed, staged.version)
        for mask, words, entry in staged.keys:
            self._entries[4 * entry : 4 * entry + 4] = memoryview(bytes(16)).cast("I")
            self._map["rule_index"].update(pack_key(mask, words), struct.pack("<I", entry))
        for write in staged.entries:
            self._write_entry(write)
        for table, masks in staged.tables:
            self._map["tables"].set(table + (staged.version & 1) * abi.TABLES, pack_table(masks))
        for placed in staged.retired:
            self._mark_text(placed.rule, staged.version)

    def _write_rule(self, placed: Placed, version: int) -> None:
        self._map["rule_counters"].set(placed.rule, bytes(self._map["rule_counters"].value_size))
        for offset, action in enumerate(pack_actions(placed)):
            self._map["actions"].set(placed.first_action + offset, action)
        self._map["rules"].set(placed.rule, pack_rule(placed))
        self._write_text(placed, version)

    def _write_entry(self, write: EntryWrite) -> None:
        """The rule before the version that shows it; each is one aligned store."""
        at = 4 * write.entry
        self._entries[at + write.variant] = write.rule
        self._entries[at + 2 + write.variant] = write.version

    def _write_text(self, placed: Placed, version: int) -> None:
        text = encode(FlowMod(FlowCommand.ADD, placed.flow), 0)
        for chunk, start in enumerate(range(0, len(text), abi.TEXT_CHUNK)):
            part = text[start : start + abi.TEXT_CHUNK].ljust(abi.TEXT_CHUNK, b"\0")
            value = struct.pack("<IIII", version, 0, len(text), 0) + part
            self._map["rule_text"].update(struct.pack("<II", placed.rule, chunk), value)

    def _mark_text(self, rule: int, version: int) -> None:
        key = struct.pack("<II", rule, 0)
        value = self._map["rule_text"].lookup(key)
        if value is not None:
            self._map["rule_text"].update(key, value[:4] + struct.pack("<I", version) + value[8:])

    def clean(self, staged: Staged) -> None:
        """After the grace period: delete what no packet can reach."""
        for mask, words, _ in staged.dead_keys:
            self._map["rule_index"].delete(pack_key(mask, words))
        for placed in staged.retired:
            delete_text(self._map["rule_text"], placed.rule)

    def close(self) -> None:
        """Let go of the maps' memory."""
        self._entries.release()
