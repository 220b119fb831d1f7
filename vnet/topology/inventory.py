"""The concrete VMs and NICs of a topology: replicas expanded, MACs, addresses and ports allocated.

`expand(topology, previous)` is pure: what `previous` assigned to a NIC that still exists is kept, so
a NIC never changes its port number, MAC or address because another one came or went.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from hashlib import blake2b
from ipaddress import ip_interface
from itertools import count
from types import MappingProxyType

from vnet.base.boot import MICRO_BOOT, Boot
from vnet.base.errors import Fault, InputError
from vnet.base.line import STRAIGHT, Line
from vnet.base.source import Location
from vnet.topology.endpoints import EndpointSpec
from vnet.topology.life import NO_LIFE, Condition, HealthCheck, Life
from vnet.topology.model import (
    HOST_UPLINK,
    STRICT,
    Advertised,
    DiskSpec,
    Interface,
    IPAddress,
    IPInterface,
    IPNetwork,
    Network,
    Profile,
    Served,
    ToErspan,
    Topology,
    ToVxlan,
    UplinkMode,
    VmSpec,
)
from vnet.topology.mtu import ETHERNET_BYTES, Interfaces, largest_bytes, mtu_bytes
from vnet.topology.pool import Pool
from vnet.topology.routing import Routing, gateway_mac
from vnet.topology.transfer import Transfer
from vnet.topology.values import format_mac

NO_INTERFACES: Interfaces = MappingProxyType({})
"""Of a host that nobody has looked at."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one NIC got: OpenFlow port number (1…), MAC (48-bit integer), addresses."""

    port: int
    mac: int
    addresses: tuple[IPInterface, ...]


class Dhcpv6(Enum):
    """What a guest asks a server of DHCPv6 for. INFORMATION: names only, it makes its address itself."""

    NOTHING = ""
    INFORMATION = "information"
    ADDRESS = "address"


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC of one VM. `name` is `VM.INTERFACE` (`web-1.eth0`), unique in the fabric."""

    name: str
    vm: str
    interface: str
    network: str
    vlan: int
    port: int
    mac: int
    addresses: tuple[IPInterface, ...]
    at: Location
    is_isolated: bool = False
    """It reaches no other isolated NIC of its network."""
    profile: Profile = STRICT
    asked: tuple[IPInterface, ...] = ()
    """Of its addresses those that the guest asks for, or makes of what is advertised: it is not configured
    with them."""
    gateways: tuple[IPAddress, ...] = ()
    """Of the VM's default routes: for each version of IP that of its first NIC which has one."""
    mtu_bytes: int = ETHERNET_BYTES
    dhcpv6: Dhcpv6 = Dhcpv6.NOTHING
    resolvers: tuple[IPAddress, ...] = ()
    """Who answers the guest's questions for names, as far as no DHCP tells it that."""
    domain: str = ""
    line: Line = STRAIGHT
    dscp: int | None = None
    """What the packets that it sends are marked with; None leaves them as they are."""


@dataclass(frozen=True, slots=True)
class Listener:
    """A NIC that is in no network: it gets what mirrors copy to it, and what it sends is dropped."""

    name: str
    vm: str
    interface: str
    port: int
    mac: int
    at: Location
    mtu_bytes: int = ETHERNET_BYTES


@dataclass(frozen=True, slots=True)
class ServicePort:
    """Where the one is plugged in who answers a network's guests: DHCP, router advertisements, names.

    It has the address of the gateway in each subnet, and the gateway's MAC.
    """

    network: str
    vlan: int
    port: int
    mac: int
    addresses: tuple[IPInterface, ...]
    at: Location
    mtu_bytes: int = ETHERNET_BYTES


@dataclass(frozen=True, slots=True)
class Exit:
    """Where a router's way out is plugged in: behind the port is a namespace that forwards, the gateway.

    What comes from it has the gateway's `mac`, and is handed the router's.
    """

    router: str
    uplink: str
    """`host`, or the name of an uplink with addresses."""
    port: int
    mac: int
    host: tuple[IPAddress, ...]
    """The addresses by which the host itself is known to VMs; () unless it is the uplink."""
    at: Location


