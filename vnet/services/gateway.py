"""What forwards for a router with an uplink: rules, addresses, routes and neighbours, as values.

A gateway is a network namespace. One of its interfaces leads to the fabric's switch, the other one outside:
to the host, or it is an interface that was the host's. All translation of addresses is here and on the host.
So the switch sees the addresses of both ends, except that the host has those of its end of the transfer.

A port published on the host is handed over by a number of the gateway's own (`Door.inner`), and by another
one (`Door.turned`) when a VM of this gateway asks for it: to that VM's peer it comes from the gateway, since
what is let in from the host is not for everybody who gets its packets back from there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import blake2b
from ipaddress import ip_address, ip_interface, ip_network

from vnet.base.protocols import PORT_PROTOCOLS, TCP
from vnet.services.nft import Chain, Table, either
from vnet.topology.inventory import Exit, Inventory, Vm
from vnet.topology.model import HOST_UPLINK, IPAddress, Published, Topology
from vnet.topology.routing import Routing, gateway_mac
from vnet.topology.transfer import Transfer

FABRIC, HOST = "fabric0", "host0"
"""The gateway's interfaces: to the switch, and to the host."""
NEXT_HOP = {4: "169.254.0.1", 6: "fe80::1"}
"""Who stands for the switch in the gateway's routes: nobody has these addresses, only the fabric's MAC."""
TABLE = "vnet"
"""The gateway's own."""
FORWARD_TABLE = "vnet-forward"
"""The host's, if vnet had to switch forwarding on."""
GROUP = 30317
"""Of interfaces (`ip link show group 30317`): that of all which lead from the host to gateways."""
PROTOCOL = 118
"""Of our routes (`ip route show proto 118`): none that iproute2 has a name for."""
AS_HOST = 1
"""The mark of what is to come from the host's address: a try of a port that is open to the host only."""
_PORTS = range(1024, 65536)
_WORD = {4: "ip", 6: "ip6"}


@dataclass(frozen=True, slots=True)
class Door:
    """A published port: open at `listen`, it leads to `target_port` of the targets in turn.

    `inner` and `turned` are the numbers by which the host hands it over; 0 where it does not.
    """

    listen: str
    port: int
    protocol: int
    targets: tuple[str, ...]
    target_port: int
    inner: int = 0
    turned: int = 0

    @property
    def version(self) -> int:
        """That of IP."""
        return ip_address(self.listen).version

    @property
    def is_local(self) -> bool:
        """Whether only the host itself can ask for it."""
        return ip_address(self.listen).is_loopback

    @property
    def checked(self) -> tuple[str, ...]:
        """The targets of which one must answer to be used: where there is only one, it is the best."""
        return self.targets if self.protocol == TCP and len(self.targets) > 1 else ()

    def __str__(self) -> str:
        at = f"[{self.listen}]" if self.version == 6 else self.listen
        return f"{at}:{self.port}/{PORT_PROTOCOLS[self.protocol]}"


@dataclass(frozen=True, slots=True)
class Floating:
    """An address outside that is one VM's alone."""

    address: str
    target: str


@dataclass(frozen=True, slots=True)
class Forwarding:
    """All that a gateway does. Addresses are texts; `addresses` and `host` have their prefix.

    `subnets` are what is behind its router, `fabric_mac` whom it sends that to. `device` leads outside, and
    has `addresses`; `next_hops` are whom all else is sent to. `host` is the host's end; () if there is none.
    """

    fabric_mac: int = 0
    subnets: tuple[str, ...] = ()
    device: str = ""
    addresses: tuple[str, ...] = ()
    next_hops: tuple[str, ...] = ()
    masquerades: bool = False
    doors: tuple[Door, ...] = ()
    floating: tuple[Floating, ...] = ()
    host: tuple[str, ...] = ()

    def own(self, version: int) -> str:
        """The gateway's address outside; empty if it has none of that version of IP."""
        return _first(self.addresses, version)

    def host_end(self, version: int) -> str:
        """The host's, the same way."""
        return _first(self.host, version)

    @property
    def is_checked(self) -> bool:
        """Whether targets have to be tried."""
        return any(door.checked for door in self.doors)

    @property
    def versions(self) -> tuple[int, ...]:
        """Those of IP that lead outside."""
        return tuple(version for version in (4, 6) if self.own(version))


