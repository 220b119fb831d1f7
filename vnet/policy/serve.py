"""What guests may ask of their network's own server, and what it may answer: tables 0 to 5.

The server has the gateway's address and MAC and a port of its own. Requests for an address and for routers,
which come from senders who may have none yet, and their answers go through table 2 like other neighbours'
talk; questions for names and pings are connections that guests open and the server only answers.

Where the file names forwarders, the server is a client too: its questions for names go to them, and nothing
else, by the router, whose connections they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv6Address

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP
from vnet.openflow.flow import Conntrack, DecIpTtl, Match, Output, PopVlan, SetField, match
from vnet.policy import guard, origin
from vnet.policy.endpoint import IPAddress, link_local
from vnet.policy.entry import Entry, entry, vlan
from vnet.policy.guard import ADVERTISEMENT, DHCP, DHCPV6, ROUTER_ADVERTISEMENT, nic_origin
from vnet.policy.origin import Origin
from vnet.policy.pipeline import (
    ANSWERS,
    ASKS,
    FROM_FORWARDER,
    FROM_SERVICE,
    NEIGHBOUR_KIND,
    OUT_PORT,
    ROUTER,
    SERVED,
    TO_FORWARDER,
    TO_SERVICE,
    Stage,
)
from vnet.policy.segment import ALL_NODES, BROADCAST, OWNED, neighbour
from vnet.policy.track import ECHO, RELATED_STATE, REPLY_STATE, REQUEST_STATE
from vnet.topology.inventory import Nic, ServicePort
from vnet.topology.model import Advertised, Network, Topology
from vnet.topology.routing import OUTSIDE_VLAN, Routing

ALL_ROUTERS, ALL_DHCP = 0x3333_0000_0002, 0x3333_0001_0002
"""The MACs of ff02::2 and of ff02::1:2 (RFC 2464, section 7; RFC 8415, section 7.1)."""
ROUTER_SOLICITATION = 133
DNS_PORT = 53

# Priorities: in table 1 above what no guest may send; in tables 4 and 5 above what is between guests.
ASKED, SERVER, SERVER_REST, DECIDED, DECIDED_REST = 750, 110, 105, 600, 590
PAST_ROUTER = 850
"""In table 3: above what a gateway answers itself (`gateway.OWN`)."""
TOLD = 120
"""In table 4: above what the server is asked."""


@dataclass(frozen=True, slots=True)
class Beyond:
    """Who is asked for the names that a server does not know, and the router by which.

    `tags` are by forwarder the VLAN in which its answers come; `zone` is that of the router's connections.
    """

    zone: int
    tags: Mapping[IPAddress, int]


def beyond(network: Network, topology: Topology) -> Beyond | None:
    """The forwarders of a network; None if it has none."""
    routing = Routing(topology)
    router, zone = routing.router(network.name), routing.zone(network.name)
    if not network.forwarders or router is None or zone is None:
        return None
    ways = {each: routing.lead(router, each) for each in network.forwarders}
    vlans = {
        each: OUTSIDE_VLAN if way is None else topology.networks[way.network].vlan
        for each, way in ways.items()
    }
    return Beyond(zone, vlans)


def has_dhcp(network: Network, version: int) -> bool:
    """Whether guests are told addresses of that version of IP when they ask."""
    return any(each.dhcp is not None and each.subnet.version == version for each in network.served)


def is_advertised(network: Network) -> bool:
    """Whether routers are advertised."""
    return any(each.ra is not Advertised.NONE for each in network.served)


# ---- what guests ask -------------------------------------------------------------------------


def asks(nic: Nic, own: Iterable[IPAddress], network: Network, server_mac: int) -> Iterator[Entry]:
    """Tables 1 and 2: this NIC asks for addresses and routers, and gets the answers."""
    why = nic_origin(nic, "asks", f"{nic.name} may ask the server of its network")
    for where in _asking(nic, tuple(own), network, server_mac):
        note = SetField(NEIGHBOUR_KIND, ASKS)
        yield entry(Stage.SOURCE_GUARD, ASKED, where, why, note, goto=Stage.NEIGHBOUR)
    if network.served:
        answer = match(vlan_vid=vlan(nic.vlan), eth_dst=nic.mac, **{NEIGHBOUR_KIND: ANSWERS})
        told = nic_origin(nic, "answered", f"{nic.name} is answered by the server of its network")
        yield entry(Stage.NEIGHBOUR, OWNED, answer, told, PopVlan(), Output(nic.port))


def _asking(nic: Nic, own: tuple[IPAddress, ...], network: Network, server_mac: int) -> Iterator[Match]:
    sender = {"in_port": nic.port, "eth_src": nic.mac}
    if has_dhcp(network, 4):
        server, client = DHCP
        ports = {"eth_type": ETH_IPV4, "ip_proto": UDP, "udp_src": client, "udp_dst": server}
        for source in (0, *(int(each) for each in own if each.version == 4)):
            for target in (BROADCAST, server_mac):
                yield match(**sender, eth_dst=target, **ports, ipv4_src=source)
    addresses = [int(each) for each in own if each.version == 6]
    if has_dhcp(network, 6):
        server, client = DHCPV6
        ports = {"eth_type": ETH_IPV6, "ip_proto": UDP, "udp_src": client, "udp_dst": server}
        for source in addresses:
            for target in (ALL_DHCP, server_mac):
                yield match(**sender, eth_dst=target, **ports, ipv6_src=source)
    if is_advertised(network):
        asking = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": ROUTER_SOLICITATION}
        for source in (0, *addresses):
            yield match(**sender, eth_dst=ALL_ROUTERS, **asking, ipv6_src=source)


# ---- the server ------------------------------------------------------------------------------


def service(
    server: ServicePort,
    network: Network,
    is_routed: bool,
    ports: Iterable[int],
    beyond: Beyond | None = None,
) -> Iterator[Entry]:
    """Everything about one network's server but what each NIC asks.

    Args:
        is_routed: whether the gateway's address is answered for by a router; then it is not by the server.
        ports: those of the network's NICs.
        beyond: whom the server asks itself.
    """
    nic = _as_nic(server)
    own = tuple(each.ip for each in server.addresses)
    if any(subnet.version == 6 for subnet in network.subnets):
        own = (*own, link_local(server.mac))
    yield from guard.admit(nic, None if beyond is None else beyond.zone)
    yield from _speaks(nic, own, network)
    yield from _is_found(nic, own, network, is_routed)
    yield from _reaches_all(nic, network, sorted(ports))
    for address in own:
        yield from _is_asked(nic, address, network, is_routed)
        if not is_routed:
            yield _nothing_else(nic, address)
    if beyond is not None:
        yield from _asks_forwarders(nic, beyond)


def _as_nic(server: ServicePort) -> Nic:
    """The server as the NIC that it is to the switch: never isolated."""
    name = f"service {server.network}"
    return Nic(
        name, "", "", server.network, server.vlan, server.port, server.mac, server.addresses, server.at
    )


def _speaks(nic: Nic, own: tuple[IPAddress, ...], network: Network) -> Iterator[Entry]:
    """Table 1: what the server may send."""
    why = nic_origin(nic, "answers", f"the server of {nic.network} answers")
    sender = {"in_port": nic.port, "eth_src": nic.mac}
    for address in own:
        source = _source(address)
        for what in _answers(address, network):
            where = match(**sender, **source, **what)
            note = SetField(NEIGHBOUR_KIND, ANSWERS)
            yield entry(Stage.SOURCE_GUARD, ASKED, where, why, note, goto=Stage.NEIGHBOUR)
        note = SetField(SERVED, FROM_SERVICE)
        where = match(**sender, **source)
        yield entry(Stage.SOURCE_GUARD, guard.OWN, where, why, note, goto=Stage.DESTINATION)
    yield from guard.own_neighbours(nic, own, why)
    yield from guard.forged(nic, ", ".join(map(str, own)))
    yield guard.other_macs(nic, [nic.mac])


def _source(address: IPAddress) -> dict[str, int]:
    if address.version == 4:
        return {"eth_type": ETH_IPV4, "ipv4_src": int(address)}
    return {"eth_type": ETH_IPV6, "ipv6_src": int(address)}


def _answers(address: IPAddress, network: Network) -> Iterator[dict[str, int]]:
    """The kinds of answers that go to who may have no address yet. Those over IPv6 are link-local."""
    if has_dhcp(network, 4) and address.version == 4:
        yield {"ip_proto": UDP, "udp_src": DHCP[0], "udp_dst": DHCP[1]}
    if not isinstance(address, IPv6Address) or not address.is_link_local:
        return
    if has_dhcp(network, 6):
        yield {"ip_proto": UDP, "udp_src": DHCPV6[0], "udp_dst": DHCPV6[1]}
    if is_advertised(network):
        yield {"ip_proto": ICMPV6, "icmpv6_type": ROUTER_ADVERTISEMENT}


def _is_found(nic: Nic, own: tuple[IPAddress, ...], network: Network, is_routed: bool) -> Iterator[Entry]:
    """Table 2: who asks for the server's addresses is led to it, unless a router answers for them."""
    yield from neighbour(nic, [] if is_routed else own)
    why = nic_origin(nic, "asked", f"the server of {nic.network} is asked")
    if is_routed and any(each.version == 6 for each in own):
        found = match(
            vlan_vid=vlan(nic.vlan),
            eth_type=ETH_IPV6,
            ip_proto=ICMPV6,
            icmpv6_type=ADVERTISEMENT,
            eth_dst=nic.mac,
        )
        yield entry(Stage.NEIGHBOUR, OWNED, found, why, PopVlan(), Output(nic.port))
    if network.served:
        asked = match(vlan_vid=vlan(nic.vlan), **{NEIGHBOUR_KIND: ASKS})
        yield entry(Stage.NEIGHBOUR, OWNED, asked, why, PopVlan(), Output(nic.port))


