"""How much a NIC may use of the switch that all share: a topology declares it, the switch enforces it."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS_MAX = 65536
"""The switch tracks no more in all."""
MACS_MAX = 65536
"""It learns no more in all."""


@dataclass(frozen=True, slots=True, order=True)
class Limits:
    """Of one NIC; what is left out is as in the `strict` profile.

    Args:
        connections: those it may have opened at once.
        macs: addresses that may be learnt from it, and source addresses that its profile may give it.
    """

    connections: int = 16384
    macs: int = 64


STRICT = Limits()
