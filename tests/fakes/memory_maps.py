"""BPF maps that are only memory: for tests of what reads and writes them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping
from typing import Any

from vnet.switch import abi

CPUS = 2
"""Per-CPU values are those of all CPUs, one behind the other."""


class MemoryMap:
    """As `vnet.switch.live.bpf.Map`: an array, whose values are zero at first, or a hash table."""

    def __init__(self, value_size: int, entries: int = 0, key_size: int = 4) -> None:
        self.value_size, self.max_entries, self.key_size = value_size, entries, key_size
        self.pushed: list[bytes] = []
        self._values: dict[bytes, bytes] = {}

    def lookup(self, key: bytes) -> bytes | None:
        default = bytes(self.value_size) if self._is_index(key) else None
        return self._values.get(key, default)

    def update(self, key: bytes, value: bytes) -> None:
        assert len(key) == self.key_size
        assert len(value) == self.value_size
        assert self._is_index(key) or not self.max_entries, "beyond the array's end"
        self._values[key] = value

    def _is_index(self, key: bytes) -> bool:
        return bool(self.max_entries) and int.from_bytes(key, "little") < self.max_entries

    def delete(self, key: bytes) -> None:
        assert not self.max_entries, "nothing is deleted from an array"
        self._values.pop(key, None)

    def keys(self) -> Iterator[bytes]:
        return iter(list(self._values))

    def items(self) -> Iterator[tuple[bytes, bytes]]:
        return iter(list(self._values.items()))

    def index(self, number: int) -> bytes | None:
        return self.lookup(number.to_bytes(4, "little"))

    def set(self, number: int, value: bytes) -> None:
        self.update(number.to_bytes(4, "little"), value)

    def first(self, count: int) -> bytes:
        assert count <= self.max_entries, "beyond the array's end"
        return b"".join(self.index(number) or b"" for number in range(count))

    def push(self, value: bytes) -> None:
        self.pushed.append(value)


class MemoryWindow(MemoryMap):
    """An array whose memory is written directly."""

    def __init__(self, value_size: int, entries: int) -> None:
        super().__init__(value_size, entries)
        self._memory = bytearray(value_size * entries)

    def lookup(self, key: bytes) -> bytes | None:
        at = int.from_bytes(key, "little") * self.value_size
        return bytes(self._memory[at : at + self.value_size])

    def update(self, key: bytes, value: bytes) -> None:
        assert len(value) == self.value_size
        at = int.from_bytes(key, "little") * self.value_size
        self._memory[at : at + self.value_size] = value

    def window(self) -> memoryview:
        return memoryview(self._memory).cast("I")


COUNTER = 16 * CPUS


def switch_maps() -> dict[str, MemoryMap]:
    """Those that the agent writes and reads, empty; the version in force is 1."""
    size = ctypes.sizeof
    maps: dict[str, MemoryMap] = {
        "control": MemoryWindow(size(abi.Control), 1),
        "entries": MemoryWindow(size(abi.Entry), 64),
        "group_entries": MemoryWindow(size(abi.Entry), 64),
        "meter_entries": MemoryWindow(size(abi.Entry), 64),
        "tables": MemoryMap(size(abi.Table), 2 * abi.TABLES),
        "masks": MemoryMap(size(abi.Mask), abi.MASKS),
        "rule_index": MemoryMap(4, key_size=size(abi.RuleKey)),
        "small_index": MemoryMap(4, key_size=size(abi.SmallKey)),
        "rules": MemoryMap(size(abi.Rule), abi.RULES),
        "actions": MemoryMap(size(abi.Action), abi.ACTIONS),
        "outputs": MemoryMap(4, abi.OUTPUTS),
        "groups": MemoryMap(size(abi.Group), 2 * abi.GROUPS),
        "buckets": MemoryMap(size(abi.Bucket), abi.RULES),
        "meters": MemoryMap(size(abi.Meter), 2 * abi.METERS),
        "meter_state": MemoryMap(8 * (abi.BANDS + 1), 2 * abi.METERS),
        "meter_counters": MemoryMap(COUNTER, 2 * abi.METERS * (abi.BANDS + 1)),
        "rule_counters": MemoryMap(COUNTER, abi.RULES),
        "rule_folded": MemoryMap(16, abi.RULES),
        "rule_text": MemoryMap(size(abi.Text), key_size=size(abi.TextKey)),
        "ct_control": MemoryMap(size(abi.CtControl), 1),
        "path_counters": MemoryMap(COUNTER, abi.PATHS),
        "path_rules": MemoryMap(size(abi.PathRules), abi.PATHS),
        "path_index": MemoryMap(4, key_size=size(abi.PathRules)),
        "free_paths": MemoryMap(4, key_size=0),
    }
    maps["control"].set(0, bytes(abi.Control(version=1)))
    return maps


def numbers(*values: int) -> bytes:
    """64-bit integers as counters hold them."""
    return struct.pack(f"<{len(values)}Q", *values)


def index_keys(maps: Mapping[str, Any]) -> set[bytes]:
    """Under which masks and words rules are found, of a switch's maps in memory or in the kernel."""
    return {*maps["rule_index"].keys(), *maps["small_index"].keys()}
