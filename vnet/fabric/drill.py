"""A fabric as the scene of a drill: who the NIC's neighbours are, and what the rules let it reach."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from vnet.base.limits import Limits
from vnet.drill.scene import GRE, ICMP, TCP, UDP, Conversation, Scene, Service, Station
from vnet.fabric.declared import Declared
from vnet.hv.spec import format_mac
from vnet.openflow.fields import ICMPV6
from vnet.policy.endpoint import IPAddress, addresses
from vnet.policy.explain import CLIENT_PORT
from vnet.policy.semantics import Packet, decide
from vnet.policy.serve import has_dhcp, is_advertised
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Network, Topology

PEERS, STRANGERS = 16, 4
"""So many NICs of the own network and of others stand by."""
TALKERS, SERVICES = 6, 12
"""Among so many of them, and so many services, somebody is looked for who may talk to another."""
USUAL = ((TCP, 80), (TCP, 22), (UDP, 53), (ICMP, 0))
CLOSED = ((TCP, 22), (TCP, 7), (UDP, 69), (UDP, 4789), (GRE, 0))
"""What is tried for a service that the rules keep closed."""
ANYTHING = 253
"""A protocol for experiments (RFC 3692): only rules for all protocols let it pass."""
TALKED = (TCP, UDP)


def scene(declared: Declared, nic: Nic, limits: Limits | None) -> Scene:
    """What an attacker in the place of `nic` finds.

    Args:
        limits: those that the switch enforces, None where it enforces none.
    """
    others = [other for other in declared.inventory.nics if other.name != nic.name]
    near = [other for other in others if (other.network, other.vlan) == (nic.network, nic.vlan)][:PEERS]
    far = [other for other in others if other.network != nic.network and other.vm != nic.vm][:STRANGERS]
    network = declared.topology.networks[nic.network]
    rules = _Rules(declared.topology, _reduced(declared.inventory, [nic, *near]))
    near.sort(key=lambda other: not rules.lets(nic, other, ANYTHING, 0))
    candidates = tuple(dict.fromkeys((*islice(_named(declared.topology), SERVICES), *USUAL)))
    return Scene(
        twin=_station(declared.topology, nic),
        peers=tuple(_station(declared.topology, other) for other in near),
        strangers=tuple(_station(declared.topology, other) for other in far),
        gateways=tuple(
            str(network.gateway(subnet) or subnet.network_address + 1) for subnet in network.subnets
        ),
        asked=_asked(declared.topology.networks[nic.network]),
        open=tuple(_services(rules, nic, near, candidates, wanted=True)),
        closed=tuple(_services(rules, nic, near, CLOSED, wanted=False)),
        conversations=tuple(_conversations(rules, near[:TALKERS], candidates)),
        connection_quota=limits.connections if limits else 0,
        announcement_limit=limits.broadcast_pps if limits else 0,
    )


def _asked(network: Network) -> frozenset[str]:
    """What the network's own server may be asked."""
    kinds = {
        "dhcp": has_dhcp(network, 4),
        "dhcpv6": has_dhcp(network, 6),
        "routers": is_advertised(network),
    }
    return frozenset(kind for kind, is_there in kinds.items() if is_there)


def cast(declared: Declared, acting: Scene) -> tuple[Nic, ...]:
    """The NICs that a scene needs stand-ins for."""
    names = {station.name for station in (acting.twin, *acting.peers, *acting.strangers)}
    return tuple(nic for nic in declared.inventory.nics if nic.name in names)


def _reduced(inventory: Inventory, nics: Iterable[Nic]) -> Inventory:
    """The VMs of these NICs only: what is asked of the rules again and again should not cost the rest."""
    wanted = {nic.vm for nic in nics}
    return replace(inventory, vms=tuple(vm for vm in inventory.vms if vm.name in wanted))


def _station(topology: Topology, nic: Nic) -> Station:
    own = addresses(topology, nic)
    by_version = {
        version: tuple(str(address) for address in own if address.version == version) for version in (4, 6)
    }
    return Station(nic.name, format_mac(nic.mac), nic.vlan, by_version[4], by_version[6])


def _named(topology: Topology) -> Iterator[tuple[int, int]]:
    """The services that rules name, as (protocol, lowest port)."""
    for policy in topology.policies:
        for rule in (*(policy.ingress or ()), *(policy.egress or ())):
            for service in rule.services:
                if service.protocol in TALKED:
                    yield service.protocol, max((service.ports or (80, 80))[0], 1)


@dataclass(frozen=True, slots=True)
class _Rules:
    """Asks what the policies mean."""

    topology: Topology
    inventory: Inventory

    def lets(self, source: Nic, target: Nic, protocol: int, port: int, version: int | None = None) -> bool:
        """Whether one NIC may open a connection to another, over one IP version or any."""
        for here, there in self._addresses(source, target, version):
            icmp = (ICMP, 8) if here.version == 4 else (ICMPV6, 128)
            spoken, kind = icmp if protocol == ICMP else (protocol, 0)
            packet = Packet(source.name, here, target.name, there, spoken, CLIENT_PORT, port, icmp_type=kind)
            if decide(self.topology, self.inventory, packet).allowed:
                return True
        return False

    def _addresses(
        self, source: Nic, target: Nic, version: int | None
    ) -> Iterator[tuple[IPAddress, IPAddress]]:
        """The first address of each, by version."""
        for each in (4, 6) if version is None else (version,):
            ends = [self.first(nic, each) for nic in (source, target)]
            if ends[0] is not None and ends[1] is not None:
                yield ends[0], ends[1]

    def first(self, nic: Nic, version: int) -> IPAddress | None:
        """The address that a station is spoken to by."""
        return next((a for a in addresses(self.topology, nic) if a.version == version), None)


def _services(
    rules: _Rules, nic: Nic, peers: Sequence[Nic], candidates: Sequence[tuple[int, int]], *, wanted: bool
) -> Iterator[Service]:
    """Of each protocol and IP version one service that the rules let the NIC use, or do not."""
    found: set[tuple[int, int]] = set()
    for version in (4, 6):
        there = [peer for peer in peers if rules.first(peer, version) and rules.first(nic, version)]
        for protocol, port in candidates:
            if (protocol, version) in found:
                continue
            served = (peer for peer in there if rules.lets(nic, peer, protocol, port, version) is wanted)
            peer = next(served, None)
            if peer is not None:
                found.add((protocol, version))
                yield Service(_station(rules.topology, peer), version, protocol, port)


def _conversations(
    rules: _Rules, peers: Sequence[Nic], candidates: Sequence[tuple[int, int]]
) -> Iterator[Conversation]:
    for version in (4, 6):
        yield from islice(_talking(rules, peers, candidates, version), 1)


def _talking(
    rules: _Rules, peers: Sequence[Nic], candidates: Sequence[tuple[int, int]], version: int
) -> Iterator[Conversation]:
    for client in peers:
        for server in (peer for peer in peers if peer != client):
            for protocol, port in candidates:
                if protocol in TALKED and rules.lets(client, server, protocol, port, version):
                    service = Service(_station(rules.topology, server), version, protocol, port)
                    yield Conversation(_station(rules.topology, client), service)
