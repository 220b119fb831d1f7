"""A capture in several files, the oldest of which go: when to begin the next one, and what it begins with.

The words are those of `dumpcap -b`, known from tshark and Wireshark: `filesize:KB`, `duration:SECONDS`,
`packets:NUMBER` say when, `files:NUMBER` how many are kept.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from vnet.base.errors import UsageError
from vnet.capture.pcapng import INTERFACE, PACKET, SECTION

_UNITS = {"": 1000, "k": 1000, "kb": 1000, "m": 1000**2, "mb": 1000**2, "g": 1000**3, "gb": 1000**3}
"""A number alone is in kB, as with dumpcap."""
_SIZE = re.compile(r"(\d+)\s*([a-z]*)")


@dataclass(frozen=True, slots=True)
class RingLimits:
    """When a file is full, and how many are kept; None for "never" and "all"."""

    size_bytes: int | None = None
    duration_s: float | None = None
    packets: int | None = None
    files: int | None = None


def ring_limits(words: Iterable[str]) -> RingLimits | None:
    """What `-b` options say; None for none. Raises UsageError."""
    limits = RingLimits()
    for word in words:
        limits = _limited(limits, *word.partition(":")[::2])
    if limits == RingLimits():
        return None
    if limits == RingLimits(files=limits.files):
        raise UsageError(
            "-b files:… needs to know when a file is full: -b filesize:KB, duration:S or packets:N"
        )
    return limits


def _limited(limits: RingLimits, name: str, value: str) -> RingLimits:
    number = _SIZE.fullmatch(value.lower())
    if name == "filesize" and number and number[2] in _UNITS and int(number[1]):
        return replace(limits, size_bytes=int(number[1]) * _UNITS[number[2]])
    if name == "duration" and re.fullmatch(r"\d+(\.\d+)?", value) and float(value):
        return replace(limits, duration_s=float(value))
    if name in ("packets", "files") and value.isdecimal() and int(value):
        return replace(limits, **{name: int(value)})
    raise UsageError(
        f"-b {name}:{value}: expected filesize:KB (or 64M), duration:SECONDS, packets:NUMBER or files:NUMBER"
    )


def file_name(path: Path, number: int, at: datetime) -> Path:
    """What dumpcap calls the file: `a.pcapng` becomes `a_00001_20260302140322.pcapng`."""
    return path.with_name(f"{path.stem}_{number:05}_{at:%Y%m%d%H%M%S}{path.suffix}")


def earlier_files(path: Path) -> list[tuple[int, Path]]:
    """The files of earlier captures under that name, by number, oldest first."""
    shape = re.compile(rf"{re.escape(path.stem)}_(\d{{5,}})_\d{{14}}{re.escape(path.suffix)}")
    named = ((shape.fullmatch(each.name), each) for each in path.parent.iterdir())
    return sorted((int(match[1]), each) for match, each in named if match)


def blocks(data: bytes) -> Iterator[bytes]:
    """The whole blocks that a piece of pcapng begins with; what is left is a part of one."""
    at = 0
    while len(data) - at >= 8:
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if len(data) - at < length:
            return
        yield data[at : at + length]
        at += length


@dataclass(slots=True)
class Ring:
    """Decides block by block. For each call `begins` first; then, if the block is in a file, `wrote`."""

    limits: RingLimits
    preamble: bytes = b""
    """What each file begins with: the section and all interfaces so far."""
    _size_bytes: int = 0
    _packets: int = 0
    _since_s: float = field(default=0.0)

    def begins(self, block: bytes, now_s: float) -> bool:
        """Whether a new file begins before this block: only packets are worth one."""
        if kind(block) != PACKET or not self._packets:
            return False
        limits, size = self.limits, self._size_bytes + len(block)
        return bool(
            (limits.size_bytes and size > limits.size_bytes)
            or (limits.packets and self._packets >= limits.packets)
            or (limits.duration_s and now_s - self._since_s >= limits.duration_s)
        )

    def began(self, now_s: float) -> None:
        """A new file has the preamble and nothing else."""
        self._size_bytes, self._packets, self._since_s = len(self.preamble), 0, now_s

    def wrote(self, block: bytes, now_s: float) -> None:
        """The block is in the file."""
        self._size_bytes += len(block)
        if kind(block) in (SECTION, INTERFACE):
            self.preamble += block
        if kind(block) == PACKET:
            self._since_s = self._since_s if self._packets else now_s
            self._packets += 1


def kind(block: bytes) -> int:
    """A block's type."""
    return int.from_bytes(block[:4], "little")