def _reaches_all(nic: Nic, network: Network, ports: list[int]) -> Iterator[Entry]:
    """Table 2: answers to who has no address, and advertisements."""
    if not network.served or not ports:
        return
    why = nic_origin(nic, "told", f"all of network {nic.network} are told")
    for target in (BROADCAST, ALL_NODES):
        where = match(vlan_vid=vlan(nic.vlan), eth_dst=target, **{NEIGHBOUR_KIND: ANSWERS})
        yield entry(Stage.NEIGHBOUR, OWNED, where, why, PopVlan(), *map(Output, ports))


def _is_asked(nic: Nic, address: IPAddress, network: Network, is_routed: bool) -> Iterator[Entry]:
    """Table 4: questions for names, and pings. A router answers pings itself, and lets questions pass."""
    why = nic_origin(nic, "served", f"the server of {nic.network} is asked")
    to = {"vlan_vid": vlan(nic.vlan), "eth_dst": nic.mac, **_target(address)}
    kinds = [{"ip_proto": UDP, "udp_dst": DNS_PORT}, {"ip_proto": TCP, "tcp_dst": DNS_PORT}]
    questions = kinds if network.domain else []
    if is_routed:
        for kind in questions:
            yield entry(Stage.ROUTE, PAST_ROUTER, match(**to, **kind), why, goto=Stage.DESTINATION)
    protocol = ICMP if address.version == 4 else ICMPV6
    echo = {"ip_proto": protocol, ECHO[protocol][1]: ECHO[protocol][2]}
    known = SetField(SERVED, TO_SERVICE), SetField(OUT_PORT, nic.port)
    track = Conntrack(zone=nic.vlan, table=int(Stage.CONNECTION))
    for kind in (*questions, *([] if is_routed else [echo])):
        yield entry(Stage.DESTINATION, SERVER, match(**to, **kind), why, *known, track)


