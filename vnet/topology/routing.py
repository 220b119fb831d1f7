"""Which way packets go between networks: routers, their gateways, the longest prefix.

A router is nothing but what the switch does with packets for a gateway's MAC. That MAC is the same in all
networks of a fabric.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

from vnet.topology.model import IPAddress, IPNetwork, Network, Route, Router, Topology

_PREFIX = 0x02766E
"""Of the MACs of gateways: locally administered, unicast; never that of a NIC which got none of its own."""
ZONES = 0x1000
"""Zones of the connection tracker below are those of networks: their VLANs."""
OUTSIDE_VLAN = 4095
"""Inside the switch, the tag of what is beyond the uplinks of routers: no network can have it (802.1Q)."""


def gateway_mac(fabric: str) -> int:
    """The MAC of all gateways of a fabric: 02:76:6e and three bytes that depend on its name only."""
    return _PREFIX << 24 | int.from_bytes(blake2b(fabric.encode(), digest_size=3).digest(), "big")


def zone_of(router: Router, networks: Mapping[str, Network]) -> int:
    """The zone of the connections that a router carries, both ways: that of its first network, moved."""
    return ZONES | networks[router.networks[0]].vlan


@dataclass(frozen=True, slots=True)
class Way:
    """Where a router sends packets for a prefix: into a network, to whoever has an address.

    `via` is who carries them further; None if those who have the addresses are there themselves.
    """

    prefix: IPNetwork
    network: str
    via: IPAddress | None = None
    route: Route | None = None


class Routing:
    """The routers of a topology, ready to be asked."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._routers = {name: each for each in topology.routers.values() for name in each.networks}

    def router(self, network: str) -> Router | None:
        """The router that a network is in."""
        return self._routers.get(network)

    def zone(self, network: str) -> int | None:
        """The zone of the connections that its router carries; None without a router."""
        router = self._routers.get(network)
        return None if router is None else zone_of(router, self._topology.networks)

    def zones(self, network: str, vlan: int) -> tuple[int, ...]:
        """The zones in which the connections of a network's NICs are: its own, and its router's."""
        router = self.zone(network)
        return (vlan,) if router is None else (vlan, router)

    def are_joined(self, one: str, other: str) -> bool:
        """Whether packets can come from one network into the other."""
        router = self._routers.get(one)
        return one == other or (router is not None and router is self._routers.get(other))

    def gateways(self, network: str) -> tuple[IPAddress, ...]:
        """The addresses that a network's router has there; () without a router."""
        if network not in self._routers:
            return ()
        declared = self._topology.networks[network]
        found = (declared.gateway(subnet) for subnet in declared.subnets)
        return tuple(each for each in found if each is not None)

    def next_hops(self, network: str) -> tuple[IPAddress, ...]:
        """To whom the NICs of a network send what is for other networks.

        That is its router; or, on a cable without one, whoever beyond has the gateways of the file.
        """
        declared = self._topology.networks[network]
        on_cable = any(network in uplink.networks for uplink in self._topology.uplinks.values())
        beyond = declared.gateways if on_cable and not declared.has_services else ()
        return self.gateways(network) or beyond

    def ways(self, router: Router) -> tuple[Way, ...]:
        """All ways of a router, the longest prefixes first."""
        return self._ways[router.name]

    def way(self, network: str, target: IPAddress) -> Way | None:
        """Where packets for an address go that come to the gateway of a network; None for nowhere.

        They do not go back into the network that they come from: who is there is reached without a router. A
        network without a subnet of their version of IP has no gateway that could take them.
        """
        router = self._routers.get(network)
        has_gateway = any(each.version == target.version for each in self.gateways(network))
        found = self.lead(router, target) if router is not None and has_gateway else None
        return None if found is None or found.network == network else found

    def leaves(self, network: str, target: IPAddress) -> bool:
        """Whether packets of a network for an address that is outside leave by its router's uplink.

        A network without a subnet of their version of IP has no gateway; routes of the router's own go first.
        """
        router = self._routers.get(network)
        if router is None or not router.uplink:
            return False
        has_gateway = any(each.version == target.version for each in self.gateways(network))
        return has_gateway and self.lead(router, target) is None

    def lead(self, router: Router, target: IPAddress) -> Way | None:
        """The way of a router to an address, from wherever; None for nowhere."""
        if target.is_link_local or target.is_multicast:
            return None
        return next((way for way in self._ways[router.name] if target in way.prefix), None)

    @cached_property
    def _ways(self) -> Mapping[str, tuple[Way, ...]]:
        return {
            name: tuple(sorted(self._all(router), key=lambda way: -way.prefix.prefixlen))
            for name, router in self._topology.routers.items()
        }

    def _all(self, router: Router) -> Iterator[Way]:
        networks = [self._topology.networks[name] for name in router.networks]
        for network in networks:
            yield from (Way(subnet, network.name) for subnet in network.subnets)
        for route in router.routes:
            for network in networks:
                if any(route.via in subnet for subnet in network.subnets):
                    yield Way(route.to, network.name, route.via, route)
