"""What QEMU and the guest itself tell of memory and disks: what is asked for, and how the answers are read.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (query-blockstats, block-latency-histogram-set, query-balloon) and
docs/interop/virtio-balloon-stats.rst; Virtual I/O Device 1.2, section 5.5.6.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vnet.hv.argv import BALLOON
from vnet.hv.disk import SERIAL_LENGTH, Disk
from vnet.hv.latency import BOUNDS_NS, NONE, Latencies
from vnet.hv.monitor import Command

TOLD_EVERY_S = 5
"""How often the guest is asked: each answer wakes it for a moment."""
_UNKNOWN = (1 << 64) - 1
"""What a guest says that does not know."""
_BALLOON_PATH = f"/machine/peripheral/{BALLOON}"
_BACKEND = "/virtio-backend"


@dataclass(frozen=True, slots=True)
class GuestMemory:
    """Memory as the guest's own kernel counts it; `told_s` is when it said so, since 1970.

    `total_bytes` is less than the VM has: the kernel keeps some for itself. `available_bytes` is what
    programs can still be given without swapping. `swapped_in_bytes` and `swapped_out_bytes` are what moved
    since the guest booted.
    """

    total_bytes: int
    available_bytes: int
    free_bytes: int
    cache_bytes: int
    swapped_in_bytes: int
    swapped_out_bytes: int
    major_faults: int
    told_s: int

    @property
    def used_bytes(self) -> int:
        """What cannot be had."""
        return max(0, self.total_bytes - self.available_bytes)

    @property
    def used(self) -> float:
        """The part of all that is."""
        return self.used_bytes / self.total_bytes if self.total_bytes else 0.0


@dataclass(frozen=True, slots=True)
class DiskNumbers:
    """What a disk has done since its VM was started. `failed` are operations that ended with an error."""

    name: str
    read_operations: int = 0
    read_bytes: int = 0
    write_operations: int = 0
    write_bytes: int = 0
    flush_operations: int = 0
    failed: int = 0
    reads: Latencies = NONE
    writes: Latencies = NONE
    flushes: Latencies = NONE


@dataclass(frozen=True, slots=True)
class Vitals:
    """What was told last. `memory` is None of a guest that does not tell: it has no driver, or still boots.

    `left_bytes` is the memory that the balloon leaves to the guest, 0 if unknown. `told_s` is when, by
    a clock that nobody can set; `silent_s` how long its QEMU has owed an answer.
    """

    memory: GuestMemory | None = None
    left_bytes: int = 0
    disks: tuple[DiskNumbers, ...] = ()
    told_s: float = 0.0
    silent_s: float = 0.0


NOTHING = Vitals()


def from_json(answer: Mapping[str, Any]) -> Vitals:
    """What `asdict` has made of vitals."""
    memory = GuestMemory(**answer["memory"]) if answer["memory"] else None
    return Vitals(**{**answer, "memory": memory, "disks": tuple(map(_disk, answer["disks"]))})


def _disk(answer: Mapping[str, Any]) -> DiskNumbers:
    counted = {
        what: Latencies(tuple(answer[what]["bins"]), answer[what]["total_s"])
        for what in ("reads", "writes", "flushes")
    }
    return DiskNumbers(**{**answer, **counted})


QUERY_BALLOON = Command("query-balloon")
QUERY_DISKS = Command("query-blockstats")
QUERY_MEMORY = Command("qom-get", {"path": _BALLOON_PATH, "property": "guest-stats"})
ASK_GUEST = Command(
    "qom-set",
    {"path": _BALLOON_PATH, "property": "guest-stats-polling-interval", "value": TOLD_EVERY_S},
)
"""From now on the guest is asked again and again."""


def count_latencies(device: str) -> Command:
    """From now on a device's answers are counted by time, from 0."""
    return Command("block-latency-histogram-set", {"id": device, "boundaries": list(BOUNDS_NS)})


def query_serial(device: str) -> Command:
    """By which name the guest knows a disk."""
    path = device.removesuffix(_BACKEND)
    return Command("qom-get", {"path": path, "property": "serial"})


def memory_of(answer: object) -> GuestMemory | None:
    """Out of an answer to QUERY_MEMORY."""
    if not isinstance(answer, Mapping) or not answer.get("last-update"):
        return None
    stats: Mapping[str, int] = answer.get("stats", {})

    def known(name: str, otherwise: int = 0) -> int:
        value = stats.get(f"stat-{name}", _UNKNOWN)
        return otherwise if value == _UNKNOWN else value

    total, free = known("total-memory"), known("free-memory")
    return GuestMemory(
        total,
        known("available-memory", free),
        free,
        known("disk-caches"),
        known("swap-in"),
        known("swap-out"),
        known("major-faults"),
        int(answer["last-update"]),
    )


def left_bytes_of(answer: object) -> int:
    """Out of an answer to QUERY_BALLOON."""
    return int(answer.get("actual", 0)) if isinstance(answer, Mapping) else 0


@dataclass(frozen=True, slots=True)
class Device:
    """A disk's device as QEMU tells of it; `is_counted`: whether its answers are counted by time, as ours."""

    path: str
    stats: Mapping[str, Any]

    @property
    def is_counted(self) -> bool:
        """False of one that is new."""
        found = self.stats.get("rd_latency_histogram", {})
        return tuple(found.get("boundaries", ())) == BOUNDS_NS


def devices_of(answer: object) -> Iterator[Device]:
    """Out of an answer to QUERY_DISKS: those that the guest has, not what they lie on."""
    for each in answer if isinstance(answer, Sequence) else ():
        if each.get("qdev"):
            yield Device(each["qdev"], each["stats"])


def disk_of(name: str, device: Device) -> DiskNumbers:
    """What a device has done."""
    stats = device.stats
    failed = ("failed_rd_operations", "failed_wr_operations", "failed_flush_operations")
    return DiskNumbers(
        name,
        stats["rd_operations"],
        stats["rd_bytes"],
        stats["wr_operations"],
        stats["wr_bytes"],
        stats["flush_operations"],
        sum(stats[each] for each in failed),
        _latencies(device, "rd"),
        _latencies(device, "wr"),
        _latencies(device, "flush"),
    )


def _latencies(device: Device, what: str) -> Latencies:
    if not device.is_counted:
        return NONE
    bins = device.stats[f"{what}_latency_histogram"]["bins"]
    return Latencies(tuple(bins), device.stats[f"{what}_total_time_ns"] / 1e9)


def name_of(serial: object, device: str, disks: Iterable[Disk]) -> str:
    """A disk's name by its serial number, which has only the beginning of a long one."""
    found = (disk.name for disk in disks if serial and disk.name[:SERIAL_LENGTH] == serial)
    return next(found, str(serial or device.removesuffix(_BACKEND).rpartition("/")[2]))
