"""What forwards for a router with an uplink: rules, addresses, routes and neighbours, as values.

A gateway is a network namespace. One of its interfaces leads to the fabric's switch, the other one outside:
to the host, or it is an interface that was the host's. All translation of addresses is here and on the host.
So the switch sees the addresses of both ends, except that the host has those of its end of the transfer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import blake2b
from ipaddress import ip_address, ip_interface, ip_network

from vnet.base.protocols import PORT_PROTOCOLS, TCP
from vnet.topology.inventory import Exit, Inventory, Vm
from vnet.topology.model import HOST_UPLINK, IPAddress, Published, Topology
from vnet.topology.routing import Routing, gateway_mac
from vnet.topology.transfer import Transfer

FABRIC, HOST = "fabric0", "host0"
"""The gateway's interfaces: to the switch, and to the host."""
NEXT_HOP = {4: "169.254.0.1", 6: "fe80::1"}
"""Who stands for the switch in the gateway's routes: nobody has these addresses, only the fabric's MAC."""
GROUP = 30317
"""Of interfaces (`ip link show group 30317`): that of all which lead from the host to gateways."""
PROTOCOL = 118
"""Of our routes (`ip route show proto 118`): none that iproute2 has a name for."""
AS_HOST = 1
"""The mark of what is to come from the host's address: a try of a port that is open to the host only."""
_PORTS = range(1024, 65536)


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
    def targets(self) -> frozenset[str]:
        """The addresses of all to whom something outside leads."""
        doors = (target for door in self.doors for target in door.targets)
        return frozenset((*doors, *(each.target for each in self.floating)))

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
        for port in spec.ports if vms else ():
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


Dead = frozenset[tuple[str, int]]
"""Address and port of those targets that do not answer."""


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
