"""Networks on cables, in flows of tables 0 to 4: what comes in by an uplink, and what leaves by it.

A cable is like one to another switch: whoever has an address of the network that no NIC has is beyond it, and
so is what that side routes. Nobody beyond uses a MAC or an address of the fabric, nor its gateways, and what
comes by a cable never goes back. There is nothing to learn: who is no NIC of the network is on the cable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from ipaddress import ip_network

from vnet.base.drop import DropReason
from vnet.openflow.fields import ETH_ARP, ETH_IPV6, ICMPV6
from vnet.openflow.flow import Action, Conntrack, Output, PopVlan, PushVlan, SetField, match
from vnet.policy.endpoint import Endpoint, IPAddress
from vnet.policy.entry import Entry, entry, prefix, vlan
from vnet.policy.exits import BLOCK, NEVER, Numbered
from vnet.policy.guard import ADVERTISEMENT, ND_OWN, OTHER_TYPE, OWN, REQUEST, SOLICITATION
from vnet.policy.identity import OUTSIDE, peer_of, subject_of
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.outside import Edge
from vnet.policy.pipeline import (
    CLIENT,
    CLIENT_PEER,
    FOREIGN,
    NEIGHBOUR_KIND,
    OUT_PORT,
    PROBE,
    ROUTER,
    SERVER,
    SERVER_PEER,
    Stage,
)
from vnet.policy.segment import BROADCAST, PROBED, flood
from vnet.topology.inventory import Nic

# Priorities. In table 1 what nobody beyond may say lies above all that may pass; in table 4 all of it lies
# above the blocks, and below who is there, but for what goes to the gateway.
STOLEN_MAC, STOLEN_LINK, STOLEN_TARGET, STOLEN_SOURCE, ASKED_GATEWAY = 690, 688, 686, 684, 682
TO_GATEWAY, OTHER_ADDRESS, OTHER_MAC, ELSEWHERE, NOT_BACK = 120, 48, 47, 46, 45
UNKNOWN = 50
"""In table 2: below those whose address is known."""


def carries(edges: Sequence[Edge], gateway: int) -> Iterator[Entry]:
    """Tables 0 to 4: what does not depend on identities and NICs, of all networks of one cable.

    Args: `gateway` is the MAC of the fabric's gateways.
    """
    port = edges[0].nic.port
    text = "tags of its networks only" if edges[0].is_tagged else "no VLAN tags"
    other = _origin(edges[0], "tagged", text, DropReason.VLAN_NOT_ALLOWED)
    yield entry(Stage.ADMIT, 100, match(in_port=port), other)
    for edge in edges:
        yield _admit(edge)
        yield from _source_guard(edge)
        yield from _neighbour(edge)
        yield from _nowhere(edge)
        if edge.own:
            yield from stolen(edge, edge.own, [gateway], "the fabric's gateway")
            yield from _gateway(edge, gateway)


def blocks(edge: Edge, numbered: Numbered) -> Iterator[Entry]:
    """Tables 1 and 4: who beyond the cable sends, and who receives."""
    source, target = _origin(edge, "source", "from outside"), _origin(edge, "destination", "it is outside")
    for block, identity in numbered:
        known = SetField(CLIENT, subject_of(identity)), SetField(CLIENT_PEER, peer_of(identity))
        sent = match(**_sender(edge), **prefix("src", block.prefix))
        priority = OWN + block.depth
        yield entry(Stage.SOURCE_GUARD, priority, sent, source, *known, goto=Stage.DESTINATION)
        found = (
            SetField(SERVER, subject_of(identity)),
            SetField(SERVER_PEER, peer_of(identity)),
            SetField(OUT_PORT, edge.nic.port),
        )
        track = Conntrack(zone=edge.zone, table=int(Stage.CONNECTION))
        wanted = match(vlan_vid=vlan(edge.nic.vlan), **prefix("dst", block.prefix))
        yield entry(Stage.DESTINATION, BLOCK + block.depth, wanted, target, *found, track)


def leave(edge: Edge) -> tuple[Action, ...]:
    """How packets of the network leave by the cable."""
    return (Output(edge.nic.port),) if edge.is_tagged else (PopVlan(), Output(edge.nic.port))


def own(edge: Edge, members: Sequence[Nic], ends: Iterable[Endpoint]) -> Iterator[Entry]:
    """Tables 1, 2 and 4: what nobody beyond a cable may use, and what is not there."""
    ends = tuple(ends)
    addresses = tuple(dict.fromkeys(end.address for end in ends))
    macs = tuple(dict.fromkeys((*(nic.mac for nic in members), *(mac for end in ends for mac in end.macs))))
    yield from stolen(edge, addresses, macs, f"a NIC of network {edge.nic.network}")
    if members:
        asked = _origin(edge, "asked", "who of the network has an address that is not known")
        where = {"eth_type": ETH_ARP, "arp_op": REQUEST, "eth_dst": BROADCAST, NEIGHBOUR_KIND: FOREIGN}
        flooded = match(vlan_vid=vlan(edge.nic.vlan), **where)
        yield entry(Stage.NEIGHBOUR, UNKNOWN, flooded, asked, *flood(members))


def stolen(edge: Edge, addresses: Iterable[IPAddress], macs: Iterable[int], whose: str) -> Iterator[Entry]:
    """Tables 1 and 4: MACs and addresses of the fabric are not beyond the cable."""
    for mac in macs:
        yield from _stolen_mac(edge, mac, whose)
    for address in addresses:
        yield from _stolen_address(edge, address, whose)


def _origin(edge: Edge, what: str, text: str, reason: DropReason = DropReason.NONE) -> Origin:
    key = f"{edge.name} {what}"
    return Origin(OriginKind.UPLINK, key, f"{edge.name}: {text}", edge.nic.at, reason)


def _sender(edge: Edge) -> dict[str, int]:
    return {"in_port": edge.nic.port, "vlan_vid": vlan(edge.nic.vlan)}


def _admit(edge: Edge) -> Entry:
    """Table 0."""
    into = _origin(edge, "admit", f"network {edge.nic.network} (VLAN {edge.nic.vlan})")
    if edge.is_tagged:
        return entry(Stage.ADMIT, 200, match(**_sender(edge)), into, goto=Stage.SOURCE_GUARD)
    tag = PushVlan(), SetField("vlan_vid", vlan(edge.nic.vlan))
    untagged = match(in_port=edge.nic.port, vlan_vid=0)
    return entry(Stage.ADMIT, 200, untagged, into, *tag, goto=Stage.SOURCE_GUARD)


def _source_guard(edge: Edge) -> Iterator[Entry]:
    """Table 1: neighbours' talk passes; addresses that are nowhere outside do not."""
    talk = _origin(edge, "neighbour", "neighbours outside")
    foreign = SetField(NEIGHBOUR_KIND, FOREIGN)
    for kind in (SOLICITATION, ADVERTISEMENT):
        where = match(**_sender(edge), **_discovery(kind))
        yield entry(Stage.SOURCE_GUARD, ND_OWN, where, talk, foreign, goto=Stage.NEIGHBOUR)
    arp = match(**_sender(edge), eth_type=ETH_ARP)
    yield entry(Stage.SOURCE_GUARD, OWN, arp, talk, foreign, goto=Stage.NEIGHBOUR)
    forged = _origin(edge, "spoof_ip", "these addresses are not outside", DropReason.SPOOF_IP)
    for network in edge.never:
        where = match(**_sender(edge), **prefix("src", network))
        yield entry(Stage.SOURCE_GUARD, NEVER, where, forged)
    other = _origin(edge, "ethertype", "IPv4, IPv6 and ARP only", DropReason.ETHERTYPE)
    yield entry(Stage.SOURCE_GUARD, OTHER_TYPE, match(**_sender(edge)), other)


