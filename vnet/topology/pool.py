"""The host addresses of a subnet that may be given to NICs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from vnet.topology.model import AddressRange, IPInterface, IPNetwork


@dataclass(frozen=True, slots=True)
class Pool:
    """All hosts of a subnet (see `first_host`) but the gateway."""

    subnet: IPNetwork
    gateway: IPv4Address | IPv6Address | None
    """None where there is no room for one."""
    chosen: AddressRange | None = None
    """Those of them that may be given; None for all."""

    @property
    def first(self) -> int:
        lowest = int(self.subnet.network_address) + 1
        return lowest if self.chosen is None else max(lowest, int(self.chosen.first))

    @property
    def last(self) -> int:
        highest = int(self.subnet.broadcast_address) - (1 if self.subnet.version == 4 else 0)
        return highest if self.chosen is None else min(highest, int(self.chosen.last))

    @property
    def size(self) -> int:
        """How many NICs find an address here."""
        kept = self.gateway is not None and self.first <= int(self.gateway) <= self.last
        return max(0, self.last - self.first + 1 - kept)

    def may_allocate(self, ip: IPv4Address | IPv6Address) -> bool:
        """Whether an address is one that this pool gives out."""
        return ip in self.subnet and self.first <= int(ip) <= self.last and ip != self.gateway

    def lowest_free(self, used: Container[int], start: int) -> int | None:
        """The lowest address from `start` on that is not in `used`, None if there is none."""
        value = max(start, self.first)
        kept = None if self.gateway is None else int(self.gateway)
        while value <= self.last and (value in used or value == kept):
            value += 1
        return value if value <= self.last else None

    def interface(self, value: int) -> IPInterface:
        """The address as a NIC bears it, with the subnet's prefix."""
        address = IPv4Address(value) if self.subnet.version == 4 else IPv6Address(value)
        return ip_interface(f"{address}/{self.subnet.prefixlen}")
