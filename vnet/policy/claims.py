"""What a claim of `verify` speaks of: which endpoints, which packets.

`docs/manual/policies.md` tells the meanings; this is where they become sets of packets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP, UDP, VLAN_PRESENT
from vnet.policy.endpoint import Endpoint, IPAddress, Roads
from vnet.policy.entry import prefix
from vnet.policy.space import Cube, Region, exactly, meet
from vnet.policy.spans import masks
from vnet.topology.inventory import Nic
from vnet.topology.model import Peer, PeerKind, Service

CLIENT_PORTS = (0x8000, 0x8000)
"""Ports that clients send from: 32768-65535 (Linux takes 32768-60999, RFC 6335 49152-65535)."""
HOPS = 64
"""The TTL that hosts begin with (RFC 1700); a router drops what has none left, and no claim is about that."""
ECHO_REQUEST = {4: 8, 6: 128}
ECHO_REPLY = {4: 0, 6: 129}
NEIGHBOUR_DISCOVERY: tuple[Cube, ...] = tuple(
    exactly(eth_type=ETH_IPV6, ip_proto=ICMPV6, icmpv6_type=kind) for kind in (135, 136)
)
"""Always let through to the owner of the address, so no claim speaks of it."""
NO_SUCH_FRAGMENT: Cube = {"ip_frag": (2, 3)}
"""A later fragment that is no fragment: the field never holds it."""


@dataclass(frozen=True, slots=True)
class Sender:
    """A NIC that a claim's source names; `only` are the addresses it names, None when it names them all.

    Each block outside is a sender of its own.
    """

    nic: Nic
    vm: str
    only: tuple[Endpoint, ...] | None

    @property
    def key(self) -> Hashable:
        """The same for what is of one NIC, or of one block."""
        return self.block or self.nic.name

    @property
    def block(self) -> Endpoint | None:
        """The block outside that it is."""
        return self.only[0] if self.only and self.only[0].is_outside else None


def senders(chosen: Iterable[Endpoint], everyone: Iterable[Endpoint]) -> Iterator[Sender]:
    """The NICs of the chosen endpoints, in order; a NIC of which all is chosen may use any source."""
    own: dict[str, int] = defaultdict(int)
    for end in everyone:
        own[end.name] += 1
    chosen = tuple(chosen)
    for end in chosen:
        if end.is_outside:
            yield Sender(end.nic, end.vm.name, (end,))
    for ends in grouped(end for end in chosen if not end.is_outside).values():
        whole = len(ends) == own[ends[0].name]
        yield Sender(ends[0].nic, ends[0].vm.name, None if whole else tuple(ends))


def grouped(ends: Iterable[Endpoint]) -> Mapping[str, list[Endpoint]]:
    """Endpoints by NIC name, in order."""
    found: dict[str, list[Endpoint]] = defaultdict(list)
    for end in ends:
        found[end.name].append(end)
    return found


def is_own_affair(sender: Sender, target: Endpoint) -> bool:
    """Whether no claim is about it: what a VM sends itself, and what passes between two who are outside."""
    return sender.vm == target.vm.name or (sender.block is not None and target.is_outside)


def between(sending: Iterable[Sender], targets: Sequence[Endpoint]) -> Iterator[tuple[Sender, Endpoint]]:
    """Each sender with each target of another VM: what a VM sends itself is its own affair."""
    for sender in sending:
        yield from ((sender, target) for target in targets if sender.vm != target.vm.name)


Pairs = list[tuple[Endpoint, Endpoint]]


def by_vms(
    roads: Roads, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
) -> Mapping[tuple[str, str], Mapping[str, Pairs]]:
    """For each pair of VMs, by network that they share or way between two, the pairs that can meet there.

    Link-local addresses are left out: they need not work for a claim of `allow` to hold.
    """
    found: dict[tuple[str, str], dict[str, Pairs]] = {}
    for source in sources:
        for target in targets:
            if source.vm.name == target.vm.name:
                continue
            networks = found.setdefault((source.vm.name, target.vm.name), {})
            if can_meet(roads, source, target):
                networks.setdefault(roads.between(source, target), []).append((source, target))
    return found


def promised(peer: Peer, ends: Sequence[Endpoint]) -> Sequence[Endpoint]:
    """Those of a peer that an `allow` speaks of: addresses that are only allowed must be named by a CIDR."""
    return ends if peer.kind is PeerKind.CIDR else [end for end in ends if not end.is_allowed]


def can_meet(roads: Roads, source: Endpoint, target: Endpoint) -> bool:
    """Whether the addresses are of one family on one network or of one router, and neither is link-local."""
    return roads.can_meet(source, target) and not source.is_link_local and not target.is_link_local


def permitted(service: Service | None, sender: Sender | None, target: Endpoint) -> tuple[Cube, ...]:
    """What `only` lets this sender put on its wire for the target; nothing if the claim does not name it."""
    if sender is None:
        return ()
    version = target.address.version
    cubes = services(service, version)
    if sender.only is None or sender.block is not None:
        return cubes
    named = [end.address for end in sender.only if end.address.version == version]
    return tuple({**cube, **exactly(**_address("src", address))} for cube in cubes for address in named)


def whatever(sender: Sender, version: int) -> Iterator[Region]:
    """All IP packets of one version that the sender can put on its wire, forged ones included.

    Neighbour discovery is left out, and sources are limited when the claim names addresses.
    """
    cube = exactly(in_port=sender.nic.port, eth_type=_eth_type(version))
    if sender.only is None:
        yield _possible(cube, version)
        return
    for end in sender.only:
        sent = of(Region({**cube, **_tagged(end)}), end, "src") if end.address.version == version else None
        if sent is not None:
            yield _possible(sent.cube, version, sent.holes)


def _tagged(end: Endpoint) -> Cube:
    """What packets of a block have at a port where they are tagged."""
    return exactly(vlan_vid=VLAN_PRESENT | end.block.tag) if end.block and end.block.tag else {}


def sources(sender: Sender, region: Region | None) -> Iterator[Region | None]:
    """What of a set of packets the claim's source may send; all of it if it may use any address."""
    if sender.only is None:
        yield region
    for end in sender.only or ():
        named = region and region.meet({**exactly(eth_type=_eth_type(end.address.version)), **_tagged(end)})
        yield named and of(named, end, "src")


