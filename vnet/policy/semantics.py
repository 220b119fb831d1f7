"""What a policy means, said as slowly and plainly as possible: the law that compiled flows must obey.

Nothing here knows of tables, identities or registers. A packet is allowed when the fabric can
deliver it, no guard of the `strict` profile stops it, and both the client's egress and the server's
ingress allow its connection. Replies belong to the connection of their request, so they are judged
by the client's egress and the server's ingress too, under the policy now in force. What expires is
taken out of a topology beforehand (`vnet.topology.expiry`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import ip_network

from vnet.base.drop import DropReason
from vnet.base.protocols import PROTOCOLS
from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.policy import origin
from vnet.policy.endpoint import Endpoint, IPAddress, endpoints, is_routed_to, reached_by
from vnet.policy.origin import Origin
from vnet.policy.outside import of_fabric
from vnet.topology.inventory import Inventory, exit_key
from vnet.topology.model import (
    Action,
    Direction,
    Enforcement,
    Established,
    Peer,
    PeerKind,
    Policy,
    Rule,
    Service,
    Topology,
)
from vnet.topology.routing import Routing

WITH_PORTS = (TCP, UDP, SCTP)
REQUEST_TYPE = {ICMP: 8, ICMPV6: 128}
ECHO_REPLY = {ICMP: 0, ICMPV6: 129}
"""Echo: the only ICMP that makes a connection."""
NEIGHBOUR_DISCOVERY = (135, 136)

FORGED = origin.guard("ip", "the source address is not the NIC's own", DropReason.SPOOF_IP)
NO_ROUTE = origin.fabric("route", "no router sends it there", DropReason.NO_ROUTE)
NOBODY = origin.fabric("destination", "no such address on this network", DropReason.NO_DST)
ITSELF = origin.fabric("same-port", "sent to itself", DropReason.SAME_PORT)


@dataclass(frozen=True, slots=True)
class Packet:
    """An IP packet as a policy sees it, on its way from one NIC to another.

    Ports count for TCP, UDP and SCTP only, `icmp_type` for ICMP and ICMPv6 only. `reply` says that
    the packet belongs to a connection which its destination opened, `admitted` that its connection was
    let in before, maybe by another policy.
    """

    source_nic: str
    source: IPAddress
    target_nic: str
    target: IPAddress
    protocol: int
    source_port: int = 0
    target_port: int = 0
    icmp_type: int = 0
    reply: bool = False
    admitted: bool = False

    @property
    def service_port(self) -> int:
        """The server's port, which a request goes to and a reply comes from; of ICMP the request's type."""
        if self.protocol in REQUEST_TYPE:
            return REQUEST_TYPE[self.protocol] if self.reply else self.icmp_type
        return self.source_port if self.reply else self.target_port

    def __str__(self) -> str:
        name = PROTOCOLS.get(self.protocol, f"protocol {self.protocol}")
        has_ports = self.protocol in WITH_PORTS
        source, target = (
            (f" port {port}" if has_ports else "") for port in (self.source_port, self.target_port)
        )
        kind = f" type {self.icmp_type}" if self.protocol in (ICMP, ICMPV6) else ""
        return (
            f"{name}{kind}{' reply' if self.reply else ''} from {self.source_nic} {self.source}{source}"
            f" to {self.target_nic} {self.target}{target}"
        )


@dataclass(frozen=True, slots=True)
class Miss:
    """An allow rule that nearly matched, and why it did not."""

    origin: Origin
    why: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a packet arrives; `origin` is what decided: for an allowed packet the server's rule."""

    allowed: bool
    origin: Origin
    egress: Origin | None = None
    """What the client's egress said, when it was asked."""
    nearest: Miss | None = None

    @property
    def reason(self) -> DropReason:
        """Why it is lost; NONE when it is not."""
        return self.origin.reason