def _discovery(kind: int) -> dict[str, int]:
    return {"eth_type": ETH_IPV6, "ip_proto": ICMPV6, "icmpv6_type": kind}


def _neighbour(edge: Edge) -> Iterator[Entry]:
    """Table 2: what is asked about others, and answered to others, goes out."""
    tag = vlan(edge.nic.vlan)
    talk = _origin(edge, "unknown", "no NIC of the network has that address")
    for eth_type in (ETH_ARP, ETH_IPV6):
        unknown = match(vlan_vid=tag, eth_type=eth_type, **{NEIGHBOUR_KIND: 0})
        yield entry(Stage.NEIGHBOUR, UNKNOWN, unknown, talk, *leave(edge))
    probed = _origin(edge, "probe", "somebody outside may have the address that is probed")
    for eth_type in (ETH_ARP, ETH_IPV6):
        where = match(vlan_vid=tag, eth_type=eth_type, **{NEIGHBOUR_KIND: PROBE})
        yield entry(Stage.NEIGHBOUR, PROBED + 1, where, probed, *leave(edge))


def _nowhere(edge: Edge) -> Iterator[Entry]:
    """Table 4: what does not leave by the cable."""
    tag = vlan(edge.nic.vlan)
    back = _origin(edge, "back", "what comes from outside does not go back", DropReason.NO_DST)
    yield entry(Stage.DESTINATION, NOT_BACK, match(vlan_vid=tag, **{CLIENT: OUTSIDE}), back)
    elsewhere = _origin(edge, "elsewhere", "these addresses are not outside", DropReason.NO_DST)
    for network in edge.never:
        where = match(vlan_vid=tag, **prefix("dst", network))
        yield entry(Stage.DESTINATION, ELSEWHERE, where, elsewhere)


