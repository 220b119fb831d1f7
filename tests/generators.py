"""Fabrics as values for tests: a terse builder, hypothesis strategies whose rules overlap, and frames.

The law "compiled flows decide as the language says" is run three ways on `worlds()`: by the
evaluator of `vnet.policy.walk`, by the slow interpreter, and by the loaded switches.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address, ip_interface, ip_network
from itertools import count

from hypothesis import strategies as st

from vnet.base.drop import DropReason
from vnet.base.source import Location
from vnet.openflow.fields import ICMP, ICMPV6, TCP, UDP, VLAN_PRESENT
from vnet.openflow.rewrite import set_field
from vnet.policy.endpoint import Endpoint, IPAddress, endpoints, macs
from vnet.policy.explain import CLIENT_PORT
from vnet.policy.outside import OUTSIDE_VLAN, of_fabric
from vnet.policy.semantics import Packet, selects_any
from vnet.topology.inventory import Exit, Inventory, Nic, UplinkPort, Vm, exit_key, uplink_key
from vnet.topology.model import (
    HOST_UPLINK,
    STRICT,
    TIERS,
    Action,
    AddressPair,
    Claim,
    ClaimKind,
    Direction,
    Enforcement,
    Established,
    IPNetwork,
    Network,
    Peer,
    PeerKind,
    Policy,
    Route,
    Router,
    Rule,
    Service,
    Topology,
    Uplink,
    UplinkMode,
)
from vnet.topology.routing import Routing, gateway_mac
from vnet.topology.transfer import Transfer

FILE = "test.vnet.yaml"
FIRST_EDGE = 16
"""The ports of exits and cables come behind those of NICs, of which a fabric that has any has fewer."""
_PROTOCOLS = {"tcp": TCP, "udp": UDP, "icmp": ICMP, "sctp": 132}


def peer(text: str, line: int = 0) -> Peer:
    """`any`, `internet`, `host`, `vm:web`, `network:front`, a CIDR, else a group."""
    at = Location(FILE, line, 1)
    if text in ("any", "internet", "host"):
        return Peer(PeerKind(text), text, at)
    kind, _, value = text.partition(":")
    if kind in ("vm", "network"):
        return Peer(PeerKind(kind), value, at)
    return Peer(PeerKind.CIDR if "/" in text else PeerKind.GROUP, text, at)


def service(text: str) -> Service:
    """`443/tcp`, `8000-8999/udp`, `tcp`, `icmp`, `icmp:8`, `icmpv6:128`, `any`."""
    if text == "any":
        return Service(None, None, text)
    family, colon, kind = text.partition(":")
    if colon and family in ("icmp", "icmpv6"):
        return Service(ICMP, (int(kind), int(kind)), text)
    ports, slash, protocol = text.rpartition("/")
    if not slash:
        return Service(_PROTOCOLS[protocol], None, text)
    low, _, high = ports.partition("-")
    return Service(_PROTOCOLS[protocol], (int(low), int(high or low)), text)


def claim(text: str, line: int = 0) -> Claim:
    """`allow web -> app:8080/tcp`, `never web -> db`."""
    kind, source, _, target = text.split()
    wanted = None
    served = re.fullmatch(r"(.+):((?:[0-9-]+/)?(?:tcp|udp|sctp|icmp))", target)
    if served:
        target, wanted = served[1], service(served[2])
    return Claim(ClaimKind(kind), peer(source), peer(target), wanted, text, Location(FILE, line, 1))


@dataclass
class Builder:
    """Declares a fabric line by line; each call stands on a line of its own."""

    networks: dict[str, Network] = field(default_factory=dict)
    vms: list[Vm] = field(default_factory=list)
    groups: dict[str, tuple[IPNetwork, ...]] = field(default_factory=dict)
    policies: list[Policy] = field(default_factory=list)
    claims: list[Claim] = field(default_factory=list)
    tiers: tuple[str, ...] = TIERS
    routers: dict[str, Router] = field(default_factory=dict)
    cables: dict[str, Uplink] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._lines = count(1)
        self._hosts: dict[str, count[int]] = {}
        self._ports = count(1)

    def at(self) -> Location:
        return Location(FILE, next(self._lines), 1)

    def network(self, name: str, vlan: int, *subnets: str, isolated: bool = False) -> Builder:
        nets = tuple(map(ip_network, subnets))
        self.networks[name] = Network(name, vlan, nets, self.at(), is_isolated=isolated)
        self._hosts[name] = count(11)
        return self

    def router(
        self, name: str, *networks: str, routes: Sequence[tuple[str, str]] = (), uplink: str = ""
    ) -> Builder:
        """A router; `routes` are CIDRs and who carries packets there. It has an exit if it has an uplink."""
        known = tuple(Route(ip_network(to), ip_address(via), self.at()) for to, via in routes)
        self.routers[name] = Router(name, networks, known, self.at(), uplink)
        return self

    def cable(self, name: str, *networks: str, trunk: bool = False) -> Builder:
        """An uplink that carries networks."""
        mode = UplinkMode.TRUNK if trunk else UplinkMode.ACCESS
        self.cables[name] = Uplink(name, f"{name}0", self.at(), mode, networks)
        return self

    def vm(
        self,
        name: str,
        *networks: str,
        groups: Sequence[str] = (),
        spec: str | None = None,
        promiscuous: bool = False,
        pairs: Sequence[tuple[str, int | None]] = (),
        dscp: int | None = None,
    ) -> Builder:
        """One VM with a NIC `ethN` on each network, given the networks' next free addresses.

        Args: `pairs` are addresses with MACs that the profile of each of its NICs allows.
        """
        at = self.at()
        allowed = tuple(AddressPair(ip_network(addresses), mac) for addresses, mac in pairs)
        nics = tuple(
            replace(
                nic,
                is_isolated=self.networks[nic.network].is_isolated and not promiscuous,
                profile=replace(STRICT, pairs=allowed),
                dscp=dscp,
            )
            for nic in (self._nic(name, f"eth{n}", network, at) for n, network in enumerate(networks))
        )
        self.vms.append(Vm(name, spec or name, "micro", 1, 96 << 20, nics, frozenset(groups), at))
        return self

    def _nic(self, vm: str, interface: str, network: str, at: Location) -> Nic:
        declared, host, port = self.networks[network], next(self._hosts[network]), next(self._ports)
        given = tuple(ip_interface(f"{net[host]}/{net.prefixlen}") for net in declared.subnets)
        mac = 0x525400000000 | declared.vlan << 12 | host
        return Nic(f"{vm}.{interface}", vm, interface, network, declared.vlan, port, mac, given, at)

    def group(self, name: str, *cidrs: str) -> Builder:
        self.groups[name] = tuple(map(ip_network, cidrs))
        return self

    def policy(
        self,
        name: str,
        applied_to: str,
        *,
        ingress: Iterable[str] | None = None,
        egress: Iterable[str] | None = None,
        tier: str = "application",
        enforcement: str = "enforce",
        established: str = "revalidate",
    ) -> Builder:
        """Rules read `allow PEER,PEER PORTS,PORTS`, `deny PEER`, `allow PEER log` (ports left out: any)."""
        at = self.at()
        to = tuple(peer(text, at.line) for text in applied_to.split(","))
        lists = [
            None
            if rules is None
            else tuple(self._rule(text, n, direction) for n, text in enumerate(rules, 1))
            for rules, direction in ((ingress, Direction.INGRESS), (egress, Direction.EGRESS))
        ]
        how = Enforcement(enforcement), Established(established)
        self.policies.append(Policy(name, tier, to, lists[0], lists[1], at, *how))
        return self

    def _rule(self, text: str, number: int, direction: Direction) -> Rule:
        at = self.at()
        action, peers, *ports = text.removesuffix(" log").split()
        wanted = () if not ports else tuple(map(service, ports[0].split(",")))
        selected = tuple(peer(each, at.line) for each in peers.split(","))
        return Rule("", number, direction, selected, wanted, Action(action), text.endswith(" log"), at)

    def verify(self, *claims: str) -> Builder:
        self.claims += [claim(text, self.at().line) for text in claims]
        return self

    def build(self) -> tuple[Topology, Inventory]:
        topology = Topology(
            "test",
            "",
            self.networks,
            {},
            self.groups,
            {},
            self.tiers,
            tuple(self.policies),
            tuple(self.claims),
            Location(FILE),
            routers=dict(self.routers),
            uplinks=dict(self.cables),
        )
        ports = count(FIRST_EDGE)
        exits = [self._exit(each, next(ports)) for each in self.routers.values() if each.uplink]
        cables = [self._cable(each, next(ports)) for each in self.cables.values()]
        return topology, Inventory("test", tuple(self.vms), exits=tuple(exits), uplinks=tuple(cables))

    def _exit(self, router: Router, port: int) -> Exit:
        host = Transfer.of("test", router.name).host if router.uplink == HOST_UPLINK else ()
        return Exit(router.name, router.uplink, port, 0x5254_00EE_0000 | port, host, router.at)

    def _cable(self, uplink: Uplink, port: int) -> UplinkPort:
        vlans = {name: self.networks[name].vlan for name in uplink.networks}
        is_tagged = uplink.mode is UplinkMode.TRUNK
        return UplinkPort(uplink.name, uplink.interface, port, vlans, is_tagged, uplink.at)


def three_tier() -> Builder:
    """The topology of `topologies/three-tier.vnet.yaml`."""
    return (
        Builder()
        .network("front", 10, "10.10.10.0/24", "fd00:10::/64")
        .network("back", 20, "10.10.20.0/24")
        .vm("web-1", "front", groups=["web"], spec="web")
        .vm("web-2", "front", groups=["web"], spec="web")
        .vm("app", "front", "back", groups=["app"])
        .vm("db", "back", groups=["db"])
        .vm("intruder", "front", "back")
        .policy("app-from-web", "app", ingress=["allow web 8080/tcp,icmp"])
        .policy("db-from-app", "db", ingress=["allow app 5432/tcp", "deny any"], egress=[])
        .verify(
            "allow web -> app:8080/tcp",
            "allow app -> db:5432/tcp",
            "deny app -> db:22/tcp",
            "deny app -> web",
            "never web -> db",
            "only app -> db:5432/tcp",
        )
    )


@dataclass(frozen=True, slots=True)
class World:
    """A fabric and packets to try on it."""

    topology: Topology
    inventory: Inventory
    packets: tuple[Packet, ...]


REFUSING = ("reject",)
ROUTERS_REASONS = (DropReason.NO_ROUTE, DropReason.NO_DST)
"""For which a router sends a packet nowhere."""
PORTS = (1, 22, 67, 80, 443, 547, 8080, 65535)

_SERVICES = (
    *("22/tcp", "80/tcp", "80/udp", "80-443/tcp", "8080-8090/tcp", "8085/tcp", "1-65535/udp"),
    *("0-80/tcp", "tcp", "icmp", "icmp:8", "icmpv6:128", "any"),
)
_GROUPS = ("web", "app", "db", "ops", "low", "six", "far")
_PEERS = (
    *_GROUPS,
    *("any", "internet", "host", "vm:a", "vm:b-1", "vm:b", "network:front", "network:back", "network:mgmt"),
    *("10.10.10.200/30", "10.10.10.201/32", "fd00:10::f0/124"),
    *("0.0.0.0/1", "203.0.0.0/8", "203.0.113.0/24", "2001:db8::/32", "2000::/3", "169.254.0.0/16"),
    *("10.10.0.0/16", "10.10.10.0/29", "10.10.10.8/29", "10.10.20.12/32", "fd00:10::/64", "fe80::/10"),
)


_PAIRS = (
    ("10.10.10.200/31", None),
    ("10.10.10.201/32", None),
    ("10.10.10.202/32", 0x02000000AA01),
    ("10.10.10.202/31", 0x02000000AA02),
    ("fd00:10::f0/128", None),
    ("fd00:10::f0/127", 0x02000000AA01),
    ("192.0.2.7/32", None),
)
"""Addresses that several NICs may have, some with a MAC that several may use."""


@st.composite
def builders(draw: st.DrawFn, *, max_vms: int = 5, max_policies: int = 5, outside: bool = True) -> Builder:
    """Fabrics whose groups, ranges, tiers and actions overlap; two to `max_vms` VMs, several NICs.

    Args: `outside`: some have an exit, a cable or both.
    """
    builder = Builder()
    isolated = draw(st.sampled_from((False, False, False, True)))
    builder.network("front", 10, "10.10.10.0/24", "fd00:10::/64", isolated=isolated)
    builder.network("back", 20, "10.10.20.0/24")
    builder.network("mgmt", 30, "fd00:30::/64")
    _draw_routers(draw, builder, outside)
    if outside:
        _draw_cables(draw, builder)
    builder.group("low", "10.10.10.0/29", "10.10.20.0/28").group("six", "fd00:10::/64", "fd00:30::b/128")
    builder.group("far", "203.0.113.0/25", "fd00::/16")
    names = (("a", "a"), ("b-1", "b"), ("b-2", "b"), ("c", "c"), ("d", "d"))
    nets = st.lists(st.sampled_from(("front", "front", "front", "back", "mgmt")), min_size=1, max_size=3)
    for name, spec in names[: draw(st.integers(min(3, max_vms), max_vms))]:
        groups = draw(st.sets(st.sampled_from(_GROUPS[:4]), min_size=1, max_size=3))
        pairs = draw(st.one_of(st.just([]), st.lists(st.sampled_from(_PAIRS), max_size=4, unique=True)))
        which = {"groups": sorted(groups), "spec": spec, "promiscuous": draw(st.booleans()), "pairs": pairs}
        which |= {"dscp": draw(st.sampled_from((None, None, 0, 46)))}
        builder.vm(name, *draw(nets), **which)
    for number in range(draw(st.integers(1, max_policies))):
        _draw_policy(draw, builder, f"p{number}")
    return builder


def _draw_routers(draw: st.DrawFn, builder: Builder, outside: bool) -> None:
    """None, or one of some or all networks; its routes lead to addresses that pairs allow."""
    joined = draw(st.sampled_from(((), (), ("front", "back"), ("mgmt", "front"), ("back", "mgmt", "front"))))
    uplink = draw(st.sampled_from(("", "host", "wan") if outside else ("",)))
    via = st.sampled_from(("10.10.10.11", "10.10.10.12", "10.10.20.11"))
    routes = st.lists(st.sampled_from(("192.0.2.0/24", "192.0.2.7/32", "0.0.0.0/0")), max_size=2, unique=True)
    if joined:
        known = [(to, draw(via)) for to in draw(routes)]
        builder.router(
            "gw",
            *joined,
            routes=[each for each in known if "back" in joined or "20" not in each[1]],
            uplink=uplink,
        )


def _draw_cables(draw: st.DrawFn, builder: Builder) -> None:
    """None, or one for one network, or for two."""
    carried = draw(st.sampled_from(((), (), ("front",), ("back",), ("front", "mgmt"))))
    if carried:
        builder.cable("lan", *carried, trunk=len(carried) > 1 or draw(st.booleans()))


def _written(act: str, who: str, what: str, log: str) -> str:
    """A rule as `Builder.policy` reads it; `pass` decides nothing that could be logged."""
    return f"{act} {who} {what}".strip() + ("" if act == "pass" else log)


def _draw_policy(draw: st.DrawFn, builder: Builder, name: str) -> None:
    peers = st.lists(st.sampled_from(_PEERS), min_size=1, max_size=2).map(",".join)
    ports = st.lists(st.sampled_from(_SERVICES), max_size=3).map(",".join)
    action = st.sampled_from(("allow", "allow", "allow", "deny", "deny", "pass", *REFUSING))
    logged = st.sampled_from(("", "", " log"))

    rule = st.builds(_written, action, peers, ports, logged)
    rules = st.lists(rule, min_size=1, max_size=5)
    some = st.one_of(rules, rules, st.none(), st.just([]))
    seldom = st.one_of(st.none(), st.none(), rules, st.just(["allow any"]))
    builder.policy(
        name,
        draw(peers),
        ingress=draw(some),
        egress=draw(seldom),
        tier=draw(st.sampled_from(TIERS)),
        enforcement=draw(st.sampled_from(("enforce", "enforce", "enforce", "audit"))),
        established=draw(st.sampled_from(("revalidate", "keep", "reset"))),
    )


def everybody(topology: Topology, inventory: Inventory) -> tuple[Endpoint, ...]:
    """All endpoints, and of each block outside an address or two; some that are not outside at all."""
    outside = of_fabric(topology, inventory)
    strangers = tuple(outside.ends())
    last = (
        replace(end, address=end.block.prefix.broadcast_address)
        for end in strangers
        if end.block and end.block.prefix.broadcast_address in end.block
    )
    own = tuple(endpoints(topology, inventory))
    forged = (replace(end, address=other.address) for end in strangers[:2] for other in own[:2])
    return (*own, *strangers, *last, *forged)


def packets(topology: Topology, inventory: Inventory) -> st.SearchStrategy[Packet]:
    """Packets between endpoints, most of them aimed at a rule: its peers, its subjects, its ports' edges."""
    ends = everybody(topology, inventory)
    anything = st.sampled_from(ends).flatmap(lambda source: _stray(source, ends))
    aims = tuple(aim for policy in topology.policies for aim in _aims(topology, policy, ends))
    aimed = st.sampled_from(aims).flatmap(_aimed) if aims else anything
    return st.one_of(aimed, aimed, aimed, anything)