def _first(addresses: tuple[str, ...], version: int) -> str:
    found = (ip_interface(each) for each in addresses)
    return next((str(each.ip) for each in found if each.version == version), "")


def forwarding(topology: Topology, inventory: Inventory, exit_: Exit) -> Forwarding:
    """What the gateway of one router has to do."""
    router = topology.routers[exit_.router]
    prefixes = {str(way.prefix): way.prefix for way in Routing(topology).ways(router)}
    subnets = {text: each for text, each in prefixes.items() if each.prefixlen}
    common = Forwarding(
        gateway_mac(topology.name),
        tuple(subnets),
        masquerades=router.masquerades,
        doors=tuple(_doors(topology, inventory, exit_)),
        floating=tuple(_floating(topology, inventory, exit_)),
    )
    if exit_.uplink != HOST_UPLINK:
        uplink = topology.uplinks[exit_.uplink]
        own = tuple(map(str, uplink.addresses))
        return replace(
            common, device=uplink.interface, addresses=own, next_hops=tuple(map(str, uplink.gateways))
        )
    transfer = Transfer.of(topology.name, router.name)
    used = {each.version for each in subnets.values()}
    own, host = (
        tuple(str(each) for each in transfer.interfaces(side) if each.version in used)
        for side in (transfer.gateway, transfer.host)
    )
    next_hops = tuple(str(each) for each in transfer.host if each.version in used)
    return replace(
        common,
        device=HOST,
        addresses=own,
        host=host,
        next_hops=next_hops,
        doors=tuple(_numbered(common.doors)),
    )


# ---- what is open ----------------------------------------------------------------------------


def _doors(topology: Topology, inventory: Inventory, exit_: Exit) -> Iterator[Door]:
    for spec in topology.vms.values():
        vms = [vm for vm in inventory.vms if vm.spec == spec.name]
        for port in spec.ports:
            if _is_here(topology, inventory, exit_, vms[0], port):
                found = [_address(topology, exit_, vm, port.listen.version) for vm in vms]
                targets = tuple(str(each) for each in found if each is not None)
                yield Door(str(port.listen), port.port, port.protocol, targets, port.guest_port)


def _is_here(topology: Topology, inventory: Inventory, exit_: Exit, vm: Vm, port: Published) -> bool:
    """Whether a port is published by this exit: it is the first that leads to the VM and has the address."""
    fitting = (
        each.router
        for each in inventory.exits
        if _address(topology, each, vm, port.listen.version) and _listens(topology, each, port.listen)
    )
    return next(fitting, None) == exit_.router


def _listens(topology: Topology, exit_: Exit, listen: IPAddress) -> bool:
    if exit_.uplink == HOST_UPLINK:
        return True
    own = {each.ip for each in topology.uplinks[exit_.uplink].addresses}
    return listen in own or (listen.is_unspecified and any(each.version == listen.version for each in own))


def _address(topology: Topology, exit_: Exit, vm: Vm, version: int) -> IPAddress | None:
    """The address by which a VM is reached from an exit: that of its first NIC there."""
    networks = topology.routers[exit_.router].networks
    found = (each.ip for nic in vm.nics if nic.network in networks for each in nic.addresses)
    return next((each for each in found if each.version == version), None)


def _floating(topology: Topology, inventory: Inventory, exit_: Exit) -> Iterator[Floating]:
    for vm in inventory.vms:
        for address in topology.vms[vm.spec].floating:
            leads = (each for each in inventory.exits if _address(topology, each, vm, address.version))
            if next(leads, None) == exit_:
                yield Floating(str(address), str(_address(topology, exit_, vm, address.version)))


