"""How much a NIC may use of the switch that all share: a topology declares it, the switch enforces it."""

from __future__ import annotations

from dataclasses import dataclass

CONNECTIONS_MAX = 65536
"""The switch tracks no more in all."""
MACS_MAX = 65536
"""It learns no more in all."""
PPS_MAX = 1_000_000


@dataclass(frozen=True, slots=True, order=True)
class Limits:
    """Of one NIC; what is left out is as in the `strict` profile.

    Args:
        connections: those it may have opened at once.
        macs: addresses that may be learnt from it.
        broadcast_pps: frames to all a second, and as many at once.
        multicast_pps: frames to a group.
        unknown_unicast_pps: frames to one whom nobody knows.
    """

    connections: int = 16384
    macs: int = 64
    broadcast_pps: int = 500
    multicast_pps: int = 500
    unknown_unicast_pps: int = 500


STRICT = Limits()