@dataclass(frozen=True, slots=True)
class UplinkPort:
    """An interface of the host as a port of the switch. `networks` are those it carries, with their VLANs.

    Without `is_tagged` it is one, whose packets have no tag there.
    """

    uplink: str
    interface: str
    port: int
    networks: Mapping[str, int]
    is_tagged: bool
    at: Location


@dataclass(frozen=True, slots=True)
class Awaited:
    """A VM that another one waits for: until it is started, and until it is healthy by `health`, if given."""

    vm: str
    health: HealthCheck | None


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM to run. `spec` is the name it was declared under (`web` for the replica `web-1`).

    `groups` holds the groups it lists and those whose labels it carries.
    """

    name: str
    spec: str
    image: str
    cpus: int
    memory_bytes: int
    nics: tuple[Nic, ...]
    groups: frozenset[str]
    at: Location
    listeners: tuple[Listener, ...] = ()
    """They come behind its other NICs."""
    life: Life = NO_LIFE
    disks: tuple[DiskSpec, ...] = ()
    boot: Boot = MICRO_BOOT
    awaits: tuple[Awaited, ...] = ()
    """The VMs that are started first: all replicas of those that it depends on."""
    endpoint: EndpointSpec | None = None
    """Where it is, of one that is attached and not launched."""


@dataclass(frozen=True, slots=True)
class Inventory:
    """All VMs of a fabric, in file order."""

    fabric: str
    vms: tuple[Vm, ...]
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    """By NIC name; what to hand to the next `expand` as `previous`. Other ports are there too: of mirrors to
    other machines, services, exits and uplinks, each under its `mirror_key` and so on."""
    services: tuple[ServicePort, ...] = ()
    """One of each network that has any."""
    exits: tuple[Exit, ...] = ()
    """One of each router with an uplink."""
    uplinks: tuple[UplinkPort, ...] = ()
    """Those that carry networks."""

    @property
    def launched(self) -> tuple[Vm, ...]:
        """Those that are run here: all but endpoints."""
        return tuple(vm for vm in self.vms if vm.endpoint is None)

    @property
    def listeners(self) -> tuple[Listener, ...]:
        """Every NIC of every VM that only listens."""
        return tuple(listener for vm in self.vms for listener in vm.listeners)

    @property
    def nics(self) -> tuple[Nic, ...]:
        """Every NIC of every VM, in file order."""
        return tuple(nic for vm in self.vms for nic in vm.nics)


def expand(
    topology: Topology, previous: Mapping[str, Assignment], interfaces: Interfaces = NO_INTERFACES
) -> Inventory:
    """The VMs and NICs of a topology.

    Args: `previous` are the assignments of the last expansion, by NIC name, {} for a new fabric;
    `interfaces` the MTUs of the host's, as far as they are known.
    Assignments are kept, except addresses that no longer lie in their network or that the file now
    gives to somebody. New NICs avoid also what NICs that are gone had, as long as there is room, so
    that the new one can be made before the old one is removed.
    Raises InputError when a subnet has no address left.
    """
    pending = _pending(topology)
    tunnels = [mirror_key(each.name) for each in topology.mirrors if isinstance(each.to, ToVxlan | ToErspan)]
    served = [service_key(each.name) for each in topology.networks.values() if each.has_services]
    exits = [exit_key(each.name) for each in topology.routers.values() if each.uplink]
    cables = [uplink_key(each.name) for each in topology.uplinks.values() if each.networks]
    others = (*tunnels, *served, *exits, *cables)
    ports = _ports([*(nic.name for nic in pending), *others], previous)
    macs = _macs(topology, pending, previous)
    plugged = tuple(nic for nic in pending if not nic.declared.is_mirror_only)
    addresses = _addresses(topology, plugged, previous, macs)
    mtus = {name: mtu_bytes(topology, network, interfaces) for name, network in topology.networks.items()}
    nics = {nic.name: _nic(nic, topology, ports, macs, addresses, mtus) for nic in plugged}
    longest = largest_bytes(topology, interfaces)
    listeners = {
        nic.name: _listener(nic, ports, macs, longest) for nic in pending if nic.declared.is_mirror_only
    }
    vms = tuple(
        _vm(topology, name, spec, nics, listeners)
        for spec in topology.vms.values()
        for name in instances(spec)
    )
    assignments = {nic.name: Assignment(nic.port, nic.mac, nic.addresses) for nic in nics.values()}
    assignments |= {each.name: Assignment(each.port, each.mac, ()) for each in listeners.values()}
    assignments |= {name: Assignment(ports[name], 0, ()) for name in others}
    return Inventory(
        topology.name,
        vms,
        assignments,
        tuple(_services(topology, ports, mtus)),
        tuple(_exits(topology, ports)),
        tuple(_uplinks(topology, ports)),
    )


def _exits(topology: Topology, ports: Mapping[str, int]) -> Iterator[Exit]:
    for router in topology.routers.values():
        if router.uplink:
            key = exit_key(router.name)
            transfer = Transfer.of(topology.name, router.name)
            host = transfer.host if router.uplink == HOST_UPLINK else ()
            yield Exit(
                router.name, router.uplink, ports[key], derived_mac(topology.name, key), host, router.at
            )


def _uplinks(topology: Topology, ports: Mapping[str, int]) -> Iterator[UplinkPort]:
    for each in topology.uplinks.values():
        if each.networks:
            vlans = {name: topology.networks[name].vlan for name in each.networks}
            port, is_tagged = ports[uplink_key(each.name)], each.mode is UplinkMode.TRUNK
            yield UplinkPort(each.name, each.interface, port, vlans, is_tagged, each.at)


def _services(topology: Topology, ports: Mapping[str, int], mtus: Mapping[str, int]) -> Iterator[ServicePort]:
    mac = gateway_mac(topology.name)
    for network in topology.networks.values():
        if network.has_services:
            own = ((network.gateway(subnet), subnet.prefixlen) for subnet in network.subnets)
            addresses = tuple(ip_interface(f"{address}/{length}") for address, length in own if address)
            port = ports[service_key(network.name)]
            mtu = mtus[network.name]
            yield ServicePort(network.name, network.vlan, port, mac, addresses, network.at, mtu)


def mirror_key(name: str) -> str:
    """What the port of a mirror to another machine is assigned under: no NIC can be called that."""
    return f"mirror:{name}"


def service_key(network: str) -> str:
    """What the port of a network's services is assigned under: no NIC can be called that."""
    return f"service:{network}"


