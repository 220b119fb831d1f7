"""Whether a guest still fits into the host's memory: decided before anything is made."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from vnet.base.errors import AdmissionError

OVERHEAD_BYTES = 64 << 20
"""What QEMU itself takes besides the guest's memory, translated code included."""

HOST_RESERVE_BYTES = 256 << 20
"""What is left to the host."""


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
    names = ", ".join(name for name, _ in asked)
    raise AdmissionError(
        f"not enough memory for {names}: needs {_mib(need)} ({len(asked)} guests with"
        f" {_mib(OVERHEAD_BYTES)} each for QEMU), but of {_mib(available_bytes)} available"
        f" {_mib(promised)} are promised to running guests and {_mib(HOST_RESERVE_BYTES)} are kept for the"
        f" host: {_mib(max(0, free))} are left. Lower `memory` or stop other guests."
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes / (1 << 20):,.0f} MiB"
