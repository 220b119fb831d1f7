"""What routers do, in flows: gateways answer who has their address, and send packets on into other networks.

In all networks they have one MAC. Packets for it meet table 3, all others pass it by.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_ARP, ETH_IPV6, ICMP, ICMPV6
from vnet.openflow.flow import (
    Action,
    Advertise,
    DecIpTtl,
    IcmpError,
    Match,
    Move,
    Output,
    PopVlan,
    Port,
    Reject,
    SetField,
    SetIpTtl,
    match,
)
from vnet.policy.endpoint import IPAddress, link_local
from vnet.policy.entry import ANY_TAG, Entry, entry, eth_type, miss, prefix, vlan
from vnet.policy.guard import REPLY, REQUEST, SOLICITATION
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.origin import fabric as fabric_origin
from vnet.policy.outside import LINK, MANY
from vnet.policy.pipeline import ROUTER, Stage
from vnet.policy.segment import OWNED
from vnet.topology.model import Router, Topology
from vnet.topology.routing import Routing, Way, gateway_mac, zone_of

# Priorities of table 3. A way has that of its prefix: no prefix of IPv6 is longer than 128 bits.
NO_GATEWAY, ECHO, OWN, BEYOND, WAY, NO_WAY = 1000, 900, 800, 700, 100, 50
UNREACHED = 60
"""In table 4: below those who are there, above what is for many."""
HOPS = 64
"""The TTL of what a gateway itself sends."""

# Type and code: RFC 792 and RFC 1812, section 5; RFC 4443, section 3.
NO_ROUTE = {4: (3, 0), 6: (1, 0)}
NO_HOST = {4: (3, 1), 6: (1, 3)}
NO_PORT = {4: (3, 3), 6: (1, 4)}
NO_HOPS_LEFT = {4: (11, 0), 6: (3, 0)}
BEYOND_SCOPE = (1, 2)

_ECHO = {4: ("icmpv4", ICMP, 8, 0), 6: ("icmpv6", ICMPV6, 128, 129)}
"""Fields, protocol, request and reply."""


def gateways(topology: Topology) -> Iterator[Entry]:
    """All flows of the routers that do not depend on who is there."""
    if not topology.routers:
        return
    routing, mac = Routing(topology), gateway_mac(topology.name)
    for router in topology.routers.values():
        yield from _Gateways(topology, routing, router, mac).entries()
    for networks, what in ((LINK, "link-local"), (MANY, "multicast")):
        where = fabric_origin(f"route {what}", f"{what} addresses are not routed", DropReason.NO_ROUTE)
        for network in networks:
            beyond = match(eth_dst=mac, **prefix("dst", network))
            yield entry(Stage.ROUTE, BEYOND, beyond, where)
    direct = fabric_origin("route", "it is for somebody in its own network")
    yield miss(Stage.ROUTE, direct, goto=Stage.DESTINATION)


class _Gateways:
    """Those of one router."""

    def __init__(self, topology: Topology, routing: Routing, router: Router, mac: int) -> None:
        self._topology, self._routing, self._router, self._mac = topology, routing, router, mac
        self._zone = zone_of(router, topology.networks)

    def entries(self) -> Iterator[Entry]:
        has_ipv6 = False
        for network in self._router.networks:
            tag = vlan(self._topology.networks[network].vlan)
            by_version = {own.version: own for own in reversed(self._routing.gateways(network))}
            for own in self._routing.gateways(network):
                yield from self._neighbour(network, tag, own)
                yield from self._own(f"the gateway of network {network}", own)
            for own in by_version.values():
                yield from self._lost(network, tag, own)
            for version in {4, 6} - by_version.keys():
                text = f"network {network} has no IPv{version} gateway"
                none = self._origin(f"no IPv{version} gateway {network}", text, DropReason.NO_ROUTE)
                where = match(vlan_vid=tag, eth_dst=self._mac, eth_type=eth_type(version))
                yield entry(Stage.ROUTE, NO_GATEWAY, where, none)
            if 6 in by_version:
                yield from self._neighbour(network, tag, link_local(self._mac))
                has_ipv6 = True
        if has_ipv6:
            yield from self._own("every gateway", link_local(self._mac))
        for way in self._routing.ways(self._router):
            yield self._on(way)
            yield from self._back(way)

    def _origin(self, what: str, text: str, reason: DropReason = DropReason.NONE) -> Origin:
        router = self._router
        key = f"router {router.name} {what}"
        return Origin(OriginKind.ROUTER, key, f"router {router.name}: {text}", router.at, reason)

    # its own addresses

    def _neighbour(self, network: str, tag: int, own: IPAddress) -> Iterator[Entry]:
        """Table 2: who asks for the gateway's address is answered at once."""
        known = self._origin(f"neighbour {network}", f"the gateway of network {network} answers for itself")
        if own.version == 6:
            solicited = match(
                vlan_vid=tag,
                eth_type=ETH_IPV6,
                ip_proto=ICMPV6,
                icmpv6_type=SOLICITATION,
                ipv6_nd_target=int(own),
            )
            advertise = Advertise(self._mac), *self._back_to_sender()
            yield entry(Stage.NEIGHBOUR, OWNED, solicited, known, *advertise)
            return
        asked = match(vlan_vid=tag, eth_type=ETH_ARP, arp_op=REQUEST, arp_tpa=int(own))
        answer: tuple[Action, ...] = (
            SetField("arp_op", REPLY),
            Move("arp_sha", "arp_tha", 48),
            Move("arp_spa", "arp_tpa", 32),
            SetField("arp_sha", self._mac),
            SetField("arp_spa", int(own)),
        )
        yield entry(Stage.NEIGHBOUR, OWNED, asked, known, *answer, *self._back_to_sender())

    def _back_to_sender(self) -> tuple[Action, ...]:
        turned = Move("eth_src", "eth_dst", 48), SetField("eth_src", self._mac)
        return (*turned, PopVlan(), Output(Port.IN_PORT))

    def _own(self, who: str, own: IPAddress) -> Iterator[Entry]:
        """Table 3: a gateway answers echo requests, from all networks of its router, and nothing else."""
        where = self._for_gateway(own.version, **_address("dst", own))
        fields, protocol, request, reply = _ECHO[own.version]
        source, target = f"ipv{own.version}_src", f"ipv{own.version}_dst"
        echo = match(
            **where,
            vlan_vid=ANY_TAG,
            ip_proto=protocol,
            ip_frag=0,
            **{f"{fields}_type": request, f"{fields}_code": 0},
        )
        answer: tuple[Action, ...] = (
            Move(source, target, own.max_prefixlen),
            SetField(source, int(own)),
            SetField(f"{fields}_type", reply),
            SetIpTtl(HOPS),
        )
        alive = self._origin(f"echo {who}", f"{who} answers echo requests")
        yield entry(Stage.ROUTE, ECHO, echo, alive, *answer, *self._back_to_sender())
        text = f"{who} answers nothing but echo requests"
        closed = self._origin(f"closed {who}", text, DropReason.NO_DST)
        yield self._error(OWN, match(**where), closed, NO_PORT, own)

    # what goes no further

    def _lost(self, network: str, tag: int, own: IPAddress) -> Iterator[Entry]:
        """Tables 3 and 4: packets that the gateway of their network does not send on, and says why."""
        version = own.version
        where = {"vlan_vid": tag, "eth_dst": self._mac, "eth_type": eth_type(version)}
        nowhere = self._origin(f"no route {network}", "it has no route there", DropReason.NO_ROUTE)
        yield self._error(NO_WAY, match(**where), nowhere, NO_ROUTE, own)
        if version == 6:
            text = "packets from link-local addresses are not routed"
            local = self._origin(f"link-local {network}", text, DropReason.NO_ROUTE)
            sent = match(vlan_vid=tag, eth_dst=self._mac, **prefix("src", LINK[1]))
            yield self._error(BEYOND, sent, local, {6: BEYOND_SCOPE}, own)
        text = f"nobody in network {network} has that address"
        nobody = self._origin(f"no host {network}", text, DropReason.NO_DST)
        yield self._error(UNREACHED, match(**where), nobody, NO_HOST, own, Stage.DESTINATION)

    def _error(
        self,
        priority: int,
        where: Match,
        why: Origin,
        kind: dict[int, tuple[int, int]],
        own: IPAddress,
        stage: Stage = Stage.ROUTE,
    ) -> Entry:
        error = IcmpError(own.version, *kind[own.version], int(own))
        return entry(stage, priority, where, why, Reject(error))

    # ways

    def _on(self, way: Way) -> Entry:
        """Table 3: into another network, where table 4 finds who has the address."""
        tag = vlan(self._topology.networks[way.network].vlan)
        via = "" if way.via is None else f", by {way.via}"
        text = f"router {self._router.name}: {way.prefix} is in network {way.network}{via}"
        at = self._router.at if way.route is None else way.route.at
        known = Origin(OriginKind.ROUTER, f"router {self._router.name} way {way.prefix}", text, at)
        tagged: dict[str, int | tuple[int, int]] = {
            "vlan_vid": ANY_TAG,
            **self._for_gateway(way.prefix.version),
        }
        where = match(**{**tagged, **prefix("dst", way.prefix)})
        hop = DecIpTtl(self._hops_ended(way))
        onward = SetField("vlan_vid", tag), SetField("eth_src", self._mac), hop
        return entry(Stage.ROUTE, _priority(way), where, known, *onward, goto=Stage.DESTINATION)

    def _hops_ended(self, way: Way) -> IcmpError | None:
        """What is said, in the name of the gateway of the network it leads to, of what may go no hop more."""
        version = way.prefix.version
        own = (each for each in self._routing.gateways(way.network) if each.version == version)
        return next((IcmpError(version, *NO_HOPS_LEFT[version], int(each)) for each in own), None)

    def _back(self, way: Way) -> Iterator[Entry]:
        """Table 3: not into the network that they come from."""
        network, version = self._topology.networks[way.network], way.prefix.version
        gateways = (each for each in self._routing.gateways(way.network) if each.version == version)
        own = next(gateways, None)
        text = f"not back into network {way.network}, from which it comes"
        back = self._origin(f"back {way.network}", text, DropReason.NO_ROUTE)
        where = match(vlan_vid=vlan(network.vlan), eth_dst=self._mac, **prefix("dst", way.prefix))
        if own is not None:
            yield self._error(_priority(way) + 1, where, back, NO_ROUTE, own)

    def _for_gateway(self, version: int, **fields: int) -> dict[str, int]:
        """What is for the MAC of a gateway of this router, from any of its networks."""
        return {ROUTER: self._zone, "eth_dst": self._mac, "eth_type": eth_type(version), **fields}


def _priority(way: Way) -> int:
    return WAY + 2 * way.prefix.prefixlen


def _address(side: str, address: IPAddress) -> dict[str, int]:
    return {f"ipv{address.version}_{side}": int(address)}
