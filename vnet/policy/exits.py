"""The ways out of routers, in flows of tables 0 to 4: what comes from an exit, and what leaves by it.

All translation of addresses is behind the exit: the switch sees those of both ends. Between tables 0 and 50
what is beyond exits has a tag of its own (`OUTSIDE_VLAN`), as if it were one more network of the router.
"""

from __future__ import annotations

from collections.abc import Iterator

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_ARP, ICMPV6
from vnet.openflow.flow import Conntrack, DecIpTtl, IcmpError, Match, PushVlan, Reject, SetField, match
from vnet.policy.endpoint import Block, IPAddress
from vnet.policy.entry import ANY_TAG, Entry, entry, eth_type, prefix, vlan
from vnet.policy.gateway import BEYOND, NO_HOPS_LEFT, NO_ROUTE
from vnet.policy.guard import ADVERTISEMENT, ND_OWN, OTHER_TYPE, OWN, SOLICITATION
from vnet.policy.identity import OUTSIDE, peer_of, subject_of
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.outside import Edge
from vnet.policy.pipeline import (
    CLIENT,
    CLIENT_PEER,
    OUT_PORT,
    ROUTER,
    SERVER,
    SERVER_PEER,
    Stage,
)
from vnet.topology.model import Topology
from vnet.topology.routing import OUTSIDE_VLAN, Routing, gateway_mac

# Priorities. In table 3 the default way comes after all prefixes of routers and before "no route"; what is in
# no case outside lies above it. In table 4 blocks begin at BLOCK and go up as they lie in each other.
NEVER, BLOCK = OWN + 50, 10
NEAR, NOT_THROUGH, NOT_OUTSIDE, DEFAULT = BEYOND + 10, 90, 70, 60

Numbered = tuple[tuple[Block, int], ...]
"""The blocks beyond an edge, and their identities."""


def leads_out(edge: Edge, numbered: Numbered, topology: Topology) -> Iterator[Entry]:
    """All flows of one exit."""
    yield from _admit(edge)
    yield from _source_guard(edge, numbered)
    yield from _Ways(edge, topology).entries()
    for block, identity in numbered:
        yield _destination(edge, block, identity, gateway_mac(topology.name))


def _origin(edge: Edge, what: str, text: str, reason: DropReason = DropReason.NONE) -> Origin:
    key = f"exit {edge.router} {what}"
    return Origin(OriginKind.ROUTER, key, f"the way out of router {edge.router}: {text}", edge.nic.at, reason)


def _admit(edge: Edge) -> Iterator[Entry]:
    """Table 0: only the gateway behind the exit sends, without a tag."""
    port = edge.nic.port
    into = _origin(edge, "admit", "packets from outside")
    tag = PushVlan(), SetField("vlan_vid", vlan(OUTSIDE_VLAN)), SetField(ROUTER, edge.zone)
    untagged = match(in_port=port, vlan_vid=0, eth_src=edge.nic.mac)
    yield entry(Stage.ADMIT, 200, untagged, into, *tag, goto=Stage.SOURCE_GUARD)
    tagged = _origin(edge, "tagged", "no VLAN tags", DropReason.VLAN_NOT_ALLOWED)
    yield entry(Stage.ADMIT, 100, match(in_port=port, vlan_vid=ANY_TAG), tagged)
    unknown = _origin(edge, "spoof_mac", "only from the gateway's MAC", DropReason.SPOOF_MAC)
    yield entry(Stage.ADMIT, 90, match(in_port=port), unknown)


def _source_guard(edge: Edge, numbered: Numbered) -> Iterator[Entry]:
    """Table 1: nothing comes from an address of the fabric, and no neighbour is asked for."""
    sender = {"in_port": edge.nic.port, "vlan_vid": vlan(OUTSIDE_VLAN)}
    outside = _origin(edge, "source", "from outside")
    for block, identity in numbered:
        known = SetField(CLIENT, subject_of(identity)), SetField(CLIENT_PEER, peer_of(identity))
        where = match(**sender, **prefix("src", block.prefix))
        priority = NEVER + 1 if _is_single(edge, block) else OWN + block.depth
        yield entry(Stage.SOURCE_GUARD, priority, where, outside, *known, goto=Stage.ROUTE)
    forged = _origin(edge, "spoof_ip", "these addresses are not outside", DropReason.SPOOF_IP)
    for network in edge.never:
        where = match(**sender, **prefix("src", network))
        yield entry(Stage.SOURCE_GUARD, NEVER, where, forged)
    yield from _nothing_else(edge, sender)


