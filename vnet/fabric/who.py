"""Who an address is, and which rule lets a connection be: what one generation says of what the switch tracks.

A connection does not remember its rule: that would cost every packet that opens one. The rule is found by
asking the law of the language (`vnet.policy.semantics`) about the connection, under the generation in force,
which is what decides its packets too (decision 19).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

from vnet.fabric.declared import Declared
from vnet.fabric.seen import DecidedBy
from vnet.openflow.fields import ICMP, ICMPV6
from vnet.policy.endpoint import Endpoint, endpoints
from vnet.policy.origin import Lets, Origin
from vnet.policy.outside import edges, of_fabric
from vnet.policy.semantics import REQUEST_TYPE, Packet, Verdict, judged
from vnet.switch.connections import Tracked
from vnet.topology.inventory import Nic
from vnet.topology.routing import Routing, zone_of

IPAddress = IPv4Address | IPv6Address
RULES_KEPT = 65536


def address(number: int, version: int) -> IPAddress:
    """An address by its number."""
    return IPv4Address(number) if version == 4 else IPv6Address(number)


@dataclass(frozen=True, slots=True)
class Let:
    """What the policies in force say of a connection.

    `allowed` is False for one that is still tracked though no rule lets its packets pass any more;
    `audited`: a rule that is not enforced says no.
    """

    by: DecidedBy
    allowed: bool
    audited: bool


def decided_by(origin: Origin) -> DecidedBy:
    """An origin as reports have it."""
    return DecidedBy(str(origin.at), origin.policy, origin.rule, origin.text, origin.cookie)


class Directory:
    """The names of one generation."""

    def __init__(self, declared: Declared) -> None:
        self._topology = declared.topology
        nics = declared.inventory.nics
        self._by_port: Mapping[int, Nic] = {nic.port: nic for nic in nics}
        self._networks = {nic.vlan: nic.network for nic in nics}
        self._networks |= {network.vlan: name for name, network in declared.topology.networks.items()}
        ends = sorted(
            endpoints(declared.topology, declared.inventory), key=lambda end: end.name, reverse=True
        )
        self._ends: dict[tuple[int, int, int], Endpoint]
        routing = Routing(declared.topology)
        self._ends = {
            (zone, end.address.version, int(end.address)): end
            for end in ends
            for zone in routing.zones(end.nic.network, end.nic.vlan)
        }
        self._routers = {
            network.vlan: zone
            for name, network in declared.topology.networks.items()
            if (zone := routing.zone(name)) is not None
        }
        self._networks |= {
            zone_of(router, declared.topology.networks): f"router {name}"
            for name, router in declared.topology.routers.items()
        }
        self._own = {(end.name, end.address) for end in ends}
        self._outside = of_fabric(declared.topology, declared.inventory)
        ways_out = edges(declared.topology, declared.inventory)
        self._edges = {edge.zone: edge.name for edge in ways_out}
        self._edge_ports = {edge.nic.port: edge.name for edge in ways_out}
        self._identities = declared.compiled.identities
        self._judge = lru_cache(RULES_KEPT)(self._judged)
        self._by_identity: dict[tuple[int, int, int, int, int], Let] = {}

    def nic(self, port: int) -> Nic | None:
        """The NIC of a port."""
        return self._by_port.get(port)

    def ports(self) -> Mapping[int, str]:
        """The names of all NICs by port."""
        return {**self._edge_ports, **{port: nic.name for port, nic in self._by_port.items()}}

    def network(self, vlan: int) -> str:
        """The name of a network by its VLAN, `router gw` by that one's zone; `VLAN 7` if there is none."""
        return self._networks.get(vlan) or f"VLAN {vlan}"

    def end(self, vlan: int, at: IPAddress) -> Endpoint | None:
        """Whose address it is, on the network of a VLAN or by its router in another one.

        Of one that several NICs may have, the first of them by name.
        """
        zones = vlan, self._routers.get(vlan, vlan)
        found = (self._ends.get((zone, at.version, int(at))) for zone in zones)
        return next(filter(None, found), None) or next(
            filter(None, (self._beyond(z, at) for z in zones)), None
        )

    def _beyond(self, zone: int, at: IPAddress) -> Endpoint | None:
        """Who outside has an address, by a network's cable or a router's exit."""
        return self._outside.at(self._edges[zone], at) if zone in self._edges else None

    def name(self, vlan: int, at: IPAddress | None) -> str | None:
        """The NIC (`web-1.eth0`) that has an address; of who is outside `internet` or `host`."""
        end = self.end(vlan, at) if at is not None else None
        return (end.vm.name if end.is_outside else end.name) if end else None

    def has(self, nic: Nic, at: IPAddress) -> bool:
        """Whether the address is one of the NIC's own, or its profile allows it."""
        return (nic.name, at) in self._own

    def let(self, one: Tracked) -> Let | None:
        """What the policies say of a connection; None where one of its ends is not of the fabric.

        Where a default says no, it may be that of another VM that no policy tells apart.
        """
        client, server = (self._in_zone(one.zone, one.version, each) for each in (one.client, one.server))
        if client is None or server is None or client.name == server.name:
            return None
        return self._let(client, server, one.protocol, one.service_port or 0)

    def _in_zone(self, zone: int, version: int, number: int) -> Endpoint | None:
        address = IPv4Address(number) if version == 4 else IPv6Address(number)
        return self._ends.get((zone, version, number)) or self._beyond(zone, address)

    def _let(self, client: Endpoint, server: Endpoint, protocol: int, port: int) -> Let:
        """Ends that no policy tells apart have the same rule; but an audited default names its VM."""
        one, other = (self._identities.number(end) for end in (client, server))
        key = one, other, client.address.version, protocol, port
        known = self._by_identity.get(key)
        if known is None:
            known = self._judge(client, server, protocol, port)
            if len(self._by_identity) < RULES_KEPT:
                self._by_identity[key] = known
        return known if known.by.policy or not known.allowed else self._judge(client, server, protocol, port)

    def _judged(self, client: Endpoint, server: Endpoint, protocol: int, port: int) -> Let:
        is_icmp = protocol in (ICMP, ICMPV6)
        packet = Packet(
            client.name,
            client.address,
            server.name,
            server.address,
            protocol,
            target_port=0 if is_icmp else port,
            icmp_type=REQUEST_TYPE[protocol] if is_icmp else 0,
            admitted=True,
        )
        return _let(judged(self._topology, client, server, packet))


def _let(verdict: Verdict) -> Let:
    """An audited refusal by either side makes it audited, and is what is told."""
    said = (verdict.egress, verdict.origin)
    audited = next((each for each in said if each is not None and each.lets is Lets.AUDITED), None)
    return Let(decided_by(audited or verdict.origin), verdict.allowed, audited is not None)