def selects(topology: Topology, peer: Peer, end: Endpoint) -> bool:
    """Whether a selector of the language means this endpoint."""
    match peer.kind:
        case PeerKind.ANY:
            return True
        case PeerKind.VM:
            return not end.is_outside and peer.value in (end.vm.spec, end.vm.name)
        case PeerKind.INTERNET | PeerKind.HOST:
            return end.is_outside and peer.value == end.vm.name
        case PeerKind.NETWORK:
            return not end.is_outside and peer.value == end.nic.network
        case PeerKind.CIDR:
            return end.address in ip_network(peer.value, strict=False)
        case PeerKind.GROUP:
            return peer.value in end.vm.groups or any(
                end.address in network for network in topology.groups.get(peer.value, ())
            )


def selects_any(topology: Topology, peers: tuple[Peer, ...], end: Endpoint) -> bool:
    """Whether one of the selectors means this endpoint."""
    return any(selects(topology, peer, end) for peer in peers)


def serves(service: Service, packet: Packet) -> bool:
    """Whether a service means the packet's connection; ICMP means ICMP over IPv4, ICMPv6 over IPv6."""
    if service.protocol is None:
        return True
    icmp = ICMP if packet.source.version == 4 else ICMPV6
    wanted = icmp if service.protocol in (ICMP, ICMPV6) else service.protocol
    if packet.protocol != wanted:
        return False
    if service.ports is None or wanted not in (*WITH_PORTS, *REQUEST_TYPE):
        return True
    return service.ports[0] <= packet.service_port <= service.ports[1]


def in_tier(topology: Topology, tier: str) -> Iterator[Policy]:
    """The policies of a tier in the order in which they are asked."""
    return (policy for policy in topology.policies if policy.tier == tier)


def in_order(topology: Topology) -> Iterator[Policy]:
    """All policies in the order in which they are asked: tier by tier, in file order within a tier."""
    for tier in topology.tiers:
        yield from in_tier(topology, tier)


def rules_of(policy: Policy, direction: Direction) -> tuple[Rule, ...] | None:
    """The policy's list for one direction; None when it does not list that direction."""
    return policy.ingress if direction is Direction.INGRESS else policy.egress


def decide(topology: Topology, inventory: Inventory, packet: Packet) -> Verdict:
    """Whether the packet arrives, what decides it, and the nearest rule that would have let it pass.

    Raises: ValueError for neighbour discovery, which no policy judges, and for mixed address families.
    """
    if packet.source.version != packet.target.version:
        raise ValueError(f"not a packet: {packet}")
    if packet.protocol == ICMPV6 and packet.icmp_type in NEIGHBOUR_DISCOVERY:
        raise ValueError("neighbour discovery is not judged by policies")
    ends = {(end.name, end.address): end for end in endpoints(topology, inventory)}
    outside = of_fabric(topology, inventory)
    source = ends.get((packet.source_nic, packet.source)) or outside.at(packet.source_nic, packet.source)
    target = ends.get((packet.target_nic, packet.target)) or outside.at(packet.target_nic, packet.target)
    guarded = _guarded(packet)
    if guarded:
        return Verdict(False, guarded)
    if source is None:
        return Verdict(False, FORGED)
    if target is None:
        return Verdict(False, NOBODY)
    apart = _apart(topology, tuple(ends.values()), source, target)
    if apart is not None:
        return Verdict(False, apart)
    if _begins_nothing(packet):
        return Verdict(False, origin.INVALID)
    client, server = (target, source) if packet.reply else (source, target)
    return judged(topology, client, server, packet)


def _apart(
    topology: Topology, everyone: Sequence[Endpoint], source: Endpoint, target: Endpoint
) -> Origin | None:
    """Why two ends cannot meet; None if they can: as neighbours, or by the router of their networks."""
    if source.is_outside and target.is_outside:
        return NOBODY
    if source.nic.network != target.nic.network:
        return _unrouted(topology, everyone, source, target)
    if target.is_allowed and not reached_by(everyone)[target.name, target.address]:
        return NOBODY
    if source.name == target.name:
        return ITSELF
    return origin.APART if source.nic.is_isolated and target.nic.is_isolated else None


