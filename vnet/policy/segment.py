"""Tables 2 and 4: who on the packet's network it is for, neighbours first, then everyone else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, ICMPV6
from vnet.openflow.flow import Action, Conntrack, Match, Output, PopVlan, SetField, match
from vnet.policy import origin
from vnet.policy.endpoint import Endpoint, IPAddress
from vnet.policy.entry import Entry, entry, miss, vlan
from vnet.policy.guard import ADVERTISEMENT, REPLY, REQUEST, SOLICITATION, mac_text, nic_origin
from vnet.policy.identity import peer_of, subject_of
from vnet.policy.outside import Edge
from vnet.policy.pipeline import (
    ANNOUNCE,
    APART,
    NEIGHBOUR_KIND,
    OUT_PORT,
    PROBE,
    RECEIVER_APART,
    SENDER_APART,
    SERVER,
    SERVER_PEER,
    Stage,
)
from vnet.topology.inventory import Nic

BROADCAST = (1 << 48) - 1
GROUP_BIT = 1 << 40
ALL_NODES = 0x3333_0000_0001
"""The MAC of ff02::1 (RFC 2464, section 7)."""

PROBED, FLOODED, OWNED = 300, 200, 100


def neighbour(nic: Nic, own: Iterable[IPAddress]) -> Iterator[Entry]:
    """Table 2: requests for the NIC's addresses and answers to its MAC go to it alone."""
    owner = nic_origin(nic, "neighbour", f"{nic.name} owns the address that is asked for")
    deliver = (PopVlan(), Output(nic.port))
    tag = vlan(nic.vlan)
    others = {APART: (0, SENDER_APART)} if nic.is_isolated else {}
    wanted = [match(vlan_vid=tag, eth_type=ETH_ARP, arp_op=REPLY, eth_dst=nic.mac, **others)]
    for address in own:
        if address.version == 4:
            arp = match(vlan_vid=tag, eth_type=ETH_ARP, arp_op=REQUEST, arp_tpa=int(address), **others)
            wanted.append(arp)
        else:
            wanted.append(_nd(tag, SOLICITATION, ipv6_nd_target=int(address), **others))
    if any(address.version == 6 for address in own):
        wanted.append(_nd(tag, ADVERTISEMENT, eth_dst=nic.mac, **others))
    for where in wanted:
        yield entry(Stage.NEIGHBOUR, OWNED, where, owner, *deliver)


def shared(ends: Iterable[Endpoint]) -> Iterator[Entry]:
    """Table 2: what is asked about an address that several NICs may have goes to all of them.

    Whoever has it answers. So do answers to a MAC that several may use.
    """
    asked: dict[tuple[int, IPAddress], list[Nic]] = defaultdict(list)
    answered: dict[tuple[int, int, int], list[Nic]] = defaultdict(list)
    for end in ends:
        if end.is_allowed:
            asked[end.nic.vlan, end.address].append(end.nic)
            for mac in end.macs:
                if mac != end.nic.mac and end.nic not in answered[end.nic.vlan, mac, end.address.version]:
                    answered[end.nic.vlan, mac, end.address.version].append(end.nic)
    for (number, address), holders in asked.items():
        arp = {"eth_type": ETH_ARP, "arp_op": REQUEST, "arp_tpa": int(address)}
        solicitation = {**_DISCOVERY, "icmpv6_type": SOLICITATION, "ipv6_nd_target": int(address)}
        yield from _to_holders(number, str(address), holders, arp if address.version == 4 else solicitation)
    for (number, mac, version), holders in answered.items():
        reply = {"eth_type": ETH_ARP, "arp_op": REPLY, "eth_dst": mac}
        advertisement = {**_DISCOVERY, "icmpv6_type": ADVERTISEMENT, "eth_dst": mac}
        what = f"{mac_text(mac)} with IPv{version}"
        yield from _to_holders(number, what, holders, reply if version == 4 else advertisement)


def _to_holders(number: int, what: str, holders: list[Nic], fields: Mapping[str, int]) -> Iterator[Entry]:
    """To all NICs that may have it; those that are isolated hear of promiscuous ones only."""
    names = ", ".join(sorted(nic.name for nic in holders))
    owners = origin.fabric(f"shared {number} {what}", f"{what} is allowed to {names}")
    where = {"vlan_vid": vlan(number), **fields}
    if not any(nic.is_isolated for nic in holders):
        yield entry(Stage.NEIGHBOUR, OWNED, match(**where), owners, *flood(holders))
        return
    yield entry(Stage.NEIGHBOUR, OWNED, match(**where, **{APART: 0}), owners, *flood(holders))
    promiscuous = [nic for nic in holders if not nic.is_isolated]
    if promiscuous:
        apart = match(**where, **{APART: SENDER_APART})
        yield entry(Stage.NEIGHBOUR, OWNED, apart, owners, *flood(promiscuous))


