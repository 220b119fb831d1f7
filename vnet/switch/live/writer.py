"""Writes a staged change into the maps, in the order that keeps packets of the old version right."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from zlib import crc32

from vnet.openflow.codec import encode
from vnet.openflow.flow import Port
from vnet.openflow.group import Band, Bucket, Meter, MeterFlag
from vnet.openflow.message import (
    FlowCommand,
    FlowMod,
    GroupCommand,
    GroupMod,
    Message,
    MeterCommand,
    MeterMod,
)
from vnet.switch import abi
from vnet.switch.abi import Op
from vnet.switch.live.bpf import Map
from vnet.switch.lower_actions import GroupRef, Lowerable, MeterRef, PortList, Record
from vnet.switch.placed import (
    EntryWrite,
    MaskKey,
    Placed,
    PlacedActions,
    PlacedGroup,
    PlacedMeter,
    References,
    Staged,
    TableBank,
    Words,
)

METER_TEXT = 0x80000000
"""Added to a meter's slot it is the number under which its text lies among those of rules."""

MAX_TEXT_BYTES = 0xFFFF
"""Of an OpenFlow message."""

TOKENS = 1_000_000_000
"""In the bucket of a meter's band, for a packet or a kilobit."""

MAX_COST = 65_536 * TOKENS
"""Of a packet: the segments of a super packet are counted in 16 bits, its kilobits are fewer."""

ENTRY_MAPS = ("entries", "group_entries", "meter_entries")


def pack_mask(key: MaskKey) -> bytes:
    """`struct vnet_mask` of a table's mask."""
    table, words = key
    mask = abi.Mask(n_words=len(words), table=table)
    for index, (word, bits) in enumerate(words):
        mask.word[index], mask.mask[index] = word, bits
    return bytes(mask)


def pack_key(mask: int, words: Words) -> bytes:
    """`struct vnet_rule_key` or `struct vnet_small_key`, the key of the map that `index_of` names."""
    room = abi.SMALL_WORDS if len(words) <= abi.SMALL_WORDS else abi.MASK_WORDS
    return struct.pack(f"<II{room}Q", mask, 0, *words, *[0] * (room - len(words)))


def index_of(words: Words) -> str:
    """The map in which the masked words are looked up."""
    return "small_index" if len(words) <= abi.SMALL_WORDS else "rule_index"


def pack_rule(placed: Placed) -> bytes:
    """`struct vnet_rule` of a flow."""
    flow, form, actions = placed.flow, placed.lowered, placed.actions
    return struct.pack(
        "<QIHHBBBBB3x",
        flow.cookie,
        actions.first_action,
        len(actions.records),
        flow.priority,
        flow.table,
        form.goto,
        form.drop_reason,
        form.miss,
        form.logged,
    )


def pack_list(placed: PlacedActions) -> bytes:
    """`struct vnet_rule` of a list of actions that no table leads to."""
    return struct.pack("<QIHHBBBB4x", 0, placed.first_action, len(placed.records), 0, 0, abi.NO_TABLE, 0, 0)


def pack_action(record: Lowerable, list_at: int, references: References) -> bytes:
    """`struct vnet_action`; `list_at` is where the record's output list lies, if it has one."""
    match record:
        case PortList():
            return struct.pack("<HHIQQ", Op.OUTPUTS, 0, list_at, 0, 0)
        case GroupRef(group):
            return struct.pack("<HHIQQ", Op.GROUP, 0, references.groups[group], 0, 0)
        case MeterRef(meter):
            return struct.pack("<HHIQQ", Op.METER, 0, references.meters[meter], 0, 0)
        case Record(op, a, b, value, mask):
            return struct.pack("<HHIQQ", op, a, b, value, mask)


def pack_actions(placed: PlacedActions, references: References) -> list[bytes]:
    """A `struct vnet_action` for each record."""
    starts = iter(start for start, _ in placed.lists)
    return [
        pack_action(record, next(starts) if isinstance(record, PortList) else 0, references)
        for record in placed.records
    ]


def pack_table(bank: TableBank) -> bytes:
    """`struct vnet_table`."""
    masks = b"".join(struct.pack("<IHH", *mask) for mask in bank.masks)
    return struct.pack("<II", len(bank.masks), bank.beyond) + masks.ljust(8 * abi.TABLE_MASKS, b"\0")