def exit_key(router: str) -> str:
    """What the port of a router's way out is assigned under: no NIC can be called that."""
    return f"exit:{router}"


def router_of_exit(key: str) -> str:
    """The router of which this is the `exit_key`."""
    return key.partition(":")[2]


def uplink_key(name: str) -> str:
    """What the port of an uplink is assigned under: no NIC can be called that."""
    return f"uplink:{name}"


def instances(spec: VmSpec) -> tuple[str, ...]:
    """Names of the VMs that a declared VM stands for: `web`, or with replicas `web-1`, `web-2`."""
    return replica_names(spec.name, spec.replicas)


def replica_names(name: str, replicas: int | None) -> tuple[str, ...]:
    """See `instances`; without replicas the one VM bears the declared name."""
    return (name,) if replicas is None else tuple(f"{name}-{i}" for i in range(1, replicas + 1))


@dataclass(frozen=True, slots=True)
class _Pending:
    """A NIC that is known by name and has not got its port, MAC and addresses."""

    name: str
    vm: str
    declared: Interface


def _pending(topology: Topology) -> tuple[_Pending, ...]:
    return tuple(
        _Pending(f"{vm}.{interface.name}", vm, interface)
        for spec in topology.vms.values()
        for vm in instances(spec)
        for interface in spec.interfaces
    )


