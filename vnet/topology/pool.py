"""The host addresses of a subnet that may be given to NICs."""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface

from vnet.topology.model import IPInterface, IPNetwork


@dataclass(frozen=True, slots=True)
class Pool:
    """All hosts of a subnet but the first, which is kept for the gateway.

    Not hosts are the network's own address (in IPv6 that of the subnet's routers, RFC 4291, 2.6.1)
    and in IPv4 the broadcast address.
    """

    subnet: IPNetwork

    @property
    def first(self) -> int:
        return int(self.subnet.network_address) + 2

    @property
    def last(self) -> int:
        return int(self.subnet.broadcast_address) - (1 if self.subnet.version == 4 else 0)

    @property
    def size(self) -> int:
        """How many NICs find an address here."""
        return max(0, self.last - self.first + 1)

    def may_allocate(self, ip: IPv4Address | IPv6Address) -> bool:
        """Whether an address is one that this pool gives out."""
        return ip in self.subnet and self.first <= int(ip) <= self.last

    def lowest_free(self, used: Container[int], start: int) -> int | None:
        """The lowest address from `start` on that is not in `used`, None if there is none."""
        value = max(start, self.first)
        while value <= self.last and value in used:
            value += 1
        return value if value <= self.last else None

    def interface(self, value: int) -> IPInterface:
        """The address as a NIC bears it, with the subnet's prefix."""
        address = IPv4Address(value) if self.subnet.version == 4 else IPv6Address(value)
        return ip_interface(f"{address}/{self.subnet.prefixlen}")
