"""Tables 0 and 1: which network a packet belongs to, and whether its sender is who it says it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv6Address

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, UDP, Frag
from vnet.openflow.flow import Match, PushVlan, SetField, match
from vnet.policy import origin
from vnet.policy.endpoint import Endpoint, IPAddress
from vnet.policy.entry import ANY_TAG, Entry, entry, miss, vlan
from vnet.policy.identity import peer_of, subject_of
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.pipeline import (
    ANNOUNCE,
    APART,
    CLIENT,
    CLIENT_PEER,
    NEIGHBOUR_KIND,
    PROBE,
    ROUTER,
    SENDER_APART,
    Stage,
)
from vnet.topology.inventory import Nic

# Priorities of table 1, from what no guest may send to what one NIC may.
FRAGMENT, ROGUE, ND_OWN, ND_FORGED, OWN, FORGED, OTHER_TYPE, OTHER_MAC = (
    800,
    700,
    600,
    500,
    400,
    300,
    200,
    100,
)

ROUTER_ADVERTISEMENT, REDIRECT, REDIRECT_V4 = 134, 137, 5
SOLICITATION, ADVERTISEMENT = 135, 136
MULTICAST_TYPES = {
    130: "MLD query",
    131: "MLD report",
    132: "MLD done",
    133: "router solicitation",
    143: "MLDv2 report",
}
REQUEST, REPLY = 1, 2
LISTED = 8
"""So many addresses of a NIC are named where it may send from no others."""
DHCP, DHCPV6 = (67, 68), (547, 546)
"""Ports of servers and clients (RFC 2131, section 4.1; RFC 8415, section 7.2)."""


def nic_origin(nic: Nic, what: str, text: str, reason: DropReason = DropReason.NONE) -> Origin:
    """The origin of flows that a declared interface gave rise to."""
    return Origin(OriginKind.NIC, f"nic {nic.name} {what}", text, nic.at, reason)


def admit(nic: Nic, router: int | None) -> Iterator[Entry]:
    """Table 0: the NIC's untagged packets enter its network; a guest may not choose one by a tag.

    Args: `router` is the zone of the router that the network is in, if it is in one.
    """
    into = nic_origin(nic, "admit", f"{nic.name} is in network {nic.network} (VLAN {nic.vlan})")
    untagged = match(in_port=nic.port, vlan_vid=0)
    tag = (PushVlan(), SetField("vlan_vid", vlan(nic.vlan)))
    alone = (SetField(APART, SENDER_APART),) if nic.is_isolated else ()
    joined = () if router is None else (SetField(ROUTER, router),)
    yield entry(Stage.ADMIT, 200, untagged, into, *tag, *alone, *joined, goto=Stage.SOURCE_GUARD)
    tagged = nic_origin(
        nic, "tagged", f"{nic.name} is an access port: no VLAN tags", DropReason.VLAN_NOT_ALLOWED
    )
    yield entry(Stage.ADMIT, 100, match(in_port=nic.port, vlan_vid=ANY_TAG), tagged)


def admit_miss() -> Entry:
    """Table 0: a port that no interface declares is closed."""
    text = "no interface is declared for this port"
    return miss(Stage.ADMIT, origin.fabric("admit", text, DropReason.PORT_CLOSED))


def everywhere() -> Iterator[Entry]:
    """Table 1: what no guest may send, on whichever port."""
    later = origin.guard("fragment", "a later fragment has no ports to judge", DropReason.FRAGMENT)
    for eth_type in (ETH_IPV4, ETH_IPV6):
        fragment = match(eth_type=eth_type, ip_frag=Frag.ANY | Frag.LATER)
        yield entry(Stage.SOURCE_GUARD, FRAGMENT, fragment, later)
    yield from _fragmented_discovery()
    yield from _rogue_servers()
    yield from _rogue_routers()
    yield miss(
        Stage.SOURCE_GUARD,
        origin.fabric("source_guard", "the sender's MAC is not known", DropReason.SPOOF_MAC),
    )


def _fragmented_discovery() -> Iterator[Entry]:
    """Neighbour discovery comes whole (RFC 6980); what routers say is dropped anyway."""
    why = "neighbour discovery may not come in fragments"
    parts = origin.guard("nd fragment", why, DropReason.FRAGMENT)
    for kind in (SOLICITATION, ADVERTISEMENT):
        first = match(
            eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind, ip_frag=(Frag.ANY, Frag.ANY | Frag.LATER)
        )
        yield entry(Stage.SOURCE_GUARD, FRAGMENT, first, parts)


def _rogue_servers() -> Iterator[Entry]:
    """A server is known by its own port, and by its clients', to which alone it must send (RFC 2131, 4.1)."""
    rogue = origin.guard("dhcp", "only the fabric serves DHCP", DropReason.ROGUE_DHCP)
    for eth_type, server, client in ((ETH_IPV4, *DHCP), (ETH_IPV6, *DHCPV6)):
        for ports in ({"udp_src": server}, {"udp_dst": client}):
            answer = match(eth_type=eth_type, ip_proto=UDP, **ports)
            yield entry(Stage.SOURCE_GUARD, ROGUE, answer, rogue)
    asking = match(eth_type=ETH_IPV4, ip_proto=UDP, udp_src=DHCP[1], udp_dst=DHCP[0], ipv4_src=0)
    nobody = origin.guard("dhcp client", "no DHCP server on this network", DropReason.MULTICAST)
    yield entry(Stage.SOURCE_GUARD, ROGUE, asking, nobody)