def _nothing_else(edge: Edge, sender: dict[str, int]) -> Iterator[Entry]:
    static = "the gateway knows its neighbour, and asks for none"
    discovery = _origin(edge, "spoof_nd", static, DropReason.SPOOF_ND)
    for kind in (SOLICITATION, ADVERTISEMENT):
        asked = match(**sender, eth_type=eth_type(6), ip_proto=ICMPV6, icmpv6_type=kind)
        yield entry(Stage.SOURCE_GUARD, ND_OWN, asked, discovery)
    arp = _origin(edge, "spoof_arp", static, DropReason.SPOOF_ARP)
    yield entry(Stage.SOURCE_GUARD, OWN, match(**sender, eth_type=ETH_ARP), arp)
    other = _origin(edge, "ethertype", "IPv4 and IPv6 only", DropReason.ETHERTYPE)
    yield entry(Stage.SOURCE_GUARD, OTHER_TYPE, match(**sender), other)


def _is_single(edge: Edge, block: Block) -> bool:
    """Whether it is one of the addresses that are outside although their neighbours are not."""
    alone = block.prefix.network_address
    return block.prefix.prefixlen == block.prefix.max_prefixlen and alone in (*edge.host, *edge.near)


class _Ways:
    """Table 3: what networks of the router send out, and what they do not."""

    def __init__(self, edge: Edge, topology: Topology) -> None:
        self._edge, self._mac = edge, gateway_mac(topology.name)
        routing = Routing(topology)
        networks = topology.routers[edge.router].networks
        gateways = [each for name in networks for each in routing.gateways(name)]
        self._own: dict[int, IPAddress] = {each.version: each for each in reversed(gateways)}
        """In whose name errors are told, by version of IP."""

    def entries(self) -> Iterator[Entry]:
        edge = self._edge
        out = _origin(edge, "way", "everything that is for nobody in the fabric")
        for version in self._own:
            yield self._on(DEFAULT, match(**self._sent(version)), out, version)
            yield self._not_through(version)
        for address in (*edge.host, *edge.near):
            if address.version == 4 in self._own:  # link-local, so it needs a way of its own
                there = self._sent(4) | {"ipv4_dst": int(address)}
                yield self._on(NEAR, match(**there), out, 4)
                yield self._not_through(4, NEAR + 1, **there)
        text = "these addresses are of no network of this router, and not outside"
        nowhere = _origin(edge, "no route", text, DropReason.NO_ROUTE)
        for network in edge.never:
            if network.version in self._own:
                where = match(**self._sent(network.version) | prefix("dst", network))
                yield self._refused(NOT_OUTSIDE, where, nowhere, network.version)

    def _sent(self, version: int) -> dict[str, int | tuple[int, int]]:
        """What is for the MAC of a gateway of this router, from any of its networks."""
        for_gateway = {"eth_dst": self._mac, "eth_type": eth_type(version)}
        return {ROUTER: self._edge.zone, "vlan_vid": ANY_TAG, **for_gateway}

    def _on(self, priority: int, where: Match, why: Origin, version: int) -> Entry:
        hop = DecIpTtl(IcmpError(version, *NO_HOPS_LEFT[version], int(self._own[version])))
        onward = SetField("vlan_vid", vlan(OUTSIDE_VLAN)), SetField("eth_src", self._mac), hop
        return entry(Stage.ROUTE, priority, where, why, *onward, goto=Stage.DESTINATION)

    def _not_through(
        self, version: int, priority: int = NOT_THROUGH, **fields: int | tuple[int, int]
    ) -> Entry:
        """Nobody outside reaches anybody outside through the fabric."""
        through = _origin(self._edge, "through", "not back to the outside", DropReason.NO_ROUTE)
        where = match(**self._sent(version) | fields | {CLIENT: OUTSIDE})
        return self._refused(priority, where, through, version)

    def _refused(self, priority: int, where: Match, why: Origin, version: int) -> Entry:
        error = IcmpError(version, *NO_ROUTE[version], int(self._own[version]))
        return entry(Stage.ROUTE, priority, where, why, Reject(error))


def _destination(edge: Edge, block: Block, identity: int, gateway: int) -> Entry:
    """Table 4: who it is for, by address alone."""
    where = match(
        **{ROUTER: edge.zone},
        vlan_vid=vlan(OUTSIDE_VLAN),
        eth_dst=gateway,
        **prefix("dst", block.prefix),
    )
    known = (
        SetField("eth_dst", edge.nic.mac),
        SetField(SERVER, subject_of(identity)),
        SetField(SERVER_PEER, peer_of(identity)),
        SetField(OUT_PORT, edge.nic.port),
    )
    track = Conntrack(zone=edge.zone, table=int(Stage.CONNECTION))
    out = _origin(edge, "destination", "the receiver is outside")
    return entry(Stage.DESTINATION, BLOCK + block.depth, where, out, *known, track)