def announcements(nics: Iterable[Nic], cable: Edge | None = None) -> Iterator[Entry]:
    """Table 2: an announcement of an own address (checked in table 1) reaches its whole network.

    That of an isolated NIC reaches the promiscuous ones.

    Args: `cable` is where the network goes on.
    """
    by_network: dict[tuple[str, int], list[Nic]] = defaultdict(list)
    for nic in nics:
        by_network[nic.network, nic.vlan].append(nic)
    for (network, number), members in by_network.items():
        if len(members) < 2 and cable is None:
            continue
        text = f"announcements reach all of network {network}"
        why = origin.fabric(f"announce {network}", text)
        isolated = any(nic.is_isolated for nic in members)
        for where in _announcing(vlan(number), {APART: 0} if isolated else {}):
            yield entry(Stage.NEIGHBOUR, FLOODED, where, why, *flood(members, cable))
        if isolated:
            promiscuous = [nic for nic in members if not nic.is_isolated]
            for where in _announcing(vlan(number), {APART: SENDER_APART}):
                yield entry(Stage.NEIGHBOUR, FLOODED, where, why, *flood(promiscuous, cable))


def flood(members: Iterable[Nic], cable: Edge | None = None) -> tuple[Action, ...]:
    """To all of these NICs, and out by the cable."""
    ports = sorted(nic.port for nic in members)
    tagged = () if cable is None or not cable.is_tagged else (Output(cable.nic.port),)
    untagged = () if cable is None or cable.is_tagged else (cable.nic.port,)
    return (*tagged, PopVlan(), *(Output(port) for port in (*ports, *untagged)))


def _announcing(tag: int, sender: Mapping[str, int]) -> tuple[Match, ...]:
    return (
        match(vlan_vid=tag, eth_type=ETH_ARP, **{NEIGHBOUR_KIND: ANNOUNCE}, **sender),
        match(vlan_vid=tag, eth_type=ETH_ARP, arp_op=REPLY, eth_dst=BROADCAST, **sender),
        _nd(tag, ADVERTISEMENT, eth_dst=ALL_NODES, **sender),
    )


def neighbour_rest() -> Iterator[Entry]:
    """Table 2: a probe for one's own address has no addressee: table 1 lets nobody else have it."""
    alone = origin.fabric("probe", "no other NIC can have the address that is probed", DropReason.NO_DST)
    yield entry(Stage.NEIGHBOUR, PROBED, match(**{NEIGHBOUR_KIND: PROBE}), alone)
    nobody = origin.fabric("neighbour", "no NIC of this network has that address", DropReason.NO_DST)
    yield miss(Stage.NEIGHBOUR, nobody)


def destination(end: Endpoint, mac: int, identity: int) -> Entry:
    """Table 4: packets for this address and MAC of a NIC learn the receiver and its connection's state."""
    nic = end.nic
    alone = (SetField(APART, RECEIVER_APART, RECEIVER_APART),) if nic.is_isolated else ()
    track = Conntrack(zone=nic.vlan, table=int(Stage.CONNECTION))
    own = nic_origin(nic, "destination", f"{nic.name} is the receiver")
    return entry(Stage.DESTINATION, 100, _addressed(end, mac), own, *_receiver(end, identity), *alone, track)


def routed(end: Endpoint, mac: int, identity: int, gateway: int, zone: int) -> Entry:
    """Table 4: packets that a router sends into the network find the MAC of who has the address.

    Who is isolated has no neighbours, but other networks are none.

    Args:
        mac: by which the endpoint is reached; gateway: the routers' MAC; zone: of the router's connections.
    """
    own = nic_origin(end.nic, "routed", f"{end.nic.name} is the receiver")
    known = SetField("eth_dst", mac), *_receiver(end, identity)
    track = Conntrack(zone=zone, table=int(Stage.CONNECTION))
    return entry(Stage.DESTINATION, 100, _addressed(end, gateway), own, *known, track)


def _addressed(end: Endpoint, mac: int) -> Match:
    tag = vlan(end.nic.vlan)
    if end.address.version == 4:
        return match(vlan_vid=tag, eth_dst=mac, eth_type=ETH_IPV4, ipv4_dst=int(end.address))
    return match(vlan_vid=tag, eth_dst=mac, eth_type=ETH_IPV6, ipv6_dst=int(end.address))


def _receiver(end: Endpoint, identity: int) -> tuple[Action, ...]:
    return (
        SetField(SERVER, subject_of(identity)),
        SetField(SERVER_PEER, peer_of(identity)),
        SetField(OUT_PORT, end.nic.port),
    )


def destination_rest() -> Iterator[Entry]:
    """Table 4: the fabric carries no IP broadcast or multicast, and floods no unknown address."""
    many = origin.fabric("multicast", "IP broadcast and multicast are not carried", DropReason.MULTICAST)
    yield entry(Stage.DESTINATION, 50, match(eth_dst=(GROUP_BIT, GROUP_BIT)), many)
    nobody = origin.fabric("destination", "no such address on this network", DropReason.NO_DST)
    yield miss(Stage.DESTINATION, nobody)


_DISCOVERY = {"eth_type": ETH_IPV6, "ip_proto": ICMPV6}


def _nd(tag: int, kind: int, **fields: int | tuple[int, int]) -> Match:
    return match(vlan_vid=tag, eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind, **fields)