def _vm(
    topology: Topology, name: str, spec: VmSpec, nics: Mapping[str, Nic], listeners: Mapping[str, Listener]
) -> Vm:
    names = [f"{name}.{interface.name}" for interface in spec.interfaces]
    own = tuple(_with_gateways(topology, [nics[each] for each in names if each in nics]))
    silent = tuple(listeners[each] for each in names if each in listeners)
    by_label = {
        group for group, labels in topology.group_labels.items() if labels.items() <= spec.labels.items()
    }
    groups = frozenset(spec.groups) | by_label
    return Vm(
        name,
        spec.name,
        spec.image,
        spec.cpus,
        spec.memory_bytes,
        own,
        groups,
        spec.at,
        silent,
        spec.life,
        spec.disks,
        spec.boot,
        tuple(_awaited(topology, spec)),
        spec.endpoint,
    )


def _awaited(topology: Topology, spec: VmSpec) -> Iterator[Awaited]:
    for each in spec.life.depends_on:
        for name in instances(topology.vms[each.vm]):
            health = topology.vms[each.vm].life.health if each.condition is Condition.HEALTHY else None
            yield Awaited(name, health)


def _with_gateways(topology: Topology, nics: Sequence[Nic]) -> Iterator[Nic]:
    routing, known = Routing(topology), set[int]()
    for nic in nics:
        versions = {address.version for address in nic.addresses} - known
        found = {each.version: each for each in reversed(routing.next_hops(nic.network))}
        own = tuple(found[version] for version in sorted(versions & found.keys()))
        known |= {each.version for each in own}
        yield replace(nic, gateways=own) if own else nic


def _listener(nic: _Pending, ports: Mapping[str, int], macs: Mapping[str, int], mtu: int) -> Listener:
    port, mac = ports[nic.name], macs[nic.name]
    return Listener(nic.name, nic.vm, nic.declared.name, port, mac, nic.declared.at, mtu)


def _nic(
    nic: _Pending,
    topology: Topology,
    ports: Mapping[str, int],
    macs: Mapping[str, int],
    addresses: Mapping[str, tuple[IPInterface, ...]],
    mtus: Mapping[str, int],
) -> Nic:
    network = topology.networks[nic.declared.network]
    asks, own = nic.declared.asks, addresses[nic.name]
    asked = tuple(_asked(network, macs[nic.name], own)) if asks else ()
    resolvers = tuple(_resolvers(network, own, asked))
    return Nic(
        name=nic.name,
        vm=nic.vm,
        interface=nic.declared.name,
        network=network.name,
        vlan=network.vlan,
        port=ports[nic.name],
        mac=macs[nic.name],
        addresses=addresses[nic.name],
        at=nic.declared.at,
        is_isolated=network.is_isolated and not nic.declared.is_promiscuous,
        profile=topology.profiles.get(nic.declared.profile, STRICT),
        asked=asked,
        mtu_bytes=mtus[network.name],
        dhcpv6=_dhcpv6(network, macs[nic.name], asked),
        resolvers=resolvers,
        domain=network.domain if resolvers else "",
        line=nic.declared.line,
        dscp=nic.declared.dscp,
    )


def _asked(network: Network, mac: int, addresses: tuple[IPInterface, ...]) -> Iterator[IPInterface]:
    """The addresses that a guest learns: over IPv6 only where a router tells it who are its neighbours."""
    for address in addresses:
        served = _served(network, address)
        is_told = served.dhcp is not None and (address.version == 4 or served.ra is not Advertised.NONE)
        if is_told or _is_made(served, mac, address):
            yield address


def _served(network: Network, address: IPInterface) -> Served:
    return network.serves(next(each for each in network.subnets if address.ip in each))


def _is_made(served: Served, mac: int, address: IPInterface) -> bool:
    """Whether a guest makes the address of what is advertised and its MAC."""
    if served.ra is not Advertised.SLAAC:
        return False
    return address.ip == served.subnet.network_address + interface_identifier(mac)