def _numbered(doors: tuple[Door, ...]) -> Iterator[Door]:
    """Doors with the numbers by which the host hands them over.

    They depend on the doors themselves, so that one keeps its numbers when others come and go: gateway and
    host learn of a change one after the other.
    """
    taken: set[int] = set()
    for door in doors:
        inner, turned = (_number(f"{door} {use}", taken) for use in ("in", "turned"))
        yield replace(door, inner=inner, turned=0 if door.is_local else turned)


def _number(text: str, taken: set[int]) -> int:
    number = _PORTS[int.from_bytes(blake2b(text.encode(), digest_size=4).digest(), "big") % len(_PORTS)]
    while number in taken:
        number = number + 1 if number + 1 in _PORTS else _PORTS[0]
    taken.add(number)
    return number


@dataclass(frozen=True, slots=True)
class Answer:
    """A target of a router's published ports that has begun to answer, or has ceased to."""

    router: str
    address: str
    port: int
    is_there: bool


# ---- addresses, routes, neighbours -----------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """`address` has its prefix."""

    device: str
    address: str


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """What is for `prefix` goes to `via`; what is sent from here then comes from `source`, if it says so.

    `metric` 0 is the usual one. `protocol` and `scope` are as in `ip route`.
    """

    prefix: str
    via: str
    device: str
    source: str = ""
    metric: int = 0
    protocol: int = PROTOCOL
    scope: int = 0


@dataclass(frozen=True, slots=True, order=True)
class Neighbour:
    """Who has an address, known for ever. `mac` is a 48-bit integer."""

    device: str
    address: str
    mac: int


@dataclass(frozen=True, slots=True)
class Side:
    """What one network namespace has of a gateway."""

    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    neighbours: frozenset[Neighbour] = frozenset()


_EVERYTHING = {4: "0.0.0.0/0", 6: "::/0"}


def gateway_side(forwarding: Forwarding) -> Side:
    """What the gateway's namespace has."""
    versions = {ip_network(subnet).version for subnet in forwarding.subnets}
    addresses = {Address(forwarding.device, each) for each in forwarding.addresses}
    if not forwarding.host:
        addresses |= {Address(forwarding.device, _alone(each.address)) for each in forwarding.floating}
    return Side(
        frozenset(addresses),
        frozenset(_gateway_routes(forwarding)),
        frozenset(Neighbour(FABRIC, NEXT_HOP[version], forwarding.fabric_mac) for version in versions),
    )


def _gateway_routes(forwarding: Forwarding) -> Iterator[Route]:
    for subnet in forwarding.subnets:
        version = ip_network(subnet).version
        yield Route(subnet, NEXT_HOP[version], FABRIC, forwarding.own(version))
    for each in forwarding.next_hops:
        yield Route(_EVERYTHING[ip_address(each).version], each, forwarding.device)


def host_side(forwarding: Forwarding, device: str) -> Side:
    """What the host has of it, by the interface that leads to it."""
    prefixes = [_alone(each.address) for each in forwarding.floating]
    if not forwarding.masquerades:
        prefixes += forwarding.subnets
    routes = set()
    for prefix in prefixes:
        version = ip_network(prefix).version
        routes.add(Route(prefix, forwarding.own(version), device, forwarding.host_end(version)))
    return Side(frozenset(Address(device, each) for each in forwarding.host), frozenset(routes))


def _alone(address: str) -> str:
    return f"{address}/{ip_address(address).max_prefixlen}"


# ---- rules -----------------------------------------------------------------------------------

Dead = frozenset[tuple[str, int]]
"""Address and port of those targets that do not answer."""


def gateway_table(forwarding: Forwarding, dead: Dead = frozenset()) -> Table:
    """The rules of the gateway's namespace; `dead` targets get nothing while others live."""
    return Table(
        TABLE,
        (
            Chain("sources", "filter hook prerouting priority raw", _sources()),
            Chain("input", "filter hook input priority filter", tuple(_input(forwarding)), "drop"),
            Chain("forward", "filter hook forward priority filter", tuple(_forward(forwarding)), "drop"),
            Chain("inward", "nat hook prerouting priority dstnat", tuple(_inward(forwarding, dead))),
            Chain("outward", "nat hook postrouting priority srcnat", tuple(_outward(forwarding))),
        ),
    )


