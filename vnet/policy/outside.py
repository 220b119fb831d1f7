"""Who is not of the fabric: beyond the exits of routers, and beyond cables that carry networks.

Nobody knows these addresses one by one. A *block* is what no rule tells apart: the addresses of a prefix that
some rule names (or of 0.0.0.0/0 and ::/0) which lie in no longer one. Behind each port of the outside, an
*edge*, a block is an endpoint like those of VMs, with an address that stands for all of it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network
from itertools import chain

from vnet.base.errors import InputError
from vnet.policy.endpoint import Block, Endpoint, IPAddress, endpoints
from vnet.topology.inventory import Exit, Inventory, Nic, UplinkPort, Vm, exit_key, uplink_key
from vnet.topology.model import IPNetwork, Peer, PeerKind, Topology
from vnet.topology.routing import OUTSIDE_VLAN, Routing, gateway_mac, zone_of
from vnet.topology.transfer import Transfer

STRANGER = 0x02766F000001
"""A MAC of whoever is beyond a cable, where one has to be named: no NIC gets one of that prefix."""

INTERNET, HOST = PeerKind.INTERNET.value, PeerKind.HOST.value
LENGTHS_MAX = 12
"""So many lengths of prefixes may be told apart: each is one more table that is searched."""

LINK = (ip_network("169.254.0.0/16"), ip_network("fe80::/10"))
MANY = (ip_network("224.0.0.0/4"), ip_network("ff00::/8"))
NOWHERE = tuple(map(ip_network, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/16", "ff00::/8")))
"""No host of another network has these: unspecified, loopback, multicast, reserved (RFC 6890, RFC 4291)."""
EVERYWHERE = (ip_network("0.0.0.0/0"), ip_network("::/0"))
_LIKELY = (ip_address("203.0.113.7"), ip_address("2001:db8::7"))
"""What stands for a block if it is in it: addresses of documentation (RFC 5737, RFC 3849)."""


@dataclass(frozen=True, slots=True)
class Edge:
    """A port behind which the outside begins, with the one network of the fabric that goes there.

    Args:
        nic: it, as the NIC that it is to the switch. An exit's is in no network, and has the gateway's MAC.
        router: whose exit it is; empty for a cable.
        zone: of the connections that cross it.
        never: what is not outside there, but for `host` and `near`.
        host: the addresses of the host itself.
        near: further addresses between the gateway and the host.
        own: addresses of the fabric's own among those of the network on the cable.
        is_tagged: whether packets have the network's tag there.
    """

    nic: Nic
    router: str
    zone: int
    never: tuple[IPNetwork, ...]
    host: tuple[IPAddress, ...] = ()
    near: tuple[IPAddress, ...] = ()
    own: tuple[IPAddress, ...] = ()
    is_tagged: bool = False

    @property
    def name(self) -> str:
        return self.nic.name

    @property
    def is_exit(self) -> bool:
        return bool(self.router)

    def has(self, address: IPAddress) -> bool:
        """Whether the address is outside there."""
        if address in self.host or address in self.near:
            return True
        return address not in self.own and not any(address in each for each in self.never)


def edges(topology: Topology, inventory: Inventory) -> tuple[Edge, ...]:
    """All there are, exits first."""
    exits = (_exit(topology, each) for each in inventory.exits)
    cables = (_cable(topology, each, name) for each in inventory.uplinks for name in each.networks)
    return (*exits, *cables)


def _exit(topology: Topology, each: Exit) -> Edge:
    router = topology.routers[each.router]
    nic = Nic(
        name=exit_key(each.router),
        vm="",
        interface="",
        network="",
        vlan=OUTSIDE_VLAN,
        port=each.port,
        mac=each.mac,
        addresses=(),
        at=each.at,
    )
    subnets = _subnets(topology, topology.networks)
    near = Transfer.of(topology.name, each.router).gateway if each.host else ()
    zone = zone_of(router, topology.networks)
    return Edge(nic, each.router, zone, (*subnets, *LINK, *NOWHERE), each.host, near)


def _cable(topology: Topology, each: UplinkPort, network: str) -> Edge:
    vlan = each.networks[network]
    nic = Nic(
        name=f"{uplink_key(each.uplink)}/{network}",
        vm="",
        interface="",
        network=network,
        vlan=vlan,
        port=each.port,
        mac=STRANGER,
        addresses=(),
        at=each.at,
    )
    there = topology.networks[network]
    others = _subnets(topology, topology.networks.keys() - {network})
    foreign = (each for each in others if not any(_overlap(each, own) for own in there.subnets))
    return Edge(
        nic, "", vlan, (*foreign, *NOWHERE), own=_gateways(topology, network), is_tagged=each.is_tagged
    )


def _gateways(topology: Topology, network: str) -> tuple[IPAddress, ...]:
    """Of the network's router, or its server."""
    declared = topology.networks[network]
    if declared.has_services:
        return tuple(each for subnet in declared.subnets if (each := declared.gateway(subnet)))
    return Routing(topology).gateways(network)


