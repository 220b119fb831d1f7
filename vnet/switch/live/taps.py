"""The taps of one switch in its maps: put in force amid packets, and found again by a new agent."""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping

from vnet.switch import abi
from vnet.switch.abi import PortFlag
from vnet.switch.live.attached import AttachedPorts
from vnet.switch.live.bpf import Map
from vnet.switch.taps import INSN_BYTES, Tap, TapCount, bits, tap_count, tap_of

_WORD = struct.Struct("<I")
_CAPTURING = abi.Control.capturing.offset // 4
"""Where the control cell has it."""


class Taps:
    """Who is told what. `wait` returns when every packet that is being decided now has been."""

    def __init__(
        self,
        maps: Mapping[str, Map],
        ports: AttachedPorts,
        control: memoryview,
        wait: Callable[[], None],
    ) -> None:
        self._map, self._ports, self._control, self._wait = maps, ports, control, wait
        self.in_force: Mapping[int, Tap] = self._read()
        """By number."""

    def _read(self) -> Mapping[int, Tap]:
        named = _WORD.iter_unpack(self._map["port_taps"].first(abi.PORTS))
        wanted = {port: mask for port, (mask,) in enumerate(named) if mask}
        return {
            number: self._tap(number, frozenset(port for port, mask in wanted.items() if mask >> number & 1))
            for number in range(abi.TAPS)
            if any(mask >> number & 1 for mask in wanted.values())
        }

    def _tap(self, number: int, ports: frozenset[int]) -> Tap:
        cell = self._map["taps"].index(number) or b""
        first = number * abi.FILTER_INSNS
        length = abi.Tap.from_buffer_copy(cell).n_insns
        code = (self._map["tap_code"].index(at) or b"" for at in range(first, first + length))
        return tap_of(cell, ports, b"".join(code))

    def put(self, taps: Mapping[int, Tap]) -> None:
        """Make exactly these be in force; one that stays the same misses no packet."""
        new = {number: tap for number, tap in taps.items() if self.in_force.get(number) != tap}
        kept = {number: tap for number, tap in self.in_force.items() if taps.get(number) == tap}
        self._name(kept)
        if len(kept) < len(self.in_force):
            self._wait()
        for number, tap in new.items():
            self._write(number, tap)
        if taps:
            self._control[_CAPTURING] = 1  # before the first port is captured
        self._name(taps)
        self._control[_CAPTURING] = self._ports.capture(_flags(taps))

    def _write(self, number: int, tap: Tap) -> None:
        code, program = self._map["tap_code"], tap.program
        for at in range(0, len(program), INSN_BYTES):
            code.set(number * abi.FILTER_INSNS + at // INSN_BYTES, program[at : at + INSN_BYTES])
        self._map["tap_counters"].set(number, bytes(self._map["tap_counters"].value_size))
        self._map["taps"].set(number, tap.cell())

    def _name(self, taps: Mapping[int, Tap]) -> None:
        """Tell the ports whom to ask, from now on."""
        before, after = bits(self.in_force), bits(taps)
        for port in before.keys() | after.keys():
            if before.get(port, 0) != after.get(port, 0):
                self._map["port_taps"].set(port, _WORD.pack(after.get(port, 0)))
        self.in_force = dict(taps)

    def joined(self, port: int) -> None:
        """A port has come that some tap may want already."""
        if any(port in tap.ports for tap in self.in_force.values()):
            self.put(self.in_force)

    def count(self, number: int) -> TapCount:
        """What became of the packets that a tap was asked about since it was put in force."""
        return tap_count(self._map["tap_counters"].index(number) or b"")


def _flags(taps: Mapping[int, Tap]) -> Mapping[int, PortFlag]:
    """By port."""
    found: dict[int, PortFlag] = {}
    for tap in taps.values():
        for port in tap.ports:
            found[port] = found.get(port, PortFlag(0)) | tap.port_flag
    return found