def _rogue_routers() -> Iterator[Entry]:
    rogue = origin.guard("ra", "only routers advertise or redirect", DropReason.ROGUE_RA)
    for kind in (ROUTER_ADVERTISEMENT, REDIRECT):
        yield entry(Stage.SOURCE_GUARD, ROGUE, _icmpv6(kind), rogue)
    redirect = match(eth_type=ETH_IPV4, ip_proto=ICMP, icmpv4_type=REDIRECT_V4)
    only_routers = origin.guard("redirect", "only routers redirect", DropReason.ROGUE_RA)
    yield entry(Stage.SOURCE_GUARD, ROGUE, redirect, only_routers)
    for kind, name in MULTICAST_TYPES.items():
        nobody = origin.guard(f"multicast {kind}", f"nobody answers a {name}", DropReason.MULTICAST)
        yield entry(Stage.SOURCE_GUARD, ROGUE, _icmpv6(kind), nobody)


def source_guard(
    nic: Nic, ends: Sequence[Endpoint], identities: Mapping[IPAddress, int], onward: Stage
) -> Iterator[Entry]:
    """Table 1: what this NIC may send from its endpoints, with each MAC that it may use.

    Args: `onward` is where its IP packets go.
    """
    by_mac: dict[int, list[Endpoint]] = {nic.mac: []}
    for end in ends:
        for mac in end.macs:
            by_mac.setdefault(mac, []).append(end)
    for mac, those in by_mac.items():
        yield from _honest(replace(nic, mac=mac), those, identities, onward)
        yield from forged(replace(nic, mac=mac), _listed(ends), len(by_mac) == 1)
    yield other_macs(nic, by_mac)


def other_macs(nic: Nic, macs: Iterable[int]) -> Entry:
    """Table 1: what comes from other MACs than those that the NIC may use."""
    text = f"{nic.name} may send only from its MAC {' or '.join(map(mac_text, macs))}"
    unknown = nic_origin(nic, "spoof_mac", text, DropReason.SPOOF_MAC)
    return entry(Stage.SOURCE_GUARD, OTHER_MAC, match(in_port=nic.port), unknown)


def _listed(ends: Sequence[Endpoint]) -> str:
    """The addresses, and how many more they are than can be told."""
    told = ", ".join(
        f"{end.address} (MAC {mac_text(end.macs[0])})" if end.nic.mac not in end.macs else str(end.address)
        for end in ends[:LISTED]
    )
    more = len(ends) - LISTED
    return f"{told} and {more} more" if more > 0 else told or "no address"


def _honest(
    nic: Nic, ends: Sequence[Endpoint], identities: Mapping[IPAddress, int], onward: Stage
) -> Iterator[Entry]:
    """What the NIC may send with one MAC, its own or another that it may use."""
    own = nic_origin(nic, "source", f"{nic.name} sends from its own addresses")
    known = {end.address: identities[end.address] for end in ends}
    given = [end.address for end in ends if not end.is_allowed and isinstance(end.address, IPv6Address)]
    allowed = [end.address for end in ends if end.is_allowed and isinstance(end.address, IPv6Address)]
    yield from _own_packets(nic, known, own, onward)
    for address in known:
        yield from _own_arp(nic, address, own) if address.version == 4 else ()
    yield from _own_discovery(nic, given, [*given, *allowed], own)
    for address in allowed:
        yield from _own_discovery(nic, [address], [address], own)


def _own_packets(
    nic: Nic, identities: Mapping[IPAddress, int], own: Origin, onward: Stage
) -> Iterator[Entry]:
    marks = () if nic.dscp is None else (SetField("ip_dscp", nic.dscp),)
    for address, identity in identities.items():
        if address.version == 4:
            source = match(in_port=nic.port, eth_src=nic.mac, eth_type=ETH_IPV4, ipv4_src=int(address))
        else:
            source = match(in_port=nic.port, eth_src=nic.mac, eth_type=ETH_IPV6, ipv6_src=int(address))
        known = (SetField(CLIENT, subject_of(identity)), SetField(CLIENT_PEER, peer_of(identity)))
        yield entry(Stage.SOURCE_GUARD, OWN, source, own, *known, *marks, goto=onward)


