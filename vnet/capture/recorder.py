"""The capture itself, without I/O: records in, bytes for the output out.

record ── limits ── comments ── encoder ──► bytes ──► (live) file or pipe
                                   ▲                        │
                                   └── kept() or lost() ◄───┘
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from vnet.capture.comment import Explain, TableName, annotate
from vnet.capture.limits import NO_LIMITS, Limits
from vnet.capture.record import PacketRecord


class Encoder(Protocol):
    """A form of output: `pcapng.PcapngEncoder` or `lines.TextEncoder`."""

    def header(self) -> bytes:
        """What the output begins with."""
        ...

    def encode(self, record: PacketRecord, comments: tuple[str, ...]) -> bytes:
        """One packet; changes nothing."""
        ...

    def wrote(self, record: PacketRecord) -> None:
        """The bytes of `encode(record)` are out."""
        ...

    def lose(self, packets: int) -> None:
        """So many packets were seen but are not in the output."""
        ...

    def trailer(self, end_ns: int) -> bytes:
        """What the output ends with."""
        ...


@dataclass(frozen=True, slots=True)
class Totals:
    """The closing figures: packets in the output, and those that should be in it and are not."""

    kept: int = 0
    lost: int = 0

    def __str__(self) -> str:
        return f"{self.kept} packets kept, {self.lost} lost"


@dataclass(slots=True)
class Recorder:
    """Turns records into bytes and counts them.

    For each record call `take`; if it gives bytes, write them and call `kept`, or `lost(1)` when they
    could not be written. `start_s` and the `now_s` of `done` are seconds of one monotonic clock.
    """

    encoder: Encoder
    explain: Explain
    table_name: TableName = str
    limits: Limits = NO_LIMITS
    start_s: float = 0.0
    _kept: int = 0
    _lost: int = 0

    def take(self, record: PacketRecord) -> bytes:
        """The output for one record."""
        return self.encoder.encode(self.limits.cut(record), annotate(record, self.explain, self.table_name))

    def kept(self, record: PacketRecord) -> None:
        """The record's bytes are out."""
        self._kept += 1
        self.encoder.wrote(record)

    def lost(self, packets: int) -> None:
        """So many packets never came here (a full ring buffer) or could not be written (a full disk)."""
        self._lost += packets
        self.encoder.lose(packets)

    def done(self, now_s: float) -> bool:
        """Whether the limits say that this is enough."""
        return self.limits.reached(self._kept, now_s - self.start_s)

    @property
    def totals(self) -> Totals:
        """The figures so far."""
        return Totals(self._kept, self._lost)