def _dhcpv6(network: Network, mac: int, asked: tuple[IPInterface, ...]) -> Dhcpv6:
    served = [(_served(network, each), each) for each in asked if each.version == 6]
    told = [(each, address) for each, address in served if each.dhcp is not None]
    if any(not _is_made(each, mac, address) for each, address in told):
        return Dhcpv6.ADDRESS
    return Dhcpv6.INFORMATION if told else Dhcpv6.NOTHING


def _resolvers(
    network: Network, addresses: tuple[IPInterface, ...], asked: tuple[IPInterface, ...]
) -> Iterator[IPAddress]:
    """The network's own server, at its address in each subnet where no DHCP tells the guest of it."""
    for address in addresses if network.domain else ():
        served = _served(network, address)
        gateway = network.gateway(served.subnet)
        if gateway is not None and not (address in asked and served.dhcp is not None):
            yield gateway


# ---- ports -----------------------------------------------------------------------------------


def _ports(names: Sequence[str], previous: Mapping[str, Assignment]) -> dict[str, int]:
    """OpenFlow port numbers: the previous one, else the lowest from 1 that nobody has or had."""
    owners: dict[int, str] = {}
    for name in names:
        if name in previous:
            owners.setdefault(previous[name].port, name)
    kept = {name: port for port, name in owners.items()}
    had = {each.port for each in previous.values()}
    free = (port for port in count(1) if port not in had)
    return {name: kept[name] if name in kept else next(free) for name in names}


# ---- MACs ------------------------------------------------------------------------------------

_OUI = 0x525400
"""The prefix QEMU gives to virtual NICs; locally administered, unicast."""


def derived_mac(fabric: str, nic: str, attempt: int = 0) -> int:
    """52:54:00 and three bytes that depend on the names only; `attempt` gives another one."""
    text = f"{fabric}/{nic}" if attempt == 0 else f"{fabric}/{nic}#{attempt}"
    return _OUI << 24 | int.from_bytes(blake2b(text.encode(), digest_size=3).digest(), "big")


def _macs(
    topology: Topology, pending: tuple[_Pending, ...], previous: Mapping[str, Assignment]
) -> dict[str, int]:
    """Declared ones first, then previous ones, then derived ones, each only if it is still free."""
    macs = {nic.name: nic.declared.mac for nic in pending if nic.declared.mac is not None}
    pairs = (pair for profile in topology.profiles.values() for pair in profile.pairs)
    used = {*macs.values(), *(pair.mac for pair in pairs if pair.mac is not None)}
    for nic in pending:
        kept = previous.get(nic.name)
        if nic.name not in macs and kept is not None and kept.mac not in used:
            macs[nic.name] = kept.mac
            used.add(kept.mac)
    for nic in pending:
        if nic.name not in macs:
            tries = (derived_mac(topology.name, nic.name, attempt) for attempt in count())
            macs[nic.name] = next(mac for mac in tries if mac not in used)
            used.add(macs[nic.name])
    return macs


def interface_identifier(mac: int) -> int:
    """The lower half of the IPv6 addresses that a guest makes of a MAC: the modified EUI-64.

    Source: RFC 4291, section 2.5.1 and appendix A.
    """
    high, low = mac >> 24, mac & 0xFFFFFF
    return (high ^ 0x020000) << 40 | 0xFFFE << 24 | low


# ---- addresses -------------------------------------------------------------------------------


