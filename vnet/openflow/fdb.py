"""The table of OFPP_NORMAL: which port a MAC address of a VLAN was last seen at (IEEE 802.1Q, 8.8).

A value: `learn` and `without_port` return the table that follows. Time is an argument (seconds, any epoch).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

AGEING_S = 300.0
"""IEEE 802.1Q, table 8-6; Open vSwitch's default too."""

MULTICAST = 1 << 40
RESERVED = range(0x0180C2000000, 0x0180C2000010)
"""Addresses a bridge never forwards (IEEE 802.1Q, table 8-1)."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Where and when an address was seen last."""

    port: int
    at_s: float


@dataclass(frozen=True, slots=True)
class Fdb:
    """Addresses by (VLAN, MAC). Beyond `capacity` the one unheard for longest is forgotten."""

    entries: Mapping[tuple[int, int], Seen] = field(default_factory=dict)
    ageing_s: float = AGEING_S
    capacity: int | None = None

    def find(self, vlan: int, mac: int, now_s: float) -> int | None:
        """The port behind which an address is; None if it is not known (any more)."""
        seen = self.entries.get((vlan, mac))
        return seen.port if seen and now_s < seen.at_s + self.ageing_s else None

    def learn(self, vlan: int, mac: int, port: int, now_s: float) -> Fdb:
        """After a frame from `mac`; a group address is nobody's and not learnt."""
        if mac & MULTICAST:
            return self
        entries = {key: seen for key, seen in self.entries.items() if now_s < seen.at_s + self.ageing_s}
        entries[vlan, mac] = Seen(port, now_s)
        if self.capacity is not None and len(entries) > self.capacity:
            del entries[min(entries, key=lambda key: entries[key].at_s)]
        return replace(self, entries=entries)

    def without_port(self, port: int) -> Fdb:
        """After a port went down."""
        return replace(self, entries={key: seen for key, seen in self.entries.items() if seen.port != port})
