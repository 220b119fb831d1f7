"""What guests may ask of their network's own server: the law, as slow and plain as can be.

Beside `vnet.policy.serve`, which makes flows of the same. It knows no tables, only what a network offers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP, CtState
from vnet.policy.endpoint import link_local
from vnet.topology.inventory import Nic, ServicePort
from vnet.topology.model import Advertised, Network

TRACKED = CtState.TRK
STATES = {
    "new": TRACKED | CtState.NEW,
    "request": TRACKED | CtState.EST,
    "reply": TRACKED | CtState.EST | CtState.RPL,
    "error": TRACKED | CtState.REL,
}


class Kind(Enum):
    DHCP = "dhcp"
    ROUTERS = "routers"
    UDP = "udp"
    TCP = "tcp"
    ECHO = "echo"
    ICMP = "icmp"


class Source(Enum):
    """Whose address a guest's packet has. NONE: none yet. NEAR: its own link-local one, over IPv4 its own."""

    NONE = "none"
    OWN = "own"
    NEAR = "near"
    NEIGHBOUR = "neighbour"


class Target(Enum):
    """MANY: the group, or all, that such questions go to."""

    SERVER = "server"
    MANY = "many"


@dataclass(frozen=True, slots=True)
class Question:
    """A packet of a guest. `port` is where it goes, of UDP and TCP; `state` is as the tracker says."""

    family: int
    kind: Kind
    source: Source
    target: Target
    port: int
    state: str


def may_ask(question: Question, network: Network, is_routed: bool) -> bool:
    """Whether it reaches the server."""
    family, kind = question.family, question.kind
    if not any(subnet.version == family for subnet in network.subnets):
        return False
    if question.source is Source.NEIGHBOUR:
        return False
    if kind is Kind.DHCP:
        answered = any(each.dhcp and each.subnet.version == family for each in network.served)
        return answered and not (family == 6 and question.source is Source.NONE)
    if kind is Kind.ROUTERS:
        advertised = any(each.ra is not Advertised.NONE for each in network.served)
        return family == 6 and advertised and question.target is Target.MANY
    if question.target is not Target.SERVER or question.source is Source.NONE:
        return False
    if question.state not in ("new", "request"):
        return False
    if kind is Kind.ECHO:
        return network.has_services and not is_routed
    return kind in (Kind.UDP, Kind.TCP) and question.port == 53 and bool(network.domain)


MANY = {
    (4, Kind.DHCP): (0xFFFF_FFFF_FFFF, 0xFFFF_FFFF),
    (6, Kind.DHCP): (0x3333_0001_0002, 0xFF02 << 112 | 0x1_0002),
    (6, Kind.ROUTERS): (0x3333_0000_0002, 0xFF02 << 112 | 2),
}


def address(nic: Nic | ServicePort, family: int) -> int | None:
    """Its first one of that version of IP."""
    return next((int(each.ip) for each in nic.addresses if each.version == family), None)


def packet(question: Question, nic: Nic, neighbour: Nic, server: ServicePort) -> dict[str, int] | None:
    """The packet's fields; None where there is no such packet."""
    family, kind = question.family, question.kind
    sources = {
        Source.NONE: 0,
        Source.OWN: address(nic, family),
        Source.NEAR: address(nic, family) if family == 4 else int(link_local(nic.mac)),
        Source.NEIGHBOUR: address(neighbour, family),
    }
    many = MANY.get((family, kind), (0xFFFF_FFFF_FFFF, (1 << 32) - 1 if family == 4 else 0xFF02 << 112 | 1))
    targets = {Target.SERVER: (server.mac, address(server, family)), Target.MANY: many}
    source, (mac, target) = sources[question.source], targets[question.target]
    if source is None or target is None or (family == 4 and kind is Kind.ROUTERS):
        return None
    ends = {"eth_dst": mac, f"ipv{family}_src": source, f"ipv{family}_dst": target}
    return ends | {"eth_type": ETH_IPV4 if family == 4 else ETH_IPV6} | _above(question)


def _above(question: Question) -> dict[str, int]:
    """Its fields above IP."""
    family, kind = question.family, question.kind
    match kind:
        case Kind.DHCP:
            client, server = (68, 67) if family == 4 else (546, 547)
            return {"ip_proto": UDP, "udp_src": client, "udp_dst": server}
        case Kind.ROUTERS:
            return {"ip_proto": ICMPV6, "icmpv6_type": 133}
        case Kind.UDP:
            return {"ip_proto": UDP, "udp_src": 4000, "udp_dst": question.port}
        case Kind.TCP:
            return {"ip_proto": TCP, "tcp_src": 4000, "tcp_dst": question.port}
    if family == 4:
        return {"ip_proto": ICMP, "icmpv4_type": 8 if kind is Kind.ECHO else 13}
    return {"ip_proto": ICMPV6, "icmpv6_type": 128 if kind is Kind.ECHO else 139}
