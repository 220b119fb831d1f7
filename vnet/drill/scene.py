"""Who is there when a NIC is drilled: the attacker, its neighbours, what the rules let it reach.

Everything that a corpus depends on stands here, so the same scene gives the same frames. Where the
fabric lacks somebody (a NIC without IPv6, a network without a second NIC) an address that nobody has
stands in: then the attack is one more forgery, and no less forbidden.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address

NOBODY_V4, NOBODY_V6 = "192.0.2.1", "2001:db8::1"
"""Addresses for documentation (RFC 5737, RFC 3849): no network has them."""
TCP, UDP, ICMP, GRE = 6, 17, 1, 47


@dataclass(frozen=True, slots=True)
class Station:
    """A NIC: its MAC and its addresses as text, those of IPv6 with its link-local one."""

    name: str
    mac: str
    vlan: int
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()

    @property
    def v4(self) -> str:
        """Its first IPv4 address, or nobody's."""
        return self.ipv4[0] if self.ipv4 else NOBODY_V4

    @property
    def v6(self) -> str:
        """Its first IPv6 address, or nobody's."""
        return self.ipv6[0] if self.ipv6 else NOBODY_V6

    @property
    def local(self) -> str:
        """Its link-local address, or what that would be."""
        return next((text for text in self.ipv6 if text.startswith("fe80:")), link_local(self.mac))

    def address(self, version: int) -> str:
        """Its first address of an IP version."""
        return self.v4 if version == 4 else self.v6


@dataclass(frozen=True, slots=True)
class Service:
    """Something that listens: protocol (ICMP for ICMPv6 too) and port, 0 if the protocol has none."""

    station: Station
    version: int
    protocol: int
    port: int

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.station.address(self.version)


@dataclass(frozen=True, slots=True)
class Conversation:
    """A service of one neighbour that the rules let another neighbour use."""

    client: Station
    service: Service


@dataclass(frozen=True, slots=True)
class Scene:
    """`twin` is the NIC that attacks, `peers` are of its network, `strangers` of other networks."""

    twin: Station
    peers: tuple[Station, ...] = ()
    strangers: tuple[Station, ...] = ()
    gateways: tuple[str, ...] = ()
    """Addresses that a router of the network would have."""
    asked: frozenset[str] = frozenset()
    """What the network's own server may be asked: `dhcp`, `dhcpv6`, `routers`. Who asks attacks nobody."""
    open: tuple[Service, ...] = ()
    """What the rules let the twin reach."""
    closed: tuple[Service, ...] = ()
    """What they do not."""
    conversations: tuple[Conversation, ...] = ()
    """Those that neighbours may have with each other, at most one for each IP version."""
    connection_quota: int = 0
    """How many connections the twin may have at once; 0 is any number."""
    announcement_limit: int = 0
    """How many announcements of its own address it may send a second, and at once; 0 is any number."""

    @property
    def victim(self) -> Station:
        """The neighbour that most attacks aim at."""
        return self.peers[0] if self.peers else NOBODY

    @property
    def bystander(self) -> Station:
        """Another neighbour."""
        return self.peers[1] if len(self.peers) > 1 else NOBODY

    @property
    def stranger(self) -> Station:
        """A NIC of another network."""
        return self.strangers[0] if self.strangers else NOBODY

    @property
    def gateway4(self) -> str:
        """The IPv4 address that a router would have."""
        return next((text for text in self.gateways if ":" not in text), NOBODY_V4)

    @property
    def gateway6(self) -> str:
        """The IPv6 address that a router would have."""
        return next((text for text in self.gateways if ":" in text), NOBODY_V6)

    def reachable(self, protocol: int, version: int) -> Service | None:
        """A service of a protocol that the twin may use."""
        return _first(self.open, protocol, version)

    def unreachable(self, protocol: int, version: int) -> Service | None:
        """A service of a protocol that it may not use."""
        return _first(self.closed, protocol, version)

    def toward(self, protocol: int, version: int) -> Service:
        """Where an attack gets furthest: a service that the twin may use, else any of the victim."""
        port = {TCP: 80, UDP: 53}.get(protocol, 0)
        return self.reachable(protocol, version) or Service(self.victim, version, protocol, port)

    def conversation(self, version: int) -> Conversation | None:
        """What two neighbours may say to each other."""
        return next((each for each in self.conversations if each.service.version == version), None)


def _first(services: Iterable[Service], protocol: int, version: int) -> Service | None:
    return next((each for each in services if (each.protocol, each.version) == (protocol, version)), None)


def link_local(mac: str) -> str:
    """The address made of a MAC (RFC 4291, section 2.5.1 and appendix A)."""
    number = int(mac.replace(":", ""), 16)
    interface = (number >> 24 ^ 0x020000) << 40 | 0xFFFE << 24 | number & 0xFFFFFF
    return str(IPv6Address(0xFE80 << 112 | interface))


NOBODY = Station("nobody", "02:00:5e:00:53:01", 0)
"""Stands in for a neighbour that is not there; the MAC is one for documentation (RFC 7042)."""