def _addresses(
    topology: Topology,
    pending: tuple[_Pending, ...],
    previous: Mapping[str, Assignment],
    macs: Mapping[str, int],
) -> dict[str, tuple[IPInterface, ...]]:
    """What each NIC declares, else one address of each subnet of its network."""
    taken = {address.ip for nic in pending for address in nic.declared.addresses}
    taken |= {address for profile in topology.profiles.values() for address, _ in profile.allowed()}
    fixed = _fixed_addresses(topology, pending, macs)
    taken |= {address.ip for address in fixed.values()} | set(_reserved(topology))
    kept = _kept_addresses(topology, pending, previous, taken) | fixed
    gone = {address.ip for each in previous.values() for address in each.addresses}
    allocators = {
        subnet: _Allocator(_pool(network, subnet), taken, gone)
        for network in topology.networks.values()
        for subnet in network.subnets
    }
    faults: list[Fault] = []
    found: dict[str, tuple[IPInterface, ...]] = {}
    for nic in pending:
        found[nic.name] = nic.declared.addresses or tuple(
            kept.get((nic.name, subnet)) or allocators[subnet].take(nic, faults)
            for subnet in topology.networks[nic.declared.network].subnets
        )
    if faults:
        raise InputError(faults)
    return found


def _pool(network: Network, subnet: IPNetwork) -> Pool:
    dhcp = network.serves(subnet).dhcp
    return Pool(subnet, network.gateway(subnet), None if dhcp is None else dhcp.range)


def _reserved(topology: Topology) -> Iterator[IPAddress]:
    """All that are kept for somebody, also for MACs that no NIC has now."""
    for network in topology.networks.values():
        for served in network.served:
            yield from served.dhcp.reservations.values() if served.dhcp else ()


def _fixed_addresses(
    topology: Topology, pending: tuple[_Pending, ...], macs: Mapping[str, int]
) -> dict[tuple[str, IPNetwork], IPInterface]:
    """The addresses that are not to be chosen, by NIC and subnet: reserved ones, and those made of MACs."""
    fixed: dict[tuple[str, IPNetwork], IPInterface] = {}
    for nic in pending:
        for served in () if nic.declared.addresses else topology.networks[nic.declared.network].served:
            pool = Pool(served.subnet, None)
            reserved = served.dhcp.reservations if served.dhcp else {}
            own = reserved.get(nic.name) or reserved.get(format_mac(macs[nic.name]))
            if own is None and served.ra is Advertised.SLAAC:
                own = served.subnet.network_address + interface_identifier(macs[nic.name])
            if own is not None:
                fixed[nic.name, served.subnet] = pool.interface(int(own))
    return fixed


def _kept_addresses(
    topology: Topology,
    pending: tuple[_Pending, ...],
    previous: Mapping[str, Assignment],
    taken: set[IPAddress],
) -> dict[tuple[str, IPNetwork], IPInterface]:
    """Previous addresses that still hold, by NIC and subnet; they are added to `taken`."""
    kept: dict[tuple[str, IPNetwork], IPInterface] = {}
    for nic in pending:
        had = previous.get(nic.name)
        if had is None or nic.declared.addresses:
            continue
        network = topology.networks[nic.declared.network]
        for subnet in network.subnets:
            pool = _pool(network, subnet)
            ip = next((each.ip for each in had.addresses if pool.may_allocate(each.ip)), None)
            if ip is not None and ip not in taken:
                kept[nic.name, subnet] = pool.interface(int(ip))
                taken.add(ip)
    return kept


class _Allocator:
    """Gives out the addresses of one subnet, lowest first; those in `gone` only when no other is left."""

    def __init__(self, pool: Pool, taken: set[IPAddress], gone: set[IPAddress]) -> None:
        self._pool = pool
        self._taken = {int(ip) for ip in taken if ip in pool.subnet}
        self._avoided = self._taken | {int(ip) for ip in gone if ip in pool.subnet}
        self._next = 0

    def take(self, nic: _Pending, faults: list[Fault]) -> IPInterface:
        """The next address; without one a fault, and an address that nobody will see."""
        value = self._pool.lowest_free(self._avoided, self._next)
        if value is None:
            value = self._pool.lowest_free(self._taken, 0)
        if value is None:
            problem = f"the subnet {self._pool.subnet} has no address left for {nic.name}"
            faults.append(Fault(nic.declared.at, f"networks.{nic.declared.network}.subnets", problem))
            return ip_interface(self._pool.subnet.network_address)
        self._taken.add(value)
        self._avoided.add(value)
        self._next = value + 1
        return self._pool.interface(value)