def _sources() -> tuple[str, ...]:
    """Nobody uses an address to which the way leads by another interface."""
    return (
        "meta nfproto ipv4 fib saddr . iif oif missing drop",
        "ip6 saddr != { ::, fe80::/10 } fib saddr . iif oif missing drop",
    )


def _input(forwarding: Forwarding) -> Iterator[str]:
    yield "ct state established,related accept"
    yield f'iifname "{forwarding.device}" meta l4proto {{ icmp, ipv6-icmp }} accept'


def _forward(forwarding: Forwarding) -> Iterator[str]:
    """What belongs to no connection would leave with the VM's own address."""
    yield "ct state invalid drop"
    yield "ct state established,related accept"
    yield f'iifname "{FABRIC}" oifname "{forwarding.device}" accept'
    yield f'oifname "{FABRIC}" ct status dnat accept'
    if not forwarding.masquerades:
        yield f'iifname "{forwarding.device}" oifname "{FABRIC}" accept'


def _inward(forwarding: Forwarding, dead: Dead) -> Iterator[str]:
    for each in forwarding.floating:
        word = _WORD[ip_address(each.address).version]
        yield f"{word} daddr {each.address} dnat {word} to {each.target}"
    for door in forwarding.doors:
        asked = (
            _handed_over(door, forwarding) if forwarding.host else f"{_at(door)} {_dport(door, door.port)}"
        )
        yield f"{asked} dnat {_WORD[door.version]} to {_in_turn(door, dead)}:{door.target_port}"


def _handed_over(door: Door, forwarding: Forwarding) -> str:
    """That the host hands a packet over; what is open to the host only has to be its own."""
    word, version = _WORD[door.version], door.version
    by = f" {word} saddr {forwarding.host_end(version)}" if door.is_local else ""
    numbers = tuple(number for number in (door.inner, door.turned) if number)
    return f'iifname "{HOST}"{by} {word} daddr {forwarding.own(version)} {_dport(door, *numbers)}'


def _dport(door: Door, *numbers: int) -> str:
    return f"{PORT_PROTOCOLS[door.protocol]} dport {either(tuple(map(str, numbers)))}"


def _at(door: Door) -> str:
    """That a packet is for the address at which a door is open."""
    if ip_address(door.listen).is_unspecified:
        return f"meta nfproto ipv{door.version} fib daddr type local"
    return f"{_WORD[door.version]} daddr {door.listen}"


def _in_turn(door: Door, dead: Dead) -> str:
    """One of the targets that live; of all when none does: perhaps the try alone is not let through."""
    alive = tuple(each for each in door.targets if (each, door.target_port) not in dead) or door.targets
    if len(alive) == 1:
        return f"[{alive[0]}]" if door.version == 6 else alive[0]
    targets = ", ".join(f"{number} : {each}" for number, each in enumerate(alive))
    return f"numgen inc mod {len(alive)} map {{ {targets} }}"


def _outward(forwarding: Forwarding) -> Iterator[str]:
    """The first that fits: who has an address of its own; the host; who turns round here; who leaves."""
    ways = either((f'"{FABRIC}"', f'"{forwarding.device}"'))
    for each in forwarding.floating:
        word = _WORD[ip_address(each.address).version]
        yield f"oifname {ways} {word} saddr {each.target} snat {word} to {each.address}"
    for version in forwarding.versions:
        word, own = _WORD[version], forwarding.own(version)
        if forwarding.host:
            host = forwarding.host_end(version)
            yield f'oifname "{FABRIC}" meta nfproto ipv{version} meta mark {AS_HOST} snat {word} to {host}'
        yield from _turning(forwarding, version)
        if forwarding.masquerades:
            yield f'oifname "{forwarding.device}" meta nfproto ipv{version} snat {word} to {own}'