def _target(address: IPAddress) -> dict[str, int]:
    if address.version == 4:
        return {"eth_type": ETH_IPV4, "ipv4_dst": int(address)}
    return {"eth_type": ETH_IPV6, "ipv6_dst": int(address)}


def _nothing_else(nic: Nic, address: IPAddress) -> Entry:
    text = f"the server of {nic.network} answers DHCP, DNS and pings only, as far as the network has them"
    why = nic_origin(nic, "unserved", text, DropReason.NO_DST)
    where = match(vlan_vid=vlan(nic.vlan), eth_dst=nic.mac, **_target(address))
    return entry(Stage.DESTINATION, SERVER_REST, where, why)


def _asks_forwarders(nic: Nic, beyond: Beyond) -> Iterator[Entry]:
    """Tables 1, 3 and 4: questions for names to the forwarders, and what these answer."""
    for forwarder in beyond.tags:
        why = nic_origin(
            nic, f"forwards {forwarder}", f"the server of {nic.network} asks {forwarder} for names"
        )
        for own in (each.ip for each in nic.addresses if each.ip.version == forwarder.version):
            to = {**_source(own), **_target(forwarder)}
            for protocol, name in ((UDP, "udp"), (TCP, "tcp")):
                asked = {"in_port": nic.port, "eth_src": nic.mac, "eth_dst": nic.mac, **to}
                where = match(**asked, ip_proto=protocol, **{f"{name}_dst": DNS_PORT})
                note = SetField(SERVED, TO_FORWARDER)
                yield entry(Stage.SOURCE_GUARD, guard.OWN + 1, where, why, note, goto=Stage.ROUTE)
    versions = {(tag, forwarder.version) for forwarder, tag in beyond.tags.items()}
    why = nic_origin(nic, "told names", f"the server of {nic.network} is told names that it asked for")
    for own in (each.ip for each in nic.addresses):
        for tag in sorted(each for each, version in versions if version == own.version):
            yield from _is_answered(nic, own, tag, beyond.zone, why)
        if any(version == own.version for _, version in versions):
            where = match(
                vlan_vid=vlan(nic.vlan), eth_dst=nic.mac, **_target(own), **{SERVED: FROM_FORWARDER}
            )
            track = Conntrack(zone=beyond.zone, table=int(Stage.CONNECTION))
            yield entry(Stage.DESTINATION, TOLD, where, why, SetField(OUT_PORT, nic.port), track)


