"""The addresses between a gateway and its host: they depend on the names of fabric and router only."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface

from vnet.topology.model import IPAddress, IPInterface

_V4 = int(IPv4Address("169.254.1.0"))
"""Link-local addresses (RFC 3927): no network of the host can have them for its hosts. The first and the last
256 are reserved, and clouds have their metadata service at 169.254.169.254: pairs are taken below it."""
_PAIRS = (169 - 1) * 128
_V6 = int(IPv6Address("fd76:6e65:7400::"))
"""Unique local addresses (RFC 4193) of a prefix that spells vnet."""
POOL = {4: "169.254.0.0/16", 6: "fd76:6e65:7400::/48"}
"""Where all of them lie, by version of IP."""
STRANGER = {4: "169.254.0.2", 6: "fd76:6e65:7400::2"}
"""Of whoever is behind another gateway of the host: between host and gateway they have this one, and no pair
has it."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A pair of addresses of each version of IP: the host's end and the gateway's."""

    host: tuple[IPAddress, IPAddress]
    gateway: tuple[IPAddress, IPAddress]

    @classmethod
    def of(cls, fabric: str, router: str) -> Transfer:
        """Those of a router. Two may get the same ones: whoever sets them up has to look."""
        number = int.from_bytes(blake2b(f"{fabric}/{router}".encode(), digest_size=8).digest(), "big")
        v4, v6 = _V4 + number % _PAIRS * 2, _V6 + (number << 1)
        host: tuple[IPAddress, IPAddress] = IPv4Address(v4), IPv6Address(v6)
        return cls(host, (IPv4Address(v4 + 1), IPv6Address(v6 + 1)))

    def interfaces(self, side: tuple[IPAddress, IPAddress]) -> tuple[IPInterface, IPInterface]:
        """The addresses of one side with their prefixes: a /31 (RFC 3021) and a /127 (RFC 6164)."""
        return IPv4Interface(f"{side[0]}/31"), IPv6Interface(f"{side[1]}/127")