def _turning(forwarding: Forwarding, version: int) -> Iterator[str]:
    """What comes from VMs and goes back to VMs has to come back here, so it comes from here."""
    word, own = _WORD[version], forwarding.own(version)
    subnets = tuple(each for each in forwarding.subnets if ip_network(each).version == version)
    if subnets:
        yield f'oifname "{FABRIC}" {word} saddr {either(subnets)} snat {word} to {own}'
    for protocol, numbers in _turned(forwarding, version).items():
        which = f"meta l4proto {protocol} ct original proto-dst {either(numbers)}"
        yield f'oifname "{FABRIC}" meta nfproto ipv{version} {which} snat {word} to {own}'


def _turned(forwarding: Forwarding, version: int) -> Mapping[str, tuple[str, ...]]:
    """The numbers of doors that VMs asked for, by protocol."""
    found: dict[str, tuple[str, ...]] = {}
    for door in forwarding.doors:
        if door.turned and door.version == version:
            protocol = PORT_PROTOCOLS[door.protocol]
            found[protocol] = (*found.get(protocol, ()), str(door.turned))
    return found


def host_table(name: str, device: str, forwarding: Forwarding) -> Table:
    """The rules of the host for one gateway; `device` leads to it."""
    return Table(
        name,
        (
            Chain("guard", "filter hook prerouting priority raw", tuple(_guard(device, forwarding))),
            Chain("inward", "nat hook prerouting priority dstnat", tuple(_host_inward(device, forwarding))),
            Chain("own", "nat hook output priority -100", tuple(_host_own(forwarding))),
            Chain(
                "outward", "nat hook postrouting priority srcnat", tuple(_host_outward(device, forwarding))
            ),
        ),
    )


def _guard(device: str, forwarding: Forwarding) -> Iterator[str]:
    """The host's loopback is not for gateways, and nobody hands anything over but the host."""
    yield f'iifname "{device}" ip daddr 127.0.0.0/8 drop'
    for version in forwarding.versions:
        yield f'iifname != "{device}" {_WORD[version]} daddr {forwarding.own(version)} drop'


def _host_inward(device: str, forwarding: Forwarding) -> Iterator[str]:
    for door in forwarding.doors:
        if not door.is_local:
            yield f'iifname "{device}" {_hand_over(door, forwarding, door.turned)}'
            yield _hand_over(door, forwarding, door.inner)


def _host_own(forwarding: Forwarding) -> Iterator[str]:
    """What the host itself asks for."""
    return (_hand_over(door, forwarding, door.inner) for door in forwarding.doors)


def _hand_over(door: Door, forwarding: Forwarding, number: int) -> str:
    word, own = _WORD[door.version], forwarding.own(door.version)
    to = f"[{own}]" if door.version == 6 else own
    return f"{_at(door)} {_dport(door, door.port)} dnat {word} to {to}:{number}"


def _host_outward(device: str, forwarding: Forwarding) -> Iterator[str]:
    for version in forwarding.versions:
        word, own, host = _WORD[version], forwarding.own(version), forwarding.host_end(version)
        for protocol, numbers in _turned(forwarding, version).items():
            which = f"{word} daddr {own} {protocol} dport {either(numbers)}"
            yield f'oifname "{device}" {which} snat {word} to {host}'
        yield f'oifname "{device}" meta nfproto ipv{version} fib saddr type local snat {word} to {host}'
        if forwarding.masquerades:
            yield f'oifname != "{device}" {word} saddr {own} masquerade'


def forward_table() -> Table:
    """Of a host that did not forward before: now it does, but only what gateways send and get."""
    rules = (f"iifgroup {GROUP} accept", f"oifgroup {GROUP} accept", "meta nfproto ipv4 drop")
    return Table(FORWARD_TABLE, (Chain("forward", "filter hook forward priority filter", rules),))
