"""Cookies, verdicts and reasons in the words of the topology file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_network

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.base.source import BUILT_IN, Location
from vnet.openflow import cookie as cookies
from vnet.openflow.fields import ICMP, ICMPV6
from vnet.policy.claims import promised
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.outside import of_fabric
from vnet.policy.semantics import Packet, Verdict, decide, selects
from vnet.topology.inventory import Inventory
from vnet.topology.model import Peer, PeerKind, Service, Topology

CLIENT_PORT = 40_000
"""The client's port in explanations and examples: any ephemeral one."""


WORDS = ("any", "internet", "host")
"""Peers that are words of the language."""


def place(at: Location) -> str:
    """`(FILE:LINE)`."""
    return str(at) if at == BUILT_IN else f"({at})"


def say(origin: Origin) -> str:
    """What an origin did, by whose doing: `denied by policy db-from-app ingress rule 2 (FILE:LINE)`."""
    reason = origin.reason
    match origin.kind:
        case OriginKind.RULE:
            verb = "allowed" if reason is DropReason.NONE else "denied"
            direction, number = origin.rule.split()
            return f"{verb} by policy {origin.policy} {direction} rule {number} {place(origin.at)}"
        case OriginKind.DEFAULT:
            verb = "allowed" if reason is DropReason.NONE else "denied"
            return f"{verb} by default: {origin.text} {place(origin.at)}"
        case _ if reason is DropReason.NONE:
            return f"{origin.text} {place(origin.at)}"
        case _:
            return f"dropped, {reason.name}: {origin.text} {place(origin.at)}"


def describe(cookie: int, provenance: Mapping[int, Origin]) -> str:
    """What a flow's cookie tells: the policy, the rule and its line, or the guard, and the reason."""
    origin = provenance.get(cookie)
    if origin is not None:
        return say(origin)
    reason = cookies.reason(cookie)
    return f"{reason.name} by a flow that this topology does not know (cookie {cookie:#018x})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """One way of a packet from one VM to another, what becomes of it and why."""

    packet: Packet
    verdict: Verdict

    def plain(self) -> Mapping[str, object]:
        """The same as plain values."""
        verdict, near = self.verdict, self.verdict.nearest
        return {
            "packet": str(self.packet),
            "allowed": verdict.allowed,
            "reason": verdict.reason.name,
            "decided_by": say(verdict.origin),
            "at": str(verdict.origin.at),
            "egress": say(verdict.egress) if verdict.egress else "",
            "nearest": f"policy {near.origin.policy} {near.origin.rule} {near.why}" if near else "",
            "nearest_at": str(near.origin.at) if near else "",
        }

    def __str__(self) -> str:
        verdict = self.verdict
        lines = [f"{self.packet}: {say(verdict.origin)}"]
        if verdict.allowed and verdict.egress is not None:
            lines.append(f"  egress: {say(verdict.egress)}")
        if verdict.nearest is not None:
            near = verdict.nearest.origin
            lines.append(f"  nearest: policy {near.policy} {near.rule} ({near.at}) {verdict.nearest.why}")
        return "\n".join(lines)


def peer_named(topology: Topology, inventory: Inventory, text: str) -> Peer:
    """The peer that a command-line word names: as in a policy, or a VM, a replica or a network by its name.

    Raises: InputError when nothing of the fabric has that name.
    """
    at = Location("(command line)")
    kind, colon, value = text.partition(":")
    if text in WORDS:
        return Peer(PeerKind(text), text, at)
    if colon and kind in ("vm", "network"):
        return Peer(PeerKind(kind), value, at)
    if any(text in (vm.name, vm.spec) for vm in inventory.vms):
        return Peer(PeerKind.VM, text, at)
    if text in topology.networks:
        return Peer(PeerKind.NETWORK, text, at)
    if text in topology.groups or any(text in vm.groups for vm in inventory.vms):
        return Peer(PeerKind.GROUP, text, at)
    try:
        return Peer(PeerKind.CIDR, str(ip_network(text, strict=False)), at)
    except ValueError:
        raise InputError(f"{text}: no VM, network or group has this name, and it is no CIDR") from None


def explain(
    topology: Topology, inventory: Inventory, source: Peer, target: Peer, service: Service
) -> tuple[Explanation, ...]:
    """What becomes of a connection from each of the source's addresses to each of the target's.

    Only addresses of one family that can meet are paired, link-local ones are left out, and so are those that
    a profile only allows where no CIDR names them; where two VMs cannot meet, their first addresses of one
    family stand for the rest.
    """
    outside = of_fabric(topology, inventory, (source, target)).ends()
    ends = [end for end in (*endpoints(topology, inventory), *outside) if not end.is_link_local]
    sources = promised(source, [end for end in ends if selects(topology, source, end)])
    targets = promised(target, [end for end in ends if selects(topology, target, end)])
    pairs = [(a, b) for a in sources for b in targets if _comparable(a, b)]
    roads = Roads(topology, endpoints(topology, inventory))
    met = {(a.vm.name, b.vm.name) for a, b in pairs if roads.can_meet(a, b)}
    packets = []
    apart: set[tuple[str, str]] = set()
    for a, b in pairs:
        names = a.vm.name, b.vm.name
        if roads.can_meet(a, b) or (names not in met and names not in apart):
            apart.add(names)
            packets.append(_packet(a, b, service))
    return tuple(Explanation(packet, decide(topology, inventory, packet)) for packet in packets)


def _comparable(a: Endpoint, b: Endpoint) -> bool:
    strangers = a.is_outside and b.is_outside
    return a.vm.name != b.vm.name and a.address.version == b.address.version and not strangers


def _packet(source: Endpoint, target: Endpoint, service: Service) -> Packet:
    protocol = service.protocol if service.protocol is not None else 6
    port = service.ports[0] if service.ports else 0
    ends = source.name, source.address, target.name, target.address
    if protocol in (ICMP, ICMPV6):
        ipv6 = source.address.version == 6
        return Packet(*ends, ICMPV6 if ipv6 else ICMP, icmp_type=128 if ipv6 else 8)
    return Packet(*ends, protocol, CLIENT_PORT, port)
