"""One packet's way through the tables, as the program in the kernel tells it (`bpf/trace.h`), as values."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Iterator, Mapping, Sequence
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from dataclasses import dataclass
from enum import IntEnum

from vnet.base.drop import DropReason
from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import Flow
from vnet.switch import abi
from vnet.switch.abi import Has, Word
from vnet.switch.places import CT_FAMILY_SHIFT, PLACES, Place

STEPS = 128
FRAMES = 16
FRAME_BYTES = 4096


class StepRecord(ctypes.Structure):
    """`struct vnet_step_record`."""

    _fields_ = [
        ("kind", c_uint32),
        ("rule", c_uint32),
        ("arg", c_uint32),
        ("value", c_uint32),
        ("key", c_uint64 * abi.KEY_WORDS),
    ]


class TraceFrame(ctypes.Structure):
    """`struct vnet_trace_frame`."""

    _fields_ = [
        ("length", c_uint32),
        ("captured", c_uint32),
        ("vlan_tci", c_uint16),
        ("vlan_tpid", c_uint16),
        ("pad", c_uint32),
        ("data", c_uint8 * FRAME_BYTES),
    ]


class TraceLog(ctypes.Structure):
    """`struct vnet_trace_log`."""

    _fields_ = [("n_steps", c_uint32), ("n_frames", c_uint32), ("steps", StepRecord * STEPS)]


class StepKind(IntEnum):
    """`enum vnet_step_kind`."""

    TABLE = 1
    CT = 2
    METER = 3
    BUCKET = 4
    NORMAL = 5
    CONTROLLER = 6
    OUTPUT = 7
    END = 8


@dataclass(frozen=True, slots=True)
class Step:
    """One step. `fields` are those of the packet that are not 0, by OpenFlow's names: at a table as it was
    searched, of ct() as it left them.

    `flow` is what a table found, None for a miss. What `arg` and `value` are `bpf/trace.h` tells.
    """

    kind: StepKind
    arg: int
    value: int
    fields: Mapping[str, int]
    flow: Flow | None = None
    reason: DropReason = DropReason.NONE
    """Why a ct() went no further."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What the tracker has of the packet's connection.

    `age_s` since it was opened; `packets` by direction, this one too. `assumed`: there is none, but the
    question was what would be if there were.
    """

    slot: int
    zone: int
    age_s: float
    packets: tuple[int, int]
    mark: int
    tcp_state: int
    port: int
    made: bool = False
    """The packet would open it."""
    assumed: bool = False


@dataclass(frozen=True, slots=True)
class Traced:
    """What would become of a packet, in the order in which it would.

    `outputs` are (port, frame with its tag). `reason` is NONE if something would leave. `rejected`: the one
    output is the answer to the sender. `steps_lost` were more than are kept.
    """

    steps: tuple[Step, ...]
    outputs: tuple[tuple[int, bytes], ...]
    reason: DropReason
    version: int
    connection: Connection | None = None
    rejected: bool = False
    steps_lost: int = 0

    @property
    def tables(self) -> tuple[Step, ...]:
        """The lookups."""
        return tuple(step for step in self.steps if step.kind is StepKind.TABLE)

    @property
    def flows(self) -> tuple[Flow, ...]:
        """The flows met."""
        return tuple(step.flow for step in self.tables if step.flow is not None)


def decode_steps(log: TraceLog, flow_of: Mapping[int, Flow]) -> tuple[Step, ...]:
    """The steps of a packet."""
    return tuple(_step(log.steps[n], flow_of) for n in range(min(log.n_steps, STEPS)))


def _step(record: StepRecord, flow_of: Mapping[int, Flow]) -> Step:
    kind, fields = StepKind(record.kind), read_key(record.key)
    if kind is StepKind.CT:
        return Step(kind, record.arg, record.value, fields, reason=DropReason(record.rule))
    return Step(kind, record.arg, record.value, fields, flow_of.get(record.rule))


def decode_frame(cell: TraceFrame) -> bytes:
    """A frame as it would leave, its tag in place."""
    data = bytes(cell.data)[: cell.captured]
    if cell.vlan_tpid:
        return data[:12] + struct.pack("!HH", cell.vlan_tpid, cell.vlan_tci) + data[12:]
    return data


def read_key(words: Sequence[int]) -> Mapping[str, int]:
    """The fields that lie in a key and are not 0; of those that share a place, those the packet has."""
    raw = {name: _value(place, FIELDS[name].bits, words) for name, place in PLACES.items()}
    has_l4, family = words[Word.PORT] & Has.L4, words[Word.ZONE] >> CT_FAMILY_SHIFT & 0xFF

    def has(name: str) -> bool:
        place, needs = PLACES[name], FIELDS[name].needs
        if (place.has and not has_l4) or (place.family and place.family != family):
            return False
        return not needs or any(raw[other] == value and has(other) for other, value in needs)

    return {name: value for name, value in raw.items() if value and has(name)}


def _value(place: Place, bits: int, words: Sequence[int]) -> int:
    if place.wide:
        return words[place.word] << 64 | words[place.word + 1]
    return words[place.word] >> place.shift & ((1 << bits) - 1)


def changes(before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[tuple[str, int, int]]:
    """(field, value before, value after) of what differs, 0 for what is not there."""
    for name in dict.fromkeys((*before, *after)):
        was, now = before.get(name, 0), after.get(name, 0)
        if was != now:
            yield name, was, now
