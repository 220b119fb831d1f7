"""Does it fit? Asked before anything is made; the answer is an `AdmissionError` or nothing."""

from __future__ import annotations

from collections.abc import Iterable

from vnet.base.errors import AdmissionError
from vnet.fabric.state import Guest

OVERHEAD_BYTES = 40 << 20
"""What a QEMU process needs beside its guest's memory (measured: 132 MiB private for 96 MiB guests)."""

RESERVE_BYTES = 256 << 20
"""Left to the host."""


def admit(guests: Iterable[Guest], available_bytes: int) -> None:
    """Refuse guests about to be started that need more memory than the host has to give.

    Raises: AdmissionError naming what is needed, what is there, and the largest guest.
    """
    asked = sorted(guests, key=lambda guest: (-guest.memory_bytes, guest.name))
    need = sum(guest.memory_bytes + OVERHEAD_BYTES for guest in asked)
    usable = max(0, available_bytes - RESERVE_BYTES)
    if not asked or need <= usable:
        return
    largest = asked[0]
    raise AdmissionError(
        f"{len(asked)} VMs need {_mib(need)} of memory and the host has {_mib(usable)} to give "
        f"({_mib(available_bytes)} available, {_mib(RESERVE_BYTES)} kept for itself); "
        f"the largest is {largest.name} with {_mib(largest.memory_bytes)}. Nothing was changed: "
        "give the VMs less memory, run fewer, or free memory on the host"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"
