"""Reads what ports have counted and how much of their quotas is in use: one system call for each map."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Mapping
from typing import TypeVar

from vnet.switch import abi
from vnet.switch.abi import PortFlag
from vnet.switch.datapath import Counter, PortCounter
from vnet.switch.live.bpf import Map
from vnet.switch.numbers import PortNumbers

T = TypeVar("T", bound=ctypes.Structure)


def ports(maps: Mapping[str, Map], numbers: tuple[int, ...]) -> Mapping[int, PortNumbers]:
    """By port number."""
    if not numbers:
        return {}
    used = 1 + max(numbers)
    told = _structures(maps["ports"], used, abi.Port)
    state = _structures(maps["port_state"], used, abi.PortStateMap)
    counted = _counted(maps["port_counters"], used)
    return {
        number: PortNumbers(
            counted[number],
            bool(told[number].flags & PortFlag.LIVE),
            state[number].conns,
            told[number].conn_quota,
            state[number].macs,
            told[number].mac_quota,
        )
        for number in numbers
    }


def _structures(cells: Map, used: int, kind: type[T]) -> list[T]:
    raw = cells.first(used)
    return [kind.from_buffer_copy(raw, number * cells.value_size) for number in range(used)]


def _counted(counters: Map, used: int) -> list[PortCounter]:
    """Over all CPUs; a cell is `struct vnet_port_counter` once for each."""
    cells = struct.iter_unpack(f"<{counters.value_size // 8}Q", counters.first(used))
    return [_counter(values) for values in cells]


def _counter(values: tuple[int, ...]) -> PortCounter:
    rx, rx_bytes, dropped, tx, tx_bytes, tx_dropped = (sum(values[field::6]) for field in range(6))
    return PortCounter(Counter(rx, rx_bytes), Counter(tx, tx_bytes), dropped, tx_dropped)


def paths(maps: Mapping[str, Map]) -> int:
    """The most that there were at once: a number that is free is given out again."""
    control = abi.CtControl.from_buffer_copy(maps["ct_control"].index(0) or b"")
    return min(int(control.paths), abi.PATHS)
