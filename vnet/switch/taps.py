"""Taps: who wants copies of the packets of some ports, which of them, and as what.

A tap's filter is a program in classic BPF, as libpcap compiles it; the kernel runs it on each packet of the
tap's ports, and nothing of a packet that does not match leaves the kernel.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from vnet.base.errors import InputError
from vnet.switch import abi
from vnet.switch.abi import Point, PortFlag

WHOLE = 65535
"""Bytes of a packet that a tap takes unless it says otherwise: more than any has."""
INSN_BYTES = ctypes.sizeof(abi.FilterInsn)
MEMORY_WORDS = 16
"""BPF_MEMWORDS (linux/bpf_common.h)."""

_LD, _LDX, _ST, _STX, _ALU, _JMP, _RET, _MISC = range(8)
"""BPF_CLASS of an instruction (linux/bpf_common.h)."""
_JA, _ABS, _MEM = 0x00, 0x20, 0x60
ANCILLARY = 0xFFFFF000
"""SKF_AD_OFF (linux/filter.h): what a socket knows of a packet beside its bytes, as its direction."""


@dataclass(frozen=True, slots=True)
class Tap:
    """One who wants packets: a capture, or with `to_port` a mirror: copies go to that port in the kernel.

    `program` is classic BPF, 8 bytes each instruction in host order; empty takes everything. `points` are
    GUEST and DELIVERED. `dropped` takes only what is lost; `from_table` leaves out what is lost earlier.
    """

    ports: frozenset[int]
    program: bytes = b""
    points: frozenset[Point] = frozenset({Point.GUEST, Point.DELIVERED})
    snaplen_bytes: int = WHOLE
    dropped: bool = False
    from_table: int = 0
    to_port: int = 0

    @property
    def port_flag(self) -> PortFlag:
        """What the dataplane is told of its ports: packets that pass pay nothing for who wants those lost."""
        return PortFlag.CAPTURE_DROPS if self.dropped else PortFlag.CAPTURE

    def cell(self) -> bytes:
        """The tap as the dataplane reads it."""
        return bytes(
            abi.Tap(
                points=sum(1 << point for point in self.points),
                n_insns=len(self.program) // INSN_BYTES,
                snaplen=self.snaplen_bytes,
                to_port=self.to_port,
                dropped=self.dropped,
                from_table=self.from_table,
            )
        )


@dataclass(frozen=True, slots=True)
class TapCount:
    """Packets that a tap was asked about, that matched its filter, and of those that it did not get."""

    seen: int = 0
    matched: int = 0
    lost: int = 0


def tap_count(raw: bytes) -> TapCount:
    """The sum over all CPUs of a tap's counter."""
    each = (abi.TapCounter * (len(raw) // ctypes.sizeof(abi.TapCounter))).from_buffer_copy(raw)
    return TapCount(*(sum(getattr(one, name) for one in each) for name in ("seen", "matched", "lost")))


def tap_of(cell: bytes, ports: Iterable[int], code: bytes) -> Tap:
    """What was written for a tap: its cell, the ports that name it, and its part of the code."""
    tap = abi.Tap.from_buffer_copy(cell)
    return Tap(
        ports=frozenset(ports),
        program=code[: tap.n_insns * INSN_BYTES],
        points=frozenset(point for point in Point if tap.points >> point & 1),
        snaplen_bytes=tap.snaplen,
        dropped=bool(tap.dropped),
        from_table=tap.from_table,
        to_port=tap.to_port,
    )


def bits(taps: Mapping[int, Tap]) -> Mapping[int, int]:
    """By port: a bit for each tap that wants its packets."""
    found: dict[int, int] = {}
    for number, tap in taps.items():
        for port in tap.ports:
            found[port] = found.get(port, 0) | 1 << number
    return found


def check(program: bytes) -> None:
    """Refuse a filter that the dataplane would not run to an end of its own. Raises InputError."""
    insns = list((abi.FilterInsn * (len(program) // INSN_BYTES)).from_buffer_copy(program))
    if len(insns) > abi.FILTER_INSNS:
        raise InputError(f"the filter has {len(insns)} instructions; {abi.FILTER_INSNS} are possible")
    if insns and insns[-1].code & 7 != _RET:
        raise InputError("the filter does not end with a return")
    for at, insn in enumerate(insns):
        if any(target >= len(insns) for target in _targets(at, insn)):
            raise InputError(f"instruction {at} of the filter jumps out of it")
        if _uses_memory(insn) and insn.k >= MEMORY_WORDS:
            raise InputError(f"instruction {at} of the filter uses memory word {insn.k} of {MEMORY_WORDS}")
        if insn.code & 7 == _LD and insn.code & 0xE0 == _ABS and insn.k >= ANCILLARY:
            raise InputError(
                "the filter asks for more than the packet's bytes, as inbound and outbound do, and would "
                "match nothing: name points instead, guest for what a NIC sends, delivered for what it gets"
            )


def _targets(at: int, insn: abi.FilterInsn) -> tuple[int, ...]:
    if insn.code & 7 != _JMP:
        return ()
    return (at + 1 + insn.k,) if insn.code & 0xF0 == _JA else (at + 1 + insn.jt, at + 1 + insn.jf)


def _uses_memory(insn: abi.FilterInsn) -> bool:
    kind = insn.code & 7
    return kind in (_ST, _STX) or (kind in (_LD, _LDX) and insn.code & 0xE0 == _MEM)