def _unrouted(
    topology: Topology, everyone: Sequence[Endpoint], source: Endpoint, target: Endpoint
) -> Origin | None:
    """Why no router delivers a packet; None if one does."""
    routing = Routing(topology)
    if source.is_outside or target.is_outside:
        return _no_exit(topology, everyone, routing, source, target)
    if routing.router(source.nic.network) is None:
        return NOBODY
    way = routing.way(source.nic.network, target.address)
    if source.address.is_link_local or way is None:
        return NO_ROUTE
    if way.network != target.nic.network:
        return NOBODY
    holders = {end.name for end in everyone if _is_at(end, target.nic.network, target.address)}
    return None if is_routed_to(routing, target, len(holders)) else NOBODY


def _no_exit(
    topology: Topology, everyone: Sequence[Endpoint], routing: Routing, source: Endpoint, target: Endpoint
) -> Origin | None:
    """Why a packet does not leave by the exit of a router, or does not come in by it; None if it does."""
    own, other = (target, source) if source.is_outside else (source, target)
    router = routing.router(own.nic.network)
    if router is None or exit_key(router.name) != other.name:
        return NOBODY
    if source is own:
        if own.address.is_link_local or not routing.leaves(own.nic.network, other.address):
            return NO_ROUTE
        return None
    way = routing.lead(router, own.address)
    if way is None:
        return NO_ROUTE
    if way.network != own.nic.network:
        return NOBODY
    holders = {end.name for end in everyone if _is_at(end, own.nic.network, own.address)}
    return None if is_routed_to(routing, own, len(holders)) else NOBODY


def _is_at(end: Endpoint, network: str, address: IPAddress) -> bool:
    return end.nic.network == network and end.address == address


def judged(topology: Topology, client: Endpoint, server: Endpoint, packet: Packet) -> Verdict:
    """What the policies alone say of a packet between two ends that can meet: no guard, no isolation."""
    allowed, egress = _first_match(topology, Direction.EGRESS, client, server, packet)
    if not allowed:
        return Verdict(False, egress, egress, _nearest(topology, Direction.EGRESS, client, server, packet))
    allowed, ingress = _first_match(topology, Direction.INGRESS, server, client, packet)
    if allowed:
        return Verdict(True, ingress, egress)
    return Verdict(False, ingress, egress, _nearest(topology, Direction.INGRESS, server, client, packet))


def _first_match(
    topology: Topology, direction: Direction, subject: Endpoint, peer: Endpoint, packet: Packet
) -> tuple[bool, Origin]:
    """What one side says: its first matching rule, else ingress closed and egress open until listed.

    Policies apply to VMs only: who is outside may send and be reached.
    """
    if subject.is_outside:
        return True, origin.OUTSIDE
    for tier in topology.tiers:
        for policy, rule in _rules(topology, tier, direction, subject):
            if not _matches(topology, rule, peer, packet):
                continue
            if rule.action is Action.PASS:
                break  # to the next tier
            if rule.action is Action.ALLOW:
                return True, origin.of_rule(policy, rule)
            return _refused(policy, origin.of_rule(policy, rule), packet)
    listing = [p for p in _applied(topology, subject) if rules_of(p, direction) is not None]
    if direction is Direction.EGRESS and not listing:
        return True, origin.EGRESS_OPEN
    name = subject.vm.name
    why = origin.of_default(direction, name, name, listing, subject.vm.at)
    return _refused(responsible(listing), why, packet)


def one_side(
    topology: Topology, direction: Direction, subject: Endpoint, peer: Endpoint, packet: Packet
) -> tuple[bool, Origin]:
    """What one side alone says of a connection: the egress of its client, or the ingress of its server."""
    return _first_match(topology, direction, subject, peer, packet)


def _rules(
    topology: Topology, tier: str, direction: Direction, subject: Endpoint
) -> Iterator[tuple[Policy, Rule]]:
    for policy in in_tier(topology, tier):
        if selects_any(topology, policy.applied_to, subject):
            yield from ((policy, rule) for rule in rules_of(policy, direction) or ())