def of(region: Region, end: Endpoint, side: str) -> Region | None:
    """What of a set of packets is from (`src`) or for (`dst`) an endpoint; None when there is none."""
    if end.block is None:
        return region.meet(exactly(**_address(side, end.address)))
    rest = region.meet(prefix(side, end.block.prefix))
    for hole in end.block.holes:
        rest = rest.minus(prefix(side, hole)) if rest else None
    return rest


def _possible(cube: Cube, version: int, holes: tuple[Cube, ...] = ()) -> Region:
    region = Region(cube, holes)
    for hole in (NO_SUCH_FRAGMENT, *(NEIGHBOUR_DISCOVERY if version == 6 else ())):
        region = region.minus(hole) or region
    return region


def services(service: Service | None, version: int) -> tuple[Cube, ...]:
    """The packets of a claim's service in one IP version, whatever their source port; None is all."""
    if service is None or service.protocol is None:
        return ({},)
    return tuple(_towards(service, version, "dst"))


def _towards(service: Service, version: int, side: str) -> Iterator[Cube]:
    protocol = service.protocol
    assert protocol is not None
    if protocol in (ICMP, ICMPV6):
        icmp = exactly(ip_proto=ICMP if version == 4 else ICMPV6)
        if service.ports is None:
            yield icmp
        elif service.ports[0] == ECHO_REQUEST[version]:
            kind = ECHO_REQUEST[version] if side == "dst" else ECHO_REPLY[version]
            yield {**icmp, **exactly(**{f"icmpv{version}_type": kind})}
    elif protocol in PORT_PROTOCOLS and service.ports is not None:
        for value, mask in masks(*service.ports):
            yield {**exactly(ip_proto=protocol), f"{PORT_PROTOCOLS[protocol]}_{side}": (value, mask)}
    else:
        yield exactly(ip_proto=protocol)


def requests(roads: Roads, source: Endpoint, target: Endpoint, service: Service | None) -> Iterator[Region]:
    """The honest packets with which the source opens and goes on with connections to the service."""
    return _honest(roads, source, target, service, "dst", ECHO_REQUEST)


def replies(roads: Roads, source: Endpoint, target: Endpoint, service: Service | None) -> Iterator[Region]:
    """The honest packets with which the target answers them."""
    return _honest(roads, target, source, service, "src", ECHO_REPLY)


def _honest(
    roads: Roads,
    source: Endpoint,
    target: Endpoint,
    service: Service | None,
    server: str,
    echo: Mapping[int, int],
) -> Iterator[Region]:
    version = source.address.version
    base = exactly(
        in_port=source.nic.port,
        vlan_vid=0,
        eth_src=source.macs[0],
        eth_dst=roads.mac(source, target),
        eth_type=_eth_type(version),
        ip_frag=0,
        nw_ttl=HOPS,
    )
    client = "src" if server == "dst" else "dst"
    for wanted in _spelled_out(service):
        for cube in _towards(wanted, version, server):
            narrowed = meet({**base, **_tagged(source), **_client(wanted, version, client, echo)}, cube)
            assert narrowed is not None
            sent = of(Region(narrowed), source, "src")
            arriving = sent and of(sent, target, "dst")
            assert arriving is not None, "an endpoint has an address"
            yield arriving


def _client(service: Service, version: int, side: str, echo: Mapping[int, int]) -> Cube:
    if service.protocol in (ICMP, ICMPV6):
        return exactly(**{f"icmpv{version}_type": echo[version]})
    name = PORT_PROTOCOLS.get(service.protocol or 0)
    return {f"{name}_{side}": CLIENT_PORTS} if name else {}


EVERY_SERVICE = (
    Service(TCP, (0, 0xFFFF), "tcp"),
    *(Service(UDP, ports, "udp") for ports in ((0, 66), (69, 545), (548, 0xFFFF))),
    Service(ICMP, None, "icmp"),
)
"""What `allow A -> B` without a service promises: all but DHCP, between whose ports no guest may."""


def _spelled_out(service: Service | None) -> Sequence[Service]:
    return EVERY_SERVICE if service is None or service.protocol is None else (service,)


def _eth_type(version: int) -> int:
    return ETH_IPV4 if version == 4 else ETH_IPV6


def _address(side: str, address: IPAddress) -> dict[str, int]:
    return {f"ipv{address.version}_{side}": int(address)}
