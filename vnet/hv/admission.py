"""Whether guests still fit into the host's memory, CPUs and disk: decided before anything is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
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


def by_file_system(
    wanted: Iterable[tuple[Room, str, int]],
) -> Iterator[tuple[Room, list[tuple[str, int]]]]:
    """Names and bytes of what is to be in each file system, whatever folders of it they are for."""
    rooms: dict[int, Room] = {}
    taking: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for room, name, size_bytes in wanted:
        rooms.setdefault(room.file_system, room)
        taking[room.file_system].append((name, size_bytes))
    yield from ((room, taking[number]) for number, room in rooms.items())


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
    _admit_files(
        wanted,
        room,
        DISK_RESERVE_BYTES,
        lambda names, need: f"the preallocated disks {names}: they take {need}",
        "Make them smaller, leave `preallocated` out, or remove disks that nobody needs (`vnet disk ls`).",
    )


def admit_restored(wanted: Iterable[tuple[str, int]], room: Room) -> None:
    """Refuses to restore disks that the file system has no room for beside those that they replace.

    Args:
        wanted: name of each disk, and what is written of it at least.
        room: what is free in the one file system where they are to be.

    Raises:
        AdmissionError: with the sum.
    """
    _admit_files(
        wanted,
        room,
        DISK_RESERVE_BYTES,
        lambda names, need: f"what is restored of {names}: {need} or more are written",
        "Remove disks that nobody needs (`vnet disk ls`), restore them one at a time (--disk), or to a VM"
        " whose disks lie elsewhere (--to).",
    )


def admit_backup(wanted: Iterable[tuple[str, int]], room: Room, kept_bytes: int) -> None:
    """Refuses a backup that the file system of its store may have no room for.

    Args:
        wanted: name of each disk, and what is to be copied of it.
        room: what is free in the file system of the store.
        kept_bytes: what of it is kept for what grows.

    Raises:
        AdmissionError: with the sum.
    """
    _admit_files(
        wanted,
        room,
        kept_bytes,
        lambda names, need: f"a backup of {names}: {need} are to be copied",
        "Remove backups that nobody needs (`vnet backup prune`), name another folder (--to), or say --tight:"
        " what is copied is compressed, and may fit.",
    )


def _admit_files(
    wanted: Iterable[tuple[str, int]],
    room: Room,
    kept_bytes: int,
    what: Callable[[str, str], str],
    advice: str,
) -> None:
    """`what` makes a sentence of the names and their sum; who writes nothing is not named, nor refused."""
    asked = tuple((name, size) for name, size in wanted if size)
    need, free = sum(size for _, size in asked), room.free_bytes - kept_bytes
    if not asked or need <= free:
        return
    kept = f"{_mib(kept_bytes)} are kept for what grows: " if kept_bytes else ""
    raise AdmissionError(
        f"not enough room for {what(_names(asked), _mib(need))}, but of {_mib(room.free_bytes)} that are"
        f" free in {room.path} {kept}{_mib(max(0, free))} are left. {advice}"
    )


def _names(asked: Iterable[tuple[str, int]]) -> str:
    return ", ".join(name for name, _ in asked)


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"
