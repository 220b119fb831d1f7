"""How much a capture keeps: bytes per packet, packets, seconds."""

from __future__ import annotations

from dataclasses import dataclass, replace

from vnet.base.errors import InputError
from vnet.capture.record import PacketRecord

WHOLE_PACKET_BYTES = 262_144
"""More than any frame; the value that tcpdump and Wireshark use for "all of it"."""


@dataclass(frozen=True, slots=True)
class Limits:
    """When to stop and what to keep. `count` and `duration_s` are None for "until interrupted"."""

    snaplen_bytes: int = WHOLE_PACKET_BYTES
    count: int | None = None
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.snaplen_bytes <= WHOLE_PACKET_BYTES:
            raise InputError(f"snaplen {self.snaplen_bytes}: expected 1 to {WHOLE_PACKET_BYTES} bytes")
        if self.count is not None and self.count < 1:
            raise InputError(f"count {self.count}: expected at least 1 packet")
        if self.duration_s is not None and self.duration_s <= 0:
            raise InputError(f"duration {self.duration_s:g} s: expected more than 0 seconds")

    def cut(self, record: PacketRecord) -> PacketRecord:
        """The record with no more bytes than asked for; `original_length` still tells the truth."""
        if len(record.data) <= self.snaplen_bytes:
            return record
        return replace(record, data=record.data[: self.snaplen_bytes])

    def reached(self, packets: int, elapsed_s: float) -> bool:
        """Whether a capture that holds `packets` after `elapsed_s` is complete."""
        return (self.count is not None and packets >= self.count) or (
            self.duration_s is not None and elapsed_s >= self.duration_s
        )


NO_LIMITS = Limits()
