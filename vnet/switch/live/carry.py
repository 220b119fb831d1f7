"""Carries what packets have made - connections, learnt addresses, counters - from one switch to another.

The two may keep it in different forms: members go by name. Everything can be done again after it was cut
short, and while packets go through the target: what is there is kept if it is newer, numbers that only grow
become the greater of both, and what all CPUs share is written by the dataplane (`vnet_carry`, carry.h).
"""

from __future__ import annotations

import os
import struct
from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from vnet.switch.live import bpf
from vnet.switch.live.btf import Conversion, Record, Struct
from vnet.switch.live.described import DescribedSwitch

SPARE_CONNS = 4096
"""Free slots that are kept for connections which begin while the last ones are carried over."""
_FRAME = bytes(16)
_PORT, _DROP, _MISS, _METER, _LOST, _OWNED, _CONN = 1, 2, 3, 4, 5, 6, 7
"""VNET_CARRY_*"""
_GROWING = ("last_seen_ns", "tcp_state", "seen_reply")
"""Members of a connection that only grow."""
_BY_DIRECTION = ("packets", "bytes")
_CELL: dict[int, Literal["B", "H", "I", "Q"]] = {1: "B", 2: "H", 4: "I", 8: "Q"}


class Adder:
    """Runs `vnet_carry` of the switch that counters are added to."""

    def __init__(self, switch: DescribedSwitch) -> None:
        self._program = switch.program("vnet_carry")

    def add(self, what: int, index: int, values: Iterable[int]) -> None:
        """Add up to six numbers; a negative one is taken away."""
        numbers = [value & 0xFFFFFFFFFFFFFFFF for value in values]
        record = struct.pack("<II6Q", what, index, *numbers, *[0] * (6 - len(numbers)))
        bpf.run(self._program, _FRAME + record)

    def close(self) -> None:
        """Let go of the program."""
        os.close(self._program)


def make_room(old: DescribedSwitch, new: DescribedSwitch) -> None:
    """Before packets go through the target: put the slots that will be needed among the free ones."""
    form = old.struct("conns")
    used = sum(Record(form, value)["gen"] & 1 for value in _slots(old))
    slots = min(used + SPARE_CONNS, new.map["conns"].max_entries)
    for slot in range(slots):
        new.map["free_conns"].push(struct.pack("<I", slot))
    new.map["ct_control"].set(0, new.at("ct_control", 0).with_(fresh=slots).raw)


def _slots(switch: DescribedSwitch) -> Iterator[bytes]:
    """The connection slots that have been used, as they are now."""
    conns = switch.map["conns"]
    used = min(switch.at("ct_control", 0)["fresh"], conns.max_entries)
    raw, size = conns.first(used) if used else b"", conns.value_size
    return (raw[start : start + size] for start in range(0, len(raw), size))


