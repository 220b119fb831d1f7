"""What disks did between two moments, a second: pure arithmetic on `vnet.hv.vitals`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.fabric.numbers import grown
from vnet.hv.latency import BOUNDS_S, NONE, Latencies, together
from vnet.hv.vitals import DiskNumbers, Vitals

PERCENTILES = (50, 95, 99)
KINDS = ("reads", "writes", "flushes")
"""What a disk is asked for."""
TELLING = 20
"""From so many answers on it is judged how long they took."""


@dataclass(frozen=True, slots=True)
class DiskRate:
    """One disk. `reads`, `writes` and `flushes` are those that were answered in between, by time."""

    name: str
    reads_ps: float = 0.0
    read_bytes_ps: float = 0.0
    writes_ps: float = 0.0
    write_bytes_ps: float = 0.0
    flushes_ps: float = 0.0
    failed_ps: float = 0.0
    reads: Latencies = NONE
    writes: Latencies = NONE
    flushes: Latencies = NONE

    @property
    def operations_ps(self) -> float:
        """Reads, writes and flushes."""
        return self.reads_ps + self.writes_ps + self.flushes_ps

    @property
    def answers(self) -> Latencies:
        """Of whatever it was asked for."""
        return together((self.reads, self.writes, self.flushes))


def disk_rates(before: Vitals, now: Vitals) -> tuple[DiskRate, ...]:
    """Of the disks that were there before."""
    span_s, old = now.told_s - before.told_s, {disk.name: disk for disk in before.disks}
    if span_s <= 0:
        return ()
    return tuple(_rate(old[disk.name], disk, span_s) for disk in now.disks if disk.name in old)


def _rate(before: DiskNumbers, now: DiskNumbers, span_s: float) -> DiskRate:
    return DiskRate(
        now.name,
        grown(before.read_operations, now.read_operations) / span_s,
        grown(before.read_bytes, now.read_bytes) / span_s,
        grown(before.write_operations, now.write_operations) / span_s,
        grown(before.write_bytes, now.write_bytes) / span_s,
        grown(before.flush_operations, now.flush_operations) / span_s,
        grown(before.failed, now.failed) / span_s,
        *(getattr(now, kind).since(getattr(before, kind)) for kind in KINDS),
    )


@dataclass(frozen=True, slots=True)
class Slowness:
    """The `share` of what a disk is asked for, of one kind, that is answered only after `least_s`."""

    disk: str
    kind: str
    share: float
    least_s: float


def slowest(rates: tuple[DiskRate, ...], share: float, least_s: float) -> Slowness | None:
    """What is slow, if so large a part of it takes that long; told by the longest time that still fits."""
    found = [each for rate in rates for each in _slow(rate, share, least_s)]
    return max(found, key=lambda each: (each.least_s, each.share), default=None)


def _slow(rate: DiskRate, share: float, least_s: float) -> Iterator[Slowness]:
    for kind in KINDS:
        answers: Latencies = getattr(rate, kind)
        bounds = [bound for bound in BOUNDS_S if bound >= least_s and answers.share_from(bound) >= share]
        if bounds and answers.count >= TELLING:
            yield Slowness(rate.name, kind, answers.share_from(bounds[-1]), bounds[-1])
