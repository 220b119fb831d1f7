"""Who a policy can speak of: every (NIC, address) of the fabric, link-local addresses included."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from vnet.topology.inventory import (
    Inventory,
    Nic,
    Vm,
    exit_key,
    interface_identifier,
    router_of_exit,
)
from vnet.topology.model import IPNetwork, Topology
from vnet.topology.routing import Routing, gateway_mac

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Block:
    """Addresses outside: those of a prefix that lie in none of the `holes`.

    `depth` is in how many prefixes of other blocks it lies, `tag` what VLAN their packets have at the port.
    `is_named`: some rule or claim names the prefix.
    """

    prefix: IPNetwork
    holes: tuple[IPNetwork, ...] = ()
    depth: int = 0
    tag: int = 0
    is_named: bool = False

    def __contains__(self, address: IPAddress) -> bool:
        return address in self.prefix and not any(address in hole for hole in self.holes)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one NIC; compared by NIC name and address.

    `is_allowed`: it is not the NIC's own, but its profile allows it, maybe to others too. `block`: it is
    outside, and stands for these addresses (see `vnet.policy.outside`); the NIC is the port that leads there.
    """

    name: str
    address: IPAddress
    nic: Nic = field(compare=False, repr=False)
    vm: Vm = field(compare=False, repr=False)
    is_allowed: bool = field(default=False, compare=False)
    block: Block | None = field(default=None, compare=False)

    @property
    def is_outside(self) -> bool:
        """Whether it is nobody of the fabric."""
        return self.block is not None

    @property
    def who(self) -> str:
        """What it is called: as the VM is declared, or `internet`, `host` or the CIDR that is named."""
        return str(self.block.prefix) if self.block and self.block.is_named else self.vm.spec

    @property
    def is_link_local(self) -> bool:
        """Whether no router takes packets from it or to it; a host outside may have such an IPv4 address."""
        return self.address.is_link_local and not (self.is_outside and self.address.version == 4)

    @property
    def is_given(self) -> bool:
        """Whether the guest was told to have the address: it is neither link-local nor only allowed."""
        return not self.is_allowed and not self.is_link_local

    @property
    def macs(self) -> tuple[int, ...]:
        """Those with which the NIC may send from the address."""
        return macs(self.nic, self.address)

    def __str__(self) -> str:
        return f"{self.vm.name if self.is_outside else self.name} ({self.address})"


def link_local(mac: int) -> IPv6Address:
    """The address every IPv6 NIC gives itself: fe80::/64 with the modified EUI-64 of its MAC.

    Source: RFC 4291, section 2.5.1 and appendix A.
    """
    return IPv6Address(0xFE80 << 112 | interface_identifier(mac))


def has_ipv6(topology: Topology, network: str) -> bool:
    """Whether NICs of the network have link-local addresses: it declares an IPv6 subnet."""
    return any(subnet.version == 6 for subnet in topology.networks[network].subnets)


def addresses(topology: Topology, nic: Nic) -> tuple[IPAddress, ...]:
    """The addresses the NIC may send from: those it was given, then its link-local one."""
    given: tuple[IPAddress, ...] = tuple(interface.ip for interface in nic.addresses)
    own = link_local(nic.mac)
    return (*given, own) if has_ipv6(topology, nic.network) and own not in given else given


def allowed_addresses(topology: Topology, nic: Nic) -> tuple[IPAddress, ...]:
    """The further addresses that the NIC's profile allows it; none is of a subnet itself or its router."""
    if not nic.profile.pairs:
        return ()
    own = addresses(topology, nic)
    subnets = topology.networks[nic.network].subnets
    special = {each for net in subnets for each in (net.network_address, net.broadcast_address)}
    special |= {*Routing(topology).gateways(nic.network)}
    wanted = dict.fromkeys(address for address, _ in nic.profile.allowed())
    return tuple(address for address in wanted if address not in special and address not in own)


def macs(nic: Nic, address: IPAddress) -> tuple[int, ...]:
    """The MACs with which a NIC may send from an address: those of the address's pairs, else its own."""
    pairs = (pair for pair in nic.profile.pairs if address in pair.addresses)
    return tuple(dict.fromkeys(nic.mac if pair.mac is None else pair.mac for pair in pairs)) or (nic.mac,)


def reached_by(ends: Iterable[Endpoint]) -> Mapping[tuple[str, IPAddress], tuple[int, ...]]:
    """The MACs by which each endpoint is reached: one that several may use with the address leads nowhere."""
    ends = tuple(ends)
    users = Counter((end.nic.vlan, mac, end.address) for end in ends for mac in end.macs)
    return {
        (end.name, end.address): tuple(mac for mac in end.macs if users[end.nic.vlan, mac, end.address] == 1)
        for end in ends
    }


def is_routed_to(routing: Routing, end: Endpoint, holders: int) -> bool:
    """Whether the router of its network delivers packets from other networks to the endpoint.

    Args: `holders` is how many NICs of the network may use its address: if several may, nobody knows which.
    """
    router = routing.router(end.nic.network)
    way = None if router is None else routing.lead(router, end.address)
    if way is None or way.network != end.nic.network:
        return False
    if way.via is not None:
        return way.via in {interface.ip for interface in end.nic.addresses}
    return not end.is_allowed or holders == 1


