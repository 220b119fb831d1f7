"""Advice about the sizes of VMs: what a host accepts, and will do badly."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vnet.fabric.state import Guest


@dataclass(frozen=True, slots=True, order=True)
class Advice:
    """What had better be otherwise with a VM, in words that begin after its name."""

    vm: str
    text: str


def advice(guests: Iterable[Guest], cpus: int, memory_bytes: int) -> tuple[Advice, ...]:
    """All that is to be said about these guests on a host of so many CPUs and so much memory."""
    found = (each for guest in sorted(guests) for each in _of(guest, cpus, memory_bytes))
    return tuple(found)


def _of(guest: Guest, cpus: int, memory_bytes: int) -> Iterator[Advice]:
    if guest.cpus > cpus:
        text = f"{guest.cpus} vCPUs can never run at once on {cpus}: they wait for each other; lower `cpus`"
        yield Advice(guest.name, text)
    if guest.memory_bytes > memory_bytes // 2:
        text = (
            f"{guest.memory_bytes >> 20:,} MiB are more than half of this host's {memory_bytes >> 20:,} MiB:"
            " one VM can bring all others to a stop; lower `memory`"
        )
        yield Advice(guest.name, text)