def _subnets(topology: Topology, networks: Iterable[str]) -> tuple[IPNetwork, ...]:
    found = (subnet for name in networks for subnet in topology.networks[name].subnets)
    return tuple(sorted(set(found), key=_by_place))


def _overlap(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.overlaps(other)


def _by_place(network: IPNetwork) -> tuple[int, int, int]:
    return network.version, int(network.network_address), network.prefixlen


def has_gateway_mac(topology: Topology, edge: Edge) -> int | None:
    """The MAC of the fabric's own gateway in the network on a cable, if it has one."""
    return gateway_mac(topology.name) if edge.own else None


# ---- blocks ----------------------------------------------------------------------------------


def blocks_of(edge: Edge, named: Iterable[IPNetwork]) -> Iterator[tuple[Block, bool]]:
    """The blocks beyond an edge and whether they are the host's, each before those that lie in it."""
    exact = {*map(_alone, edge.host), *map(_alone, edge.near)}
    asked = {each for each in named if not any(_within(each, no) for no in edge.never)}
    prefixes = sorted({*asked, *EVERYWHERE, *exact}, key=_by_place)
    hosts = {*map(_alone, edge.host)}
    for prefix in prefixes:
        inner = [each for each in prefixes if each != prefix and _within(each, prefix)]
        without = [] if prefix in exact else [*edge.never, *map(_alone, edge.own)]
        holes = [*inner, *(each for each in without if _within(each, prefix))]
        depth = sum(1 for each in prefixes if each != prefix and _within(prefix, each))
        tag = edge.nic.vlan if edge.is_tagged else 0
        yield Block(prefix, tuple(holes), depth, tag, prefix in asked - exact), prefix in hosts


def _alone(address: IPAddress) -> IPNetwork:
    return ip_network(address)


def _within(one: IPNetwork, other: IPNetwork) -> bool:
    return one.version == other.version and one.subnet_of(other)  # type: ignore[arg-type]


def _representative(block: Block) -> IPAddress | None:
    """An address of the block; None if there is none."""
    likely = next(each for each in _LIKELY if each.version == block.prefix.version)
    if likely in block:
        return likely
    found = int(block.prefix.network_address)
    for hole in sorted(block.holes, key=_by_place):
        if int(hole.network_address) <= found:
            found = max(found, int(hole.broadcast_address) + 1)
    if found > int(block.prefix.broadcast_address):
        return None
    return block.prefix.network_address + (found - int(block.prefix.network_address))


class Outside:
    """Everybody outside of a fabric, told apart by some prefixes."""

    def __init__(self, edges: Sequence[Edge], named: Iterable[IPNetwork], is_bounded: bool = True) -> None:
        """Args: `is_bounded`: they are to become flows.

        Raises: InputError when they have too many lengths for flows.
        """
        self._edges = {edge.name: edge for edge in edges}
        named = tuple(named)
        self._ends = {edge.name: tuple(_ends(edge, named)) for edge in edges}
        prefixes = (end.block.prefix for end in self.ends() if end.block)
        lengths = {
            (each.version, each.prefixlen) for each in prefixes if 0 < each.prefixlen < each.max_prefixlen
        }
        if is_bounded and len(lengths) > LENGTHS_MAX:
            told = ", ".join(f"/{length} of IPv{version}" for version, length in sorted(lengths))
            raise InputError(
                f"rules name addresses outside by prefixes of {len(lengths)} lengths ({told}); the switch "
                f"can tell {LENGTHS_MAX} apart; write some as prefixes of a length that is there already"
            )

    @property
    def edges(self) -> Iterable[str]:
        """The names of the edges."""
        return self._edges.keys()

    def who(self, address: IPAddress, port: int | None = None) -> str:
        """`internet` or `host` for an address outside, maybe beyond a certain port; empty for others."""
        ends = (end for end in self.ends() if port is None or end.nic.port == port)
        return next((end.vm.name for end in ends if end.block and address in end.block), "")

    def ends(self) -> Iterator[Endpoint]:
        """The blocks beyond all edges as endpoints."""
        for ends in self._ends.values():
            yield from ends

    def beyond(self, edge: str) -> tuple[Endpoint, ...]:
        """The blocks beyond one edge."""
        return self._ends.get(edge, ())

    def nowhere(self) -> Iterator[Endpoint]:
        """What is not outside, as if it were: forged sources, and for what no packet may leave."""
        for edge in self._edges.values():
            tag = edge.nic.vlan if edge.is_tagged else 0
            for prefix in (*edge.never, *map(_alone, edge.own)):
                others = map(_alone, (*edge.host, *edge.near))
                block = Block(prefix, tuple(each for each in others if _within(each, prefix)), tag=tag)
                who = _stranger(edge, INTERNET)
                yield Endpoint(edge.name, prefix.network_address, edge.nic, who, block=block)

    def block(self, edge: str, address: IPAddress) -> Endpoint | None:
        """The endpoint that stands for an address; None where the address is not outside, or no such edge."""
        return next((end for end in self._ends.get(edge, ()) if end.block and address in end.block), None)

    def at(self, edge: str, address: IPAddress) -> Endpoint | None:
        """The same with the address itself."""
        found = self.block(edge, address)
        return None if found is None else replace(found, address=address)


def of_fabric(topology: Topology, inventory: Inventory, asked: Iterable[Peer] = ()) -> Outside:
    """Who is outside of a fabric, told apart by all that its rules name, and what is asked about.

    At a cable nobody outside has an address that one of the network's NICs may use.
    """
    own: dict[str, list[IPAddress]] = defaultdict(list)
    found = edges(topology, inventory)
    if not found:
        return Outside((), ())
    for end in endpoints(topology, inventory):
        own[end.nic.network].append(end.address)
    known = [replace(edge, own=(*edge.own, *dict.fromkeys(own[edge.nic.network]))) for edge in found]
    return Outside(known, _named(topology, asked), is_bounded=False)


def _named(topology: Topology, asked: Iterable[Peer]) -> Iterator[IPNetwork]:
    rules = (
        rule for policy in topology.policies for rule in (*(policy.ingress or ()), *(policy.egress or ()))
    )
    peers = chain.from_iterable(rule.peers for rule in rules)
    for peer in (*peers, *asked):
        if peer.kind is PeerKind.CIDR:
            yield ip_network(peer.value, strict=False)
        elif peer.kind is PeerKind.GROUP:
            yield from topology.groups.get(peer.value, ())


def _ends(edge: Edge, named: Sequence[IPNetwork]) -> Iterator[Endpoint]:
    for block, is_host in blocks_of(edge, named):
        address = _representative(block)
        if address is not None:
            yield Endpoint(
                edge.name, address, edge.nic, _stranger(edge, HOST if is_host else INTERNET), block=block
            )


def _stranger(edge: Edge, name: str) -> Vm:
    """Whom an address outside stands for, as the VM that it would be."""
    return Vm(name, name, "", 0, 0, (edge.nic,), frozenset(), edge.nic.at)