def _is_answered(nic: Nic, own: IPAddress, tag: int, zone: int, why: Origin) -> Iterator[Entry]:
    """Table 3: from another network into that of the server, past the gateway whose address it has."""
    for protocol, name in ((UDP, "udp"), (TCP, "tcp")):
        to = {ROUTER: zone, "vlan_vid": vlan(tag), "eth_dst": nic.mac, **_target(own)}
        where = match(**to, ip_proto=protocol, **{f"{name}_src": DNS_PORT})
        onward = SetField("vlan_vid", vlan(nic.vlan)), SetField("eth_src", nic.mac), DecIpTtl()
        note = SetField(SERVED, FROM_FORWARDER)
        yield entry(Stage.ROUTE, PAST_ROUTER, where, why, *onward, note, goto=Stage.DESTINATION)


def connection() -> Iterator[Entry]:
    """Table 5: guests open connections to the server, and it answers; no policy is asked.

    Nor is one where the server asks a forwarder.
    """
    asked = origin.fabric("service asked", "to the network's own server: always permitted")
    answered = origin.fabric("service answers", "an answer of the network's own server: always permitted")
    forwards = origin.fabric(
        "service forwards", "the network's own server asks a forwarder: as the file says"
    )
    told = origin.fabric("service told", "a forwarder answers the network's own server: as the file says")
    text = "the network's own server opens no connections, and answers only what it was asked"
    rest = origin.fabric("service rest", text, DropReason.INVALID_STATE)
    states = {
        TO_SERVICE: ((REQUEST_STATE, asked),),
        FROM_SERVICE: ((REPLY_STATE, answered), (RELATED_STATE, answered)),
        TO_FORWARDER: ((REQUEST_STATE, forwards),),
        FROM_FORWARDER: ((REPLY_STATE, told),),
    }
    for side, known in states.items():
        for state, why in known:
            where = match(ct_state=state, **{SERVED: side})
            yield entry(Stage.CONNECTION, DECIDED, where, why, goto=Stage.DELIVER)
        yield entry(Stage.CONNECTION, DECIDED_REST, match(**{SERVED: side}), rest)