def pack_group(placed: PlacedGroup) -> bytes:
    """`struct vnet_group`."""
    return struct.pack("<IIII", placed.group.kind, len(placed.buckets), placed.first_bucket, placed.rule)


def pack_bucket(bucket: Bucket, rule: int) -> bytes:
    """`struct vnet_bucket`."""
    watched = abi.NO_PORT if bucket.watch_port == Port.ANY else bucket.watch_port
    return struct.pack("<IIII", rule, watched, bucket.weight, 0)


def pack_meter(meter: Meter) -> bytes:
    """`struct vnet_meter`. A burst that was not given is what a second's rate allows, as in Open vSwitch."""
    bands = b"".join(_pack_band(band, meter) for band in meter.bands)
    size = 24 * (abi.BANDS - len(meter.bands))
    return struct.pack("<II", meter.flags & 3, len(meter.bands)) + bands + bytes(size)


def _pack_band(band: Band, meter: Meter) -> bytes:
    """Tokens are 10^-6 bit or 10^-9 packets, so that a rate is tokens per nanosecond.

    An empty bucket may owe what one packet costs.
    """
    given = meter.flags & MeterFlag.BURST and band.burst
    burst = (given or band.rate) * TOKENS
    full_ns = -(-(burst + MAX_COST) // band.rate)
    return struct.pack("<QQIHH", burst, full_ns, band.rate, band.kind, band.precedence)


def seal(text: bytes) -> bytes:
    """An OpenFlow message, its checksum for its transaction id: much of it shows nowhere else in the maps."""
    plain = text[:4] + bytes(4) + text[8:]
    return plain[:4] + crc32(plain).to_bytes(4, "big") + plain[8:]


def delete_text(texts: Map, number: int) -> None:
    """Forget an OpenFlow form; the chunk that tells its length goes last."""
    value = texts.lookup(struct.pack("<II", number, 0))
    length = min(struct.unpack_from("<I", value, 8)[0], MAX_TEXT_BYTES) if value else 0
    for chunk in reversed(range(-(-length // abi.TEXT_CHUNK))):
        texts.delete(struct.pack("<II", number, chunk))


class Writer:
    """Carries out `Staged` on the open maps."""

    def __init__(self, maps: Mapping[str, Map]) -> None:
        self._map = maps
        self._entries = {name: maps[name].window() for name in ENTRY_MAPS}
        self._control = maps["control"].window()

    def write(self, staged: Staged) -> None:
        """Everything up to the flip of the cell. No packet in flight can see any of it."""
        for number, key in staged.masks:
            self._map["masks"].set(number, pack_mask(key))
        for start, ports in staged.lists:
            for offset, value in enumerate((len(ports), *ports)):
                self._map["outputs"].set(start + offset, struct.pack("<I", value))
        for placed in staged.rules:
            self._write_rule(placed, staged)
        for group in staged.groups:
            self._write_group(group, staged)
        for meter in staged.meters:
            self._write_meter(meter, staged)
        for mask, words, entry in staged.keys:
            self._entries["entries"][4 * entry : 4 * entry + 4] = memoryview(bytes(16)).cast("I")
            self._map[index_of(words)].update(pack_key(mask, words), struct.pack("<I", entry))
        for write in staged.entries:
            self._write_entry(write)
        for bank in staged.tables:
            self._map["tables"].set(bank.table + (staged.version & 1) * abi.TABLES, pack_table(bank))
        if staged.reads is not None:
            self._write_reads(staged.version & 1, staged.reads)
        for number in self._retired_texts(staged):
            self._mark_text(number, staged.version)

    def _write_rule(self, placed: Placed, staged: Staged) -> None:
        self._write_actions(placed.actions, staged.references)
        self._map["rules"].set(placed.rule, pack_rule(placed))
        self._write_text(placed.rule, FlowMod(FlowCommand.ADD, placed.flow), staged.version)

    def _write_actions(self, placed: PlacedActions, references: References) -> None:
        self.forget_counts(placed.rule)
        for offset, action in enumerate(pack_actions(placed, references)):
            self._map["actions"].set(placed.first_action + offset, action)

    def forget_counts(self, rule: int) -> None:
        """Let a rule count from zero."""
        self._map["rule_counters"].set(rule, bytes(self._map["rule_counters"].value_size))
        self._map["rule_folded"].set(rule, bytes(16))

    def _write_group(self, placed: PlacedGroup, staged: Staged) -> None:
        self.forget_counts(placed.rule)
        for offset, (bucket, held) in enumerate(zip(placed.group.buckets, placed.buckets, strict=True)):
            self._write_actions(held, staged.references)
            self._map["rules"].set(held.rule, pack_list(held))
            self._map["buckets"].set(placed.first_bucket + offset, pack_bucket(bucket, held.rule))
        self._map["groups"].set(placed.slot, pack_group(placed))
        mod, place = GroupMod(GroupCommand.ADD, placed.group), placed.entry << 16 | placed.slot
        self._write_text(placed.rule, mod, staged.version, place)

    def _write_meter(self, placed: PlacedMeter, staged: Staged) -> None:
        counters = self._map["meter_counters"]
        for band in range(abi.BANDS + 1):
            counters.set(placed.slot * (abi.BANDS + 1) + band, bytes(counters.value_size))
        self._map["meter_state"].set(placed.slot, bytes(self._map["meter_state"].value_size))
        self._map["meters"].set(placed.slot, pack_meter(placed.meter))
        mod, place = MeterMod(MeterCommand.ADD, placed.meter), placed.entry << 16 | placed.slot
        self._write_text(METER_TEXT | placed.slot, mod, staged.version, place)

    def write_packet_out(self, records: tuple[Lowerable, ...], references: References) -> None:
        """Put a controller's actions where the packet-out program finds them."""
        first = abi.ACTIONS - abi.RULE_ACTIONS
        for offset, record in enumerate(records):
            self._map["actions"].set(first + offset, pack_action(record, 0, references))
        self._map["rules"].set(abi.PACKET_OUT, pack_list(PlacedActions(abi.PACKET_OUT, first, records, ())))

    def _write_entry(self, write: EntryWrite) -> None:
        """What is shown before the version that shows it; each is one aligned store."""
        window, at = self._entries[write.map], 4 * write.entry
        window[at + write.variant] = write.rule
        window[at + 2 + write.variant] = write.version

    def _write_reads(self, bank: int, reads: tuple[int, ...]) -> None:
        at = abi.Control.reads.offset // 4 + bank * 2 * abi.CACHE_WORDS
        for index, bits in enumerate(reads):
            self._control[at + 2 * index] = bits & 0xFFFFFFFF
            self._control[at + 2 * index + 1] = bits >> 32

    def _write_text(self, number: int, message: Message, version: int, place: int = 0) -> None:
        text = seal(encode(message, 0))
        for chunk, start in enumerate(range(0, len(text), abi.TEXT_CHUNK)):
            part = text[start : start + abi.TEXT_CHUNK].ljust(abi.TEXT_CHUNK, b"\0")
            value = struct.pack("<IIII", version, 0, len(text), place) + part
            self._map["rule_text"].update(struct.pack("<II", number, chunk), value)

    def _mark_text(self, number: int, version: int) -> None:
        key = struct.pack("<II", number, 0)
        value = self._map["rule_text"].lookup(key)
        if value is not None:
            self._map["rule_text"].update(key, value[:4] + struct.pack("<I", version) + value[8:])

    @staticmethod
    def _retired_texts(staged: Staged) -> list[int]:
        rules = [placed.rule for placed in staged.retired]
        rules += [placed.rule for placed in staged.retired_groups]
        return rules + [METER_TEXT | placed.slot for placed in staged.retired_meters]

    def clean(self, staged: Staged) -> None:
        """After the grace period: delete what no packet can reach."""
        for mask, words, _ in staged.dead_keys:
            self._map[index_of(words)].delete(pack_key(mask, words))
        for number in self._retired_texts(staged):
            delete_text(self._map["rule_text"], number)

    def close(self) -> None:
        """Let go of the maps' memory."""
        self._control.release()
        for window in self._entries.values():
            window.release()