def _stray(source: Endpoint, ends: Sequence[Endpoint]) -> st.SearchStrategy[Packet]:
    same = [end for end in ends if end.address.version == source.address.version and not end.is_allowed]
    same = [end for end in same if not (source.is_outside or end.is_outside) or _is_by_exit(source, end)]
    near = [end for end in ends if _neighbours(source, end)]
    target = st.sampled_from(near or same or [source]) | st.sampled_from(same or near or [source])
    protocol = st.sampled_from((TCP, UDP, ICMP))
    port = st.sampled_from(PORTS)
    return st.builds(_packet, st.just(source), target, protocol, port, st.booleans(), st.booleans())


Aim = tuple[tuple[tuple[Endpoint, Endpoint], ...], tuple[tuple[int, int], ...]]
"""Pairs of client and server that a rule speaks of, and (protocol, port) at the edges of its services."""


def _aims(topology: Topology, policy: Policy, ends: Sequence[Endpoint]) -> Iterator[Aim]:
    subjects = [end for end in ends if selects_any(topology, policy.applied_to, end)]
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        peers = [end for end in ends if selects_any(topology, rule.peers, end)]
        clients, servers = (peers, subjects) if rule.direction is Direction.INGRESS else (subjects, peers)
        pairs = tuple((c, s) for c in clients for s in servers if _may_meet(topology, c, s))
        if pairs:
            yield pairs, tuple(edge for each in rule.services or (service("any"),) for edge in _edges(each))