class Connections:
    """Carries connections over, again and again: what has not changed since the last time costs little."""

    def __init__(self, old: DescribedSwitch, new: DescribedSwitch, adder: Adder) -> None:
        self._old, self._new, self._adder = old, new, adder
        self._form, self._target = old.struct("conns"), new.struct("conns")
        self._convert = Conversion(self._form, self._target)
        self._key_at, keys = self._target.members["key"]
        self._key_size = keys.size // 2
        self._memory = new.map["conns"].window()
        self._seen: dict[int, bytes] = {}
        self.refused = 0
        """Those that found no room."""

    def close(self) -> None:
        """Let go of the memory of the connections."""
        self._memory.release()

    def carry(self) -> None:
        """Bring the target up to what the source holds now."""
        fresh: list[Record] = []
        for slot, value in enumerate(_slots(self._old)):
            before = self._seen.get(slot, b"")
            if before == value:
                continue
            self._seen[slot], record = value, Record(self._form, value)
            was = Record(self._form, before or bytes(self._form.size))
            self._end(was, record)
            if record["gen"] & 1 and not self._refresh(was, record):
                fresh.append(record)
        self._enter(sorted(fresh, key=lambda record: -record["last_seen_ns"]))

    def _keys(self, value: bytes) -> tuple[bytes, bytes]:
        at, size = self._key_at, self._key_size
        return value[at : at + size], value[at + size : at + 2 * size]

    def _find(self, value: bytes) -> tuple[int, Record] | None:
        """The connection of the same tuple in the target."""
        found = self._new.map["conn_index"].lookup(self._keys(value)[0])
        if found is None:
            return None
        slot = Record(self._new.struct("conn_index"), found)["slot"]
        record = self._new.at("conns", slot)
        return (slot, record) if record["gen"] & 1 else None

    def _refresh(self, was: Record, record: Record) -> bool:
        """Bring a connection that the target has up to date; whether it has it."""
        value = self._convert(record.raw)
        found = self._find(value)
        if found is None:
            return False
        slot, there = found
        if record["created_ns"] > there["created_ns"]:  # opened anew since
            self._new.map["conns"].set(slot, Record(self._target, value).with_(gen=there["gen"]).raw)
        elif record["created_ns"] == there["created_ns"]:
            self._merge(slot, Record(self._target, value), there)
            same = was["gen"] & 1 and was["created_ns"] == record["created_ns"]
            self._count(slot, record, was if same else there)
        return True

    def _count(self, slot: int, record: Record, since: Record) -> None:
        """Add what a connection counted since it was copied; if a daemon that is dead copied it, what the
        target is behind by."""
        more = [
            max(now - then, 0)
            for name in _BY_DIRECTION
            for now, then in zip(record.numbers(name), since.numbers(name), strict=True)
        ]
        if any(more):
            self._adder.add(_CONN, slot, more)

    def _merge(self, slot: int, came: Record, there: Record) -> None:
        for name in _GROWING:
            if came[name] > there[name]:
                self._store(slot, name, came[name])
        if came["fin_seen"] & ~there["fin_seen"]:
            self._store(slot, "fin_seen", came["fin_seen"] | there["fin_seen"])

    def _store(self, slot: int, name: str, value: int) -> None:
        """One number, by one store: packets may be changing others."""
        offset, form = self._target.members[name]
        stride = -(-self._target.size // 8) * 8
        with self._memory.cast("B").cast(_CELL[form.size]) as cells:
            cells[(slot * stride + offset) // form.size] = value

    def _end(self, was: Record, now: Record) -> None:
        """Let a connection that the source has no more expire in the target, if nothing was heard since."""
        if not was["gen"] & 1 or now["gen"] & 1 and now["created_ns"] == was["created_ns"]:
            return
        found = self._find(self._convert(was.raw))
        if found is None:
            return
        slot, there = found
        if there["created_ns"] == was["created_ns"] and there["last_seen_ns"] <= was["last_seen_ns"]:
            self._store(slot, "last_seen_ns", 0)

    def _enter(self, records: list[Record]) -> None:
        """Owners are charged first, so that who is cut short has charged too much and never too little."""
        for port, count in Tally(record["port"] for record in records).items():
            self._adder.add(_OWNED, port, (count, 0))
        for record in records:
            if not self._insert(self._convert(record.raw)):
                self._adder.add(_OWNED, record["port"], (-1, 0))
                self.refused += 1

    def _insert(self, value: bytes) -> bool:
        free = self._new.map["free_conns"].pop()
        if free is None:
            return False
        slot = int.from_bytes(free, "little")
        gen = self._new.at("conns", slot)["gen"]
        record = Record(self._target, value)
        self._new.map["conns"].set(slot, record.with_(gen=gen).raw)
        self._store(slot, "gen", gen + 1)  # from here on it may be found
        if self._index(value, slot):
            return True
        self._store(slot, "gen", gen + 2)
        self._new.map["free_conns"].push(free)
        return False

    def _index(self, value: bytes, slot: int) -> bool:
        """Both tuples, the smaller first, as the dataplane does (`vnet_ct_index`)."""
        index, refs, done = self._new.map["conn_index"], self._new.struct("conn_index"), list[bytes]()
        pairs = zip(self._keys(value), (0, 1), strict=True)
        for key, way in sorted(pairs, key=lambda pair: struct.unpack("<5Q", pair[0])):
            ref = Record(refs, bytes(refs.size)).with_(slot=slot, dir=way).raw
            if not index.insert(key, ref):
                for entered in done:
                    index.delete(entered)
                return False
            done.append(key)
        return True


class Addresses:
    """Carries learnt addresses over."""

    def __init__(self, old: DescribedSwitch, new: DescribedSwitch, adder: Adder) -> None:
        self._old, self._new, self._adder = old, new, adder
        self._key = Conversion(old.key_form("macs"), new.key_form("macs"))
        self._value = Conversion(old.form("macs"), new.form("macs"))
        self._form = new.struct("macs")
        self._seen: dict[bytes, bytes] = {}

    def carry(self) -> None:
        """Bring the target up to what the source holds now."""
        for key, value in list(self._old.map["macs"].items()):
            if self._seen.get(key) != value:
                self._seen[key] = value
                self._take(self._key(key), Record(self._form, self._value(value)))

    def _take(self, key: bytes, came: Record) -> None:
        macs = self._new.map["macs"]
        known = macs.lookup(key)
        if known is None:
            self._adder.add(_OWNED, came["port"], (0, 1))
            if not macs.insert(key, came.raw):
                self._adder.add(_OWNED, came["port"], (0, -1))
            return
        there = Record(self._form, known)
        if came["seen_ns"] > there["seen_ns"]:
            if came["port"] != there["port"]:
                self._adder.add(_OWNED, came["port"], (0, 1))
                self._adder.add(_OWNED, there["port"], (0, -1))
            macs.update(key, came.raw)


def counters(old: DescribedSwitch, new: DescribedSwitch, adder: Adder) -> None:
    """When no packet goes through the source any more: let the target's counters go on from there.

    What was added is taken off the source, so that nothing is added twice if this is done again.
    """
    _rules(old, new)
    for name, what in (
        ("port_counters", _PORT),
        ("drop_counters", _DROP),
        ("table_misses", _MISS),
        ("lost_events", _LOST),
    ):
        places = min(old.map[name].max_entries, new.map[name].max_entries)
        _add(old, adder, name, what, {index: index for index in range(places)})
    before, after = old.meters(), new.meters()
    width = min(_width(old), _width(new))
    places_ = {
        before[meter] + n: after[meter] + n for meter in before if meter in after for n in range(width)
    }
    _add(old, adder, "meter_counters", _METER, places_)


def _width(switch: DescribedSwitch) -> int:
    """Counters of each meter."""
    return switch.map["meter_counters"].max_entries // switch.map["meters"].max_entries


def _rules(old: DescribedSwitch, new: DescribedSwitch) -> None:
    """`rule_folded` is the agent's own, and the same however often it is written."""
    counted, after, form = old.counted(), new.rules(), new.form("rule_folded")
    assert isinstance(form, Struct)
    for what, number in old.rules().items():
        if what in after and (count := counted[number]).packets:
            total = Record(form, bytes(form.size)).with_(packets=count.packets, bytes=count.bytes)
            new.map["rule_folded"].set(after[what], total.raw)


def _add(old: DescribedSwitch, adder: Adder, name: str, what: int, places: Mapping[int, int]) -> None:
    """Add what stands at some indexes of the source at other ones of the target."""
    sums, nothing = old.sums(name, 1 + max(places, default=-1)), bytes(old.map[name].value_size)
    for index, target in places.items():
        if any(sums[index]):
            adder.add(what, target, sums[index])
            old.map[name].set(index, nothing)
