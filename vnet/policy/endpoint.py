"""Who a policy can speak of: every (NIC, address) of the fabric, link-local addresses included."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from itertools import product

from vnet.topology.inventory import Inventory, Nic, Vm
from vnet.topology.model import Topology

IPAddress = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One address of one NIC; compared by NIC name and address."""

    name: str
    address: IPAddress
    nic: Nic = field(compare=False, repr=False)
    vm: Vm = field(compare=False, repr=False)

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


def endpoints(topology: Topology, inventory: Inventory) -> Iterator[Endpoint]:
    """Every endpoint, in file order."""
    for vm in inventory.vms:
        for nic in vm.nics:
            yield from endpoints_of(topology, vm, nic)


def endpoints_of(topology: Topology, vm: Vm, nic: Nic) -> Iterator[Endpoint]:
    """Those of one NIC of a VM."""
    return (Endpoint(nic.name, address, nic, vm) for address in addresses(topology, nic))


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
