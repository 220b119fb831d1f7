"""Who a policy can speak of: every (NIC, address) of the fabric, link-local addresses included."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from vnet.topology.inventory import Inventory, Nic, Vm
from vnet.topology.model import Topology

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one NIC; compared by NIC name and address.

    `is_allowed`: it is not the NIC's own, but its profile allows it, maybe to others too.
    """

    name: str
    address: IPAddress
    nic: Nic = field(compare=False, repr=False)
    vm: Vm = field(compare=False, repr=False)
    is_allowed: bool = field(default=False, compare=False)

    @property
    def is_given(self) -> bool:
        """Whether the guest was told to have the address: it is neither link-local nor only allowed."""
        return not self.is_allowed and not self.address.is_link_local

    @property
    def macs(self) -> tuple[int, ...]:
        """Those with which the NIC may send from the address."""
        return macs(self.nic, self.address)

    def __str__(self) -> str:
        return f"{self.name} ({self.address})"


def link_local(mac: int) -> IPv6Address:
    """The address every IPv6 NIC gives itself: fe80::/64 with the modified EUI-64 of its MAC.

    Source: RFC 4291, section 2.5.1 and appendix A.
    """
    high, low = mac >> 24, mac & 0xFFFFFF
    interface = (high ^ 0x020000) << 40 | 0xFFFE << 24 | low
    return IPv6Address(0xFE80 << 112 | interface)


def has_ipv6(topology: Topology, network: str) -> bool:
    """Whether NICs of the network have link-local addresses: it declares an IPv6 subnet."""
    return any(subnet.version == 6 for subnet in topology.networks[network].subnets)


def addresses(topology: Topology, nic: Nic) -> tuple[IPAddress, ...]:
    """The addresses the NIC may send from: those it was given, then its link-local one."""
    given: tuple[IPAddress, ...] = tuple(interface.ip for interface in nic.addresses)
    own = link_local(nic.mac)
    return (*given, own) if has_ipv6(topology, nic.network) and own not in given else given


def allowed_addresses(topology: Topology, nic: Nic) -> tuple[IPAddress, ...]:
    """The further addresses that the NIC's profile allows it; none is that of a subnet or its broadcast."""
    if not nic.profile.pairs:
        return ()
    own = addresses(topology, nic)
    subnets = topology.networks[nic.network].subnets
    special = {each for net in subnets for each in (net.network_address, net.broadcast_address)}
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


class Places:
    """Where some endpoints are: by network, IP version and whether they are isolated there, the VMs."""

    def __init__(self, ends: Iterable[Endpoint]) -> None:
        self._vms: dict[tuple[str, int, bool], set[str]] = defaultdict(set)
        for end in ends:
            self._vms[end.nic.network, end.address.version, end.nic.is_isolated].add(end.vm.name)

    def can_meet(self, others: Places) -> bool:
        """Whether some two VMs of them are on one network, and not both isolated there."""
        return any(
            here[:2] == there[:2] and not (here[2] and there[2]) and len(ours | theirs) > 1
            for (here, ours), (there, theirs) in product(self._vms.items(), others._vms.items())
        )
