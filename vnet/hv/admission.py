"""Whether guests still fit into the host's memory, CPUs and disk: decided before anything is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vnet.base.errors import AdmissionError, InputError

OVERHEAD_BYTES = 64 << 20
"""What QEMU itself takes besides the guest's memory, translated code included."""

HOST_RESERVE_BYTES = 256 << 20
"""What is left to the host."""

DISK_RESERVE_BYTES = 512 << 20
"""What of the file system of the disks is left for all that grows: records, events, disks that are thin."""


@dataclass(frozen=True, slots=True)
class Room:
    """What is free in the file system of the folder `path`; `file_system` is its number."""

    file_system: int
    free_bytes: int
    path: str


VCPUS_PER_CPU = 32
"""So many vCPUs share a CPU of the host at most, unless somebody says otherwise: guests that mostly wait get
on with it, and a number that was mistyped is refused."""
VCPUS_PER_CPU_VARIABLE = "VNET_VCPUS_PER_CPU"


@dataclass(frozen=True, slots=True)
class Commitment:
    """A running guest: what it may grow to, and what it has taken so far."""

    memory_bytes: int
    resident_bytes: int

    @property
    def outstanding_bytes(self) -> int:
        """What it may still ask for."""
        return max(0, self.memory_bytes + OVERHEAD_BYTES - self.resident_bytes)


def admit(wanted: Iterable[tuple[str, int]], running: Iterable[Commitment], available_bytes: int) -> None:
    """Refuses guests that the host could not give all their memory to.

    Args:
        wanted: name and memory of each guest to be started.
        running: guests that run already.
        available_bytes: `MemAvailable` of the host.

    Raises:
        AdmissionError: with the sum.
    """
    asked = tuple(wanted)
    need = sum(memory + OVERHEAD_BYTES for _, memory in asked)
    promised = sum(guest.outstanding_bytes for guest in running)
    free = available_bytes - promised - HOST_RESERVE_BYTES
    if need <= free:
        return
    raise AdmissionError(
        f"not enough memory for {_names(asked)}: needs {_mib(need)} ({len(asked)} guests with"
        f" {_mib(OVERHEAD_BYTES)} each for QEMU), but of {_mib(available_bytes)} available"
        f" {_mib(promised)} are promised to running guests and {_mib(HOST_RESERVE_BYTES)} are kept for the"
        f" host: {_mib(max(0, free))} are left. Lower `memory` or stop other guests."
    )


def vcpus_per_cpu(text: str | None) -> int:
    """What `VNET_VCPUS_PER_CPU` says.

    Raises:
        InputError: it is no whole number from 1 on.
    """
    if not text:
        return VCPUS_PER_CPU
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{VCPUS_PER_CPU_VARIABLE}={text} is not understood: it is a whole number from 1 on")
    return int(text)


def admit_vcpus(wanted: Iterable[tuple[str, int]], running: int, cpus: int, per_cpu: int) -> None:
    """Refuses guests whose vCPUs would be too many for the CPUs of the host.

    Args:
        wanted: name and vCPUs of each guest to be started.
        running: vCPUs of the guests that run already.
        cpus: those of the host.
        per_cpu: how many vCPUs may share one of them.

    Raises:
        AdmissionError: with the sum.
    """
    asked = tuple(wanted)
    need, room = sum(vcpus for _, vcpus in asked), cpus * per_cpu
    if not asked or running + need <= room:
        return
    raise AdmissionError(
        f"not enough CPUs for {_names(asked)}: {need} vCPUs are asked for and {running} run already, but"
        f" {cpus} CPUs with {per_cpu} vCPUs each are enough for {room}: {max(0, room - running)} are left."
        f" Lower `cpus`, stop other guests, or let more share one ({VCPUS_PER_CPU_VARIABLE}, set for vnetd)."
    )


def admit_disks(wanted: Iterable[tuple[str, int]], room: Room) -> None:
    """Refuses preallocated disks that the file system has no room for.

    Args:
        wanted: name of each disk, and what it still takes.
        room: what is free in the one file system where they are to be.

    Raises:
        AdmissionError: with the sum.
    """
    asked = tuple((name, size) for name, size in wanted if size)
    need, free = sum(size for _, size in asked), room.free_bytes - DISK_RESERVE_BYTES
    if not asked or need <= free:
        return
    raise AdmissionError(
        f"not enough room for the preallocated disks {_names(asked)}: they take {_mib(need)}, but of"
        f" {_mib(room.free_bytes)} that are free in {room.path} {_mib(DISK_RESERVE_BYTES)} are kept for what"
        f" grows: {_mib(max(0, free))} are left. Make them smaller, leave `preallocated` out, or remove disks"
        " that nobody needs (`vnet disk ls`)."
    )


def admit_backup(wanted: Iterable[tuple[str, int]], free_bytes: int, kept_bytes: int, path: str) -> None:
    """Refuses a backup that the file system of its store may have no room for.

    Args:
        wanted: name of each disk, and what is to be copied of it.
        free_bytes: what is free in the file system of the folder `path`.
        kept_bytes: what of it is kept for what grows.

    Raises:
        AdmissionError: with the sum.
    """
    asked = tuple(wanted)
    need, free = sum(size for _, size in asked), free_bytes - kept_bytes
    if need <= free:
        return
    kept = f"{_mib(kept_bytes)} are kept for what grows: " if kept_bytes else ""
    raise AdmissionError(
        f"not enough room for a backup of {_names(asked)}: {_mib(need)} are to be copied, but of"
        f" {_mib(free_bytes)} that are free in {path} {kept}{_mib(max(0, free))} are left. Remove backups"
        " that nobody needs (`vnet backup prune`), name another folder (--to), or say --tight: what is"
        " copied is compressed, and may fit."
    )


def _names(asked: Iterable[tuple[str, int]]) -> str:
    return ", ".join(name for name, _ in asked)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"