def _neighbours(one: Endpoint, other: Endpoint) -> bool:
    same_family = one.address.version == other.address.version
    return same_family and one.nic.network == other.nic.network and one.name != other.name


def _may_meet(topology: Topology, one: Endpoint, other: Endpoint) -> bool:
    if one.nic.network == other.nic.network:
        return _neighbours(one, other)
    if one.is_outside or other.is_outside:
        return _is_by_exit(one, other) and one.address.version == other.address.version
    joined = Routing(topology).are_joined(one.nic.network, other.nic.network)
    return joined and one.address.version == other.address.version


def _is_by_exit(one: Endpoint, other: Endpoint) -> bool:
    return "" in (one.nic.network, other.nic.network)


def _edges(service: Service) -> Iterator[tuple[int, int]]:
    low, high = service.ports or (0, 0xFFFF)
    for port in (low - 1, low, (low + high) // 2, high, high + 1):
        if 0 <= port <= 0xFFFF:
            yield service.protocol or TCP, port


def _aimed(aim: Aim) -> st.SearchStrategy[Packet]:
    def packet(pair: tuple[Endpoint, Endpoint], edge: tuple[int, int], reply: bool, admitted: bool) -> Packet:
        source, target = reversed(pair) if reply else pair
        return _packet(source, target, edge[0], edge[1], reply, admitted)

    pairs, edges = aim
    return st.builds(packet, st.sampled_from(pairs), st.sampled_from(edges), st.booleans(), st.booleans())


def _packet(
    source: Endpoint, target: Endpoint, protocol: int, port: int, reply: bool, admitted: bool
) -> Packet:
    """A packet of a connection to the server's `port`; the source is the server when it is a reply."""
    ends = (source.name, source.address, target.name, target.address)
    if protocol == ICMP:
        kind = {4: (ICMP, 8, 0), 6: (ICMPV6, 128, 129)}[source.address.version]
        return Packet(*ends, kind[0], icmp_type=kind[1 + reply], reply=reply, admitted=admitted)
    ports = (port, CLIENT_PORT) if reply else (CLIENT_PORT, port)
    return Packet(*ends, protocol, *ports, reply=reply, admitted=admitted)


@st.composite
def worlds(
    draw: st.DrawFn,
    *,
    max_vms: int = 5,
    max_policies: int = 5,
    max_packets: int = 40,
    outside: bool = True,
) -> World:
    """A fabric and packets for it."""
    drawn = builders(max_vms=max_vms, max_policies=max_policies, outside=outside)
    topology, inventory = draw(drawn).build()
    tried = st.lists(packets(topology, inventory), min_size=max_packets // 2, max_size=max_packets)
    return World(topology, inventory, tuple(draw(tried)))


STRANGER = 0x02_00_00_00_99_01
"""The MAC of whoever is beyond a cable."""


def plugs(inventory: Inventory) -> Mapping[str, Nic]:
    """What packets come from and go to: NICs, exits and cables, by name. An exit is in no network."""
    found = {nic.name: nic for nic in inventory.nics}
    for each in inventory.exits:
        name = exit_key(each.router)
        found[name] = Nic(name, "", "", "", OUTSIDE_VLAN, each.port, each.mac, (), each.at)
    for cable in inventory.uplinks:
        for network, vlan in cable.networks.items():
            name = f"{uplink_key(cable.uplink)}/{network}"
            found[name] = Nic(name, "", "", network, vlan, cable.port, STRANGER, (), cable.at)
    return found


def is_tagged(inventory: Inventory, nic: Nic) -> bool:
    """Whether packets have a tag at the port."""
    return any(each.port == nic.port and each.is_tagged for each in inventory.uplinks)


def link(inventory: Inventory, packet: Packet) -> tuple[int, int]:
    """The packet's MACs: with which its sender may use the source, and by which its receiver is reached.

    In another network that is the gateways'.
    """
    nics = plugs(inventory)
    source, target = nics[packet.source_nic], nics[packet.target_nic]
    holders = [nic for nic in inventory.nics if nic.network == target.network and _holds(nic, packet.target)]
    users = Counter(mac for nic in holders for mac in macs(nic, packet.target))
    if is_routed(inventory, packet):
        return macs(source, packet.source)[0], gateway_mac(inventory.fabric)
    return macs(source, packet.source)[0], min(macs(target, packet.target), key=lambda mac: users[mac])


def _holds(nic: Nic, address: IPAddress) -> bool:
    return any(address in pair.addresses for pair in nic.profile.pairs)


def header(inventory: Inventory, packet: Packet) -> Mapping[str, int]:
    """The packet as match fields, as it arrives untagged from the sender's port."""
    source = plugs(inventory)[packet.source_nic]
    sender, receiver = link(inventory, packet)
    version = packet.source.version
    fields = {
        "in_port": source.port,
        "eth_src": sender,
        "eth_dst": receiver,
        "eth_type": 0x0800 if version == 4 else 0x86DD,
        "vlan_vid": VLAN_PRESENT | source.vlan if is_tagged(inventory, source) else 0,
        "ip_proto": packet.protocol,
        "ip_frag": 0,
        "nw_ttl": 64,
        f"ipv{version}_src": int(packet.source),
        f"ipv{version}_dst": int(packet.target),
    }
    name = {TCP: "tcp", UDP: "udp", 132: "sctp"}.get(packet.protocol)
    if name:
        fields |= {f"{name}_src": packet.source_port, f"{name}_dst": packet.target_port}
    elif packet.protocol in (ICMP, ICMPV6):
        fields[f"icmpv{version}_type"] = packet.icmp_type
        fields[f"icmpv{version}_code"] = 0
    return fields


def frame(inventory: Inventory, packet: Packet) -> bytes:
    """The packet as a real frame with correct checksums: SYN or SYN/ACK, echo request or reply."""
    from scapy.layers.inet import ICMP as Icmp
    from scapy.layers.inet import IP
    from scapy.layers.inet import TCP as Tcp
    from scapy.layers.inet import UDP as Udp
    from scapy.layers.inet6 import ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
    from scapy.layers.l2 import Dot1Q, Ether

    sender, receiver = link(inventory, packet)
    ether = Ether(src=_mac(sender), dst=_mac(receiver))
    source = plugs(inventory)[packet.source_nic]
    if is_tagged(inventory, source):
        ether = ether / Dot1Q(vlan=source.vlan)
    layer = IP if packet.source.version == 4 else IPv6
    network = layer(src=str(packet.source), dst=str(packet.target))
    ports = {"sport": packet.source_port, "dport": packet.target_port}
    if packet.protocol == TCP:
        inner = Tcp(**ports, flags="SA" if packet.reply else "S", seq=1000, ack=1001 if packet.reply else 0)
    elif packet.protocol == UDP:
        inner = Udp(**ports) / b"vnet"
    elif packet.protocol == ICMP:
        inner = Icmp(type=packet.icmp_type, id=7, seq=1)
    else:
        inner = (ICMPv6EchoReply if packet.reply else ICMPv6EchoRequest)(id=7, seq=1)
    return bytes(ether / network / inner)


def delivered(inventory: Inventory, packet: Packet, wire: bytes) -> bytes:
    """The frame as its receiver gets it: from another network with other MACs, and a hop less."""
    nics = plugs(inventory)
    source, target = nics[packet.source_nic], nics[packet.target_nic]
    if is_tagged(inventory, source):
        wire = wire[:12] + wire[16:]
    if is_tagged(inventory, target):
        return wire[:12] + (0x8100 << 16 | target.vlan).to_bytes(4, "big") + wire[12:]
    if not is_routed(inventory, packet):
        return wire
    owner = macs(target, packet.target)[0].to_bytes(6, "big")
    lowered = set_field(wire, "nw_ttl", 63)
    return owner + gateway_mac(inventory.fabric).to_bytes(6, "big") + lowered[12:]


def is_routed(inventory: Inventory, packet: Packet) -> bool:
    """Whether the packet is for another network, or goes through an exit."""
    networks = {name: nic.network for name, nic in plugs(inventory).items()}
    source, target = networks[packet.source_nic], networks[packet.target_nic]
    return source != target or not source


def _mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")