def endpoints(topology: Topology, inventory: Inventory) -> Iterator[Endpoint]:
    """Every endpoint, in file order."""
    for vm in inventory.vms:
        for nic in vm.nics:
            yield from endpoints_of(topology, vm, nic)


def endpoints_of(topology: Topology, vm: Vm, nic: Nic) -> Iterator[Endpoint]:
    """Those of one NIC of a VM."""
    for address in addresses(topology, nic):
        yield Endpoint(nic.name, address, nic, vm)
    for address in allowed_addresses(topology, nic):
        yield Endpoint(nic.name, address, nic, vm, is_allowed=True)


class Roads:
    """The ways between endpoints of different networks."""

    def __init__(self, topology: Topology, everyone: Iterable[Endpoint]) -> None:
        self.routing = Routing(topology)
        self._gateway = gateway_mac(topology.name)
        ends = tuple(everyone) if topology.routers else ()
        holders = Counter((end.nic.network, end.address) for end in ends)
        self._routed = {
            (end.name, end.address)
            for end in ends
            if is_routed_to(self.routing, end, holders[end.nic.network, end.address])
        }

    def is_routed_to(self, target: Endpoint) -> bool:
        """Whether a router delivers packets of other networks to it."""
        return (target.name, target.address) in self._routed

    def are_neighbours(self, source: Endpoint, target: Endpoint) -> bool:
        """Whether they have addresses of one family on one network."""
        return (
            source.nic.network == target.nic.network
            and source.address.version == target.address.version
            and not (source.is_outside and target.is_outside)
        )

    def leads(self, source: Endpoint, target: Endpoint) -> bool:
        """Whether a router takes packets from one to the other, who is in another network or outside."""
        if source.is_outside or target.is_outside:
            return source.address.version == target.address.version and self._leads_out(source, target)
        return (
            self.is_routed_to(target)
            and source.nic.network != target.nic.network
            and source.address.version == target.address.version
            and not source.address.is_link_local
            and self.routing.way(source.nic.network, target.address) is not None
            and self.routing.are_joined(source.nic.network, target.nic.network)
        )

    def _leads_out(self, source: Endpoint, target: Endpoint) -> bool:
        """The same for an exit: that of the router of the other's network."""
        own, other = (target, source) if source.is_outside else (source, target)
        router = self.routing.router(own.nic.network)
        if own.is_outside or router is None or exit_key(router.name) != other.name:
            return False
        if source is own:
            return not own.address.is_link_local and self.routing.leaves(own.nic.network, other.address)
        return self.is_routed_to(own)

    def reaches(self, source: Endpoint, target: Endpoint) -> bool:
        """Whether packets come from the one to the other, as far as networks and routers go."""
        if source.nic.network == target.nic.network:
            return self.are_neighbours(source, target)
        return self.leads(source, target)

    def can_meet(self, client: Endpoint, server: Endpoint) -> bool:
        """Whether they come from each to the other."""
        return self.reaches(client, server) and self.reaches(server, client)

    def places(self, end: Endpoint) -> tuple[str, ...]:
        """What the network of a connection of the endpoint may be called: its own, or its router."""
        if end.is_outside and not end.nic.network:
            return (f"router {router_of_exit(end.name)}",)
        router = self.routing.router(end.nic.network)
        return (end.nic.network,) if router is None else (end.nic.network, f"router {router.name}")

    def between(self, source: Endpoint, target: Endpoint) -> str:
        """What the way is called by which they meet: the network, or one and the other."""
        here, there = (end.nic.network or "outside" for end in (source, target))
        return here if here == there else f"{here} -> {there}"

    def mac(self, source: Endpoint, target: Endpoint) -> int:
        """To whom the source sends what is for the target."""
        return target.macs[0] if source.nic.network == target.nic.network else self._gateway


class Places:
    """Where some endpoints are: by network, IP version and who they are apart from there, the VMs.

    Networks of one router are one place more, in which nobody is isolated. Who is beyond a cable is in its
    network alone.
    """

    def __init__(self, ends: Iterable[Endpoint], routing: Routing) -> None:
        self._vms: dict[tuple[str, int, str], set[str]] = defaultdict(set)
        for end in ends:
            version, who = end.address.version, end.vm.name
            if end.is_outside:
                place = end.nic.network or f"router {router_of_exit(end.name)}"
                self._vms[place, version, "outside"].add(who)
                continue
            self._vms[end.nic.network, version, "isolated" if end.nic.is_isolated else ""].add(who)
            router = routing.router(end.nic.network)
            if router is not None:
                self._vms[f"router {router.name}", version, ""].add(who)

    def can_meet(self, others: Places) -> bool:
        """Whether some two of them are at one place, and not both isolated or outside there."""
        return any(
            here[:2] == there[:2] and not (here[2] and here[2] == there[2]) and len(ours | theirs) > 1
            for (here, ours), (there, theirs) in product(self._vms.items(), others._vms.items())
        )