def _gateway(edge: Edge, mac: int) -> Iterator[Entry]:
    """Tables 1 and 4: the fabric's gateways are for its own NICs.

    They could not answer others: no ARP tells them whom.
    """
    text = "the fabric's gateways are for its own NICs only"
    closed = _origin(edge, "gateway", text, DropReason.NO_ROUTE)
    straight = {CLIENT: OUTSIDE, ROUTER: 0}  # and not by a router's exit
    sent = match(vlan_vid=vlan(edge.nic.vlan), eth_dst=mac, **straight)
    yield entry(Stage.DESTINATION, TO_GATEWAY, sent, closed)
    for address in edge.own:
        if address.version == 4:
            asked = match(**_sender(edge), eth_type=ETH_ARP, arp_tpa=int(address))
        else:
            asked = match(**_sender(edge), **_discovery(SOLICITATION), ipv6_nd_target=int(address))
        yield entry(Stage.SOURCE_GUARD, ASKED_GATEWAY, asked, closed)


def _stolen_mac(edge: Edge, mac: int, whose: str) -> Iterator[Entry]:
    sender = _sender(edge)
    taken = _origin(edge, "spoof_mac", f"the MAC of {whose}", DropReason.SPOOF_MAC)
    yield entry(Stage.SOURCE_GUARD, STOLEN_MAC, match(**sender, eth_src=mac), taken)
    arp = _origin(edge, "spoof_arp", f"the MAC of {whose}", DropReason.SPOOF_ARP)
    said = match(**sender, eth_type=ETH_ARP, arp_sha=mac)
    yield entry(Stage.SOURCE_GUARD, STOLEN_LINK, said, arp)
    discovery = _origin(edge, "spoof_nd", f"the MAC of {whose}", DropReason.SPOOF_ND)
    for kind, option in ((SOLICITATION, "ipv6_nd_sll"), (ADVERTISEMENT, "ipv6_nd_tll")):
        said = match(**sender, **_discovery(kind), **{option: mac})
        yield entry(Stage.SOURCE_GUARD, STOLEN_LINK, said, discovery)
    there = _origin(edge, "own mac", f"the MAC of {whose}, not its address", DropReason.NO_DST)
    wanted = match(vlan_vid=vlan(edge.nic.vlan), eth_dst=mac)
    yield entry(Stage.DESTINATION, OTHER_ADDRESS, wanted, there)


def _stolen_address(edge: Edge, address: IPAddress, whose: str) -> Iterator[Entry]:
    sender, text = _sender(edge), f"an address of {whose}"
    taken = _origin(edge, "spoof_ip", text, DropReason.SPOOF_IP)
    alone = prefix("src", ip_network(address))
    yield entry(Stage.SOURCE_GUARD, STOLEN_SOURCE, match(**sender, **alone), taken)
    if address.version == 4:
        arp = _origin(edge, "spoof_arp", text, DropReason.SPOOF_ARP)
        said = match(**sender, eth_type=ETH_ARP, arp_spa=int(address))
        yield entry(Stage.SOURCE_GUARD, STOLEN_SOURCE, said, arp)
    else:
        discovery = _origin(edge, "spoof_nd", text, DropReason.SPOOF_ND)
        said = match(**sender, **_discovery(ADVERTISEMENT), ipv6_nd_target=int(address))
        yield entry(Stage.SOURCE_GUARD, STOLEN_TARGET, said, discovery)
    there = _origin(edge, "own address", f"{text}, but not its MAC", DropReason.NO_DST)
    wanted = match(vlan_vid=vlan(edge.nic.vlan), **prefix("dst", ip_network(address)))
    yield entry(Stage.DESTINATION, OTHER_MAC, wanted, there)