def _own_arp(nic: Nic, address: IPAddress, own: Origin) -> Iterator[Entry]:
    """Requests and replies for an own address, its announcement and its probe (RFC 5227, section 2)."""
    number = int(address)
    yield entry(
        Stage.SOURCE_GUARD,
        OWN + 1,
        _arp(nic, arp_op=REQUEST, arp_spa=number, arp_tpa=number),
        own,
        SetField(NEIGHBOUR_KIND, ANNOUNCE),
        goto=Stage.NEIGHBOUR,
    )
    probe = _arp(nic, arp_op=REQUEST, arp_spa=0, arp_tpa=number)
    yield entry(Stage.SOURCE_GUARD, OWN, probe, own, SetField(NEIGHBOUR_KIND, PROBE), goto=Stage.NEIGHBOUR)
    for operation in (REQUEST, REPLY):
        source = _arp(nic, arp_op=operation, arp_spa=number)
        yield entry(Stage.SOURCE_GUARD, OWN, source, own, goto=Stage.NEIGHBOUR)


def _own_discovery(
    nic: Nic, sources: list[IPv6Address], targets: list[IPv6Address], own: Origin
) -> Iterator[Entry]:
    """Neighbour discovery from and about own addresses, link-layer options absent (0) or true."""
    for address in sources:
        number = int(address)
        unspecified = _nd(nic, SOLICITATION, ipv6_src=0, ipv6_nd_target=number)
        yield entry(
            Stage.SOURCE_GUARD,
            ND_OWN,
            unspecified,
            own,
            SetField(NEIGHBOUR_KIND, PROBE),
            goto=Stage.NEIGHBOUR,
        )
        for link_layer in (0, nic.mac):
            asks = [_nd(nic, SOLICITATION, ipv6_src=number, ipv6_nd_sll=link_layer)]
            asks += [
                _nd(nic, ADVERTISEMENT, ipv6_src=number, ipv6_nd_target=int(target), ipv6_nd_tll=link_layer)
                for target in targets
            ]
            for where in asks:
                yield entry(Stage.SOURCE_GUARD, ND_OWN, where, own, goto=Stage.NEIGHBOUR)


def own_neighbours(nic: Nic, own: Sequence[IPAddress], why: Origin) -> Iterator[Entry]:
    """Table 1: ARP and neighbour discovery of own addresses."""
    for address in own:
        yield from _own_arp(nic, address, why) if address.version == 4 else ()
    six = [address for address in own if isinstance(address, IPv6Address)]
    yield from _own_discovery(nic, six, six, why)


def forged(nic: Nic, addresses: str, is_only_mac: bool = True) -> Iterator[Entry]:
    """What is left of the NIC's packets with a MAC: each kind is dropped for its own reason."""

    def drop(priority: int, where: Match, reason: DropReason, text: str) -> Entry:
        return entry(Stage.SOURCE_GUARD, priority, where, nic_origin(nic, reason.name.lower(), text, reason))

    only = f"{nic.name} may send only from {addresses}"
    link = "its own MAC" if is_only_mac else "the MAC that goes with it"
    for kind in (SOLICITATION, ADVERTISEMENT):
        yield drop(ND_FORGED, _nd(nic, kind), DropReason.SPOOF_ND, f"{only} and {link}")
    mac = match(in_port=nic.port, eth_src=nic.mac)
    yield drop(FORGED, _arp(nic, arp_sha=None), DropReason.SPOOF_ARP, f"{only} and {link}")
    for eth_type in (ETH_IPV4, ETH_IPV6):
        where = match(in_port=nic.port, eth_src=nic.mac, eth_type=eth_type)
        yield drop(FORGED, where, DropReason.SPOOF_IP, only)
    yield drop(OTHER_TYPE, mac, DropReason.ETHERTYPE, f"{nic.name} may send IPv4, IPv6 and ARP only")


def mac_text(mac: int) -> str:
    """`52:54:00:12:34:56`."""
    return ":".join(f"{octet:02x}" for octet in mac.to_bytes(6, "big"))


def _icmpv6(kind: int) -> Match:
    return match(eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind)


def _arp(nic: Nic, **fields: int | None) -> Match:
    """ARP from the NIC's MAC whose sender hardware address is that MAC too (`arp_sha=None`: any)."""
    wanted = {"arp_sha": nic.mac, **fields}
    given = {name: value for name, value in wanted.items() if value is not None}
    return match(in_port=nic.port, eth_src=nic.mac, eth_type=ETH_ARP, **given)


def _nd(nic: Nic, kind: int, **fields: int) -> Match:
    return match(
        in_port=nic.port, eth_src=nic.mac, eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind, **fields
    )
