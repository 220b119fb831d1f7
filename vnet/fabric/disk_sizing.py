"""Advice about the sizes of disks: too small for what is to be on them, or almost written full."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vnet.fabric.sizing import Advice

INSTALLED_BYTES = 2 << 30
"""Less than that no distribution of today is installed into by its own installer."""
UNPACKED = 2
"""So many times as large as its medium a system is at the least: there it is compressed."""
FULL = 0.9
_STEP_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, order=True)
class DiskSeen:
    """A disk of a VM, as far as the host can know it.

    `size_bytes` is what the guest sees. `written_bytes` is what its file has taken, less what its guest has
    given back; 0 of a disk that is not there, was given all of its room at once, or keeps snapshots.
    `image_bytes` is what the image holds that it is made of, `medium_bytes` the length of the medium that a
    system would be installed into it from; 0 without.
    """

    vm: str
    name: str
    size_bytes: int
    written_bytes: int = 0
    image_bytes: int = 0
    medium_bytes: int = 0

    @property
    def least_bytes(self) -> int:
        """What a system on it needs: of what is installed, half as much again, for logs and updates."""
        installed = max(INSTALLED_BYTES, UNPACKED * self.medium_bytes) if self.medium_bytes else 0
        return max(self.image_bytes * 3 // 2, installed)


def advice(disks: Iterable[DiskSeen]) -> tuple[Advice, ...]:
    """All that is to be said about these disks."""
    return tuple(found for disk in sorted(disks) for found in _of(disk))


def _of(disk: DiskSeen) -> Iterator[Advice]:
    if disk.written_bytes >= FULL * disk.size_bytes > 0:
        text = (
            f"its disk {disk.name} of {_mib(disk.size_bytes)} has been written to"
            f" {_percent(disk.written_bytes, disk.size_bytes)} %: it is almost full, unless `fstrim` in it"
            f" gives back what is free; declare `size: {_declared(disk.size_bytes * 3 // 2)}`"
        )
        yield Advice(disk.vm, text)
    elif 0 < disk.size_bytes < disk.least_bytes:
        text = (
            f"its disk {disk.name} of {_mib(disk.size_bytes)} is small for {_contents(disk)}:"
            f" declare `size: {_declared(disk.least_bytes)}`"
        )
        yield Advice(disk.vm, text)


def _contents(disk: DiskSeen) -> str:
    if disk.medium_bytes:
        return f"what is installed from its medium of {_mib(disk.medium_bytes)}"
    return f"the {_mib(disk.image_bytes)} of its image with logs and updates"


def _percent(part: int, whole: int) -> int:
    return min(100, 100 * part // whole)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20:,} MiB"


def _declared(size_bytes: int) -> str:
    """At least so much, as it is declared."""
    step = _STEP_BYTES if size_bytes <= 1 << 30 else 1 << 30
    whole = -(-size_bytes // step) * step
    return f"{whole >> 30}G" if whole % (1 << 30) == 0 else f"{whole >> 20}M"