def _applied(topology: Topology, subject: Endpoint) -> Iterator[Policy]:
    return (p for p in in_order(topology) if selects_any(topology, p.applied_to, subject))


def responsible(listing: Sequence[Policy]) -> Policy | None:
    """Of the policies that list a direction, the one by which it is closed: the first that is enforced.

    One that is only audited if there is no other; None if none lists it.
    """
    enforced = (policy for policy in listing if policy.enforcement is Enforcement.ENFORCE)
    return next(enforced, listing[0] if listing else None)


def _refused(policy: Policy | None, why: Origin, packet: Packet) -> tuple[bool, Origin]:
    """What becomes of a packet that a policy says no to; None is what is closed without any policy."""
    if policy is None:
        return False, why
    if policy.enforcement is Enforcement.AUDIT:
        return True, origin.audited(why)
    if packet.admitted and policy.established is Established.KEEP:
        return True, origin.kept(why)
    if packet.admitted and policy.established is Established.RESET:
        return False, origin.reset(why)
    return False, why


def _matches(topology: Topology, rule: Rule, peer: Endpoint, packet: Packet) -> bool:
    return selects_any(topology, rule.peers, peer) and _serves_any(rule, packet)


def _serves_any(rule: Rule, packet: Packet) -> bool:
    return not rule.services or any(serves(service, packet) for service in rule.services)


def _guarded(packet: Packet) -> Origin | None:
    """What the `strict` profile forbids every guest, whatever the policies say."""
    ipv6 = packet.source.version == 6
    server, client = (547, 546) if ipv6 else (67, 68)
    if packet.protocol == UDP and (packet.source_port == server or packet.target_port == client):
        return origin.guard("dhcp", "only the fabric serves DHCP", DropReason.ROGUE_DHCP)
    if packet.protocol == ICMPV6 and ipv6 and packet.icmp_type in (134, 137):
        return origin.guard("ra", "only routers advertise or redirect", DropReason.ROGUE_RA)
    if packet.protocol == ICMP and not ipv6 and packet.icmp_type == 5:
        return origin.guard("redirect", "only routers redirect", DropReason.ROGUE_RA)
    if packet.protocol == ICMPV6 and ipv6 and packet.icmp_type in (130, 131, 132, 133, 143):
        return origin.guard("multicast", "there is no router to ask", DropReason.MULTICAST)
    return None


def _begins_nothing(packet: Packet) -> bool:
    """Whether it is ICMP that is no echo. Errors about a connection are not judged, and reach its ends."""
    if packet.protocol != (ICMP if packet.source.version == 4 else ICMPV6):
        return False
    request = REQUEST_TYPE[packet.protocol]
    return packet.icmp_type != (ECHO_REPLY[packet.protocol] if packet.reply else request)


def _nearest(
    topology: Topology, direction: Direction, subject: Endpoint, peer: Endpoint, packet: Packet
) -> Miss | None:
    """The allow rule that came closest: overruled, else right peer, else right service."""
    best: tuple[int, Miss] | None = None
    for policy in _applied(topology, subject):
        for rule in rules_of(policy, direction) or ():
            ranked = _rank(topology, rule, peer, packet) if rule.action is Action.ALLOW else None
            if ranked and (best is None or ranked[0] < best[0]):
                best = ranked[0], Miss(origin.of_rule(policy, rule), ranked[1])
    return best[1] if best else None


def _rank(topology: Topology, rule: Rule, peer: Endpoint, packet: Packet) -> tuple[int, str] | None:
    knows_peer, knows_service = selects_any(topology, rule.peers, peer), _serves_any(rule, packet)
    if knows_peer and knows_service:
        return 0, "allows it, but the deciding rule comes first"
    if knows_peer:
        return 1, f"allows {peer.vm.name}, but only ports {', '.join(map(str, rule.services))}"
    if knows_service:
        return 2, f"allows the port, but {peer.vm.name} is not in {', '.join(map(str, rule.peers))}"
    return None
