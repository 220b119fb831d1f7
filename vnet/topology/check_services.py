"""Checks of DHCP, router advertisements and DNS: what is handed out is there, and nobody else's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vnet.topology import language_networks as lang
from vnet.topology.draft import (
    Draft,
    DraftNic,
    advertised_in,
    dhcp_of,
    has_services,
    replicas,
    reservations_of,
    served_in,
)
from vnet.topology.inventory import replica_names
from vnet.topology.model import Advertised, IPAddress, IPNetwork, first_host
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.shape import Entry, Read
from vnet.topology.values import format_mac

SLAAC_PREFIX = 64
"""The length of a prefix of which guests can make an address (RFC 4862, 5.5.3; RFC 2464, 4)."""


@dataclass(frozen=True, slots=True)
class _Subnet:
    """One subnet of a network, as the file has it."""

    network: str
    cidr: IPNetwork
    gateway: IPAddress | None
    entry: Entry


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the services to `reading`."""
    nics = dict(_instances(draft))
    owners: dict[IPAddress, str] = {
        address.value.ip: name for name, nic in nics.items() for address in nic.addresses
    }
    for of_vm in draft.nics.values():
        for nic in of_vm:
            _check_asking(nic, draft, reading)
    for name, network in draft.networks.items():
        is_served = has_services(network.value)
        _check_one_voice([entry for _, entry in served_in(network.value)], reading)
        for cidr, entry in served_in(network.value):
            found = entry.get(lang.SUBNET_GATEWAY)
            gateway = first_host(cidr.value) if found is None else found.value
            subnet = _Subnet(name, cidr.value, gateway, entry)
            if is_served and gateway is None:
                problem = f"{cidr.value} has no room for who answers the guests of network {quoted(name)}"
                reading.fault(cidr.at, cidr.path, problem)
            _check_ra(subnet, reading)
            _check_range(subnet, reading)
            _check_reservations(subnet, nics, owners, reading)
            if is_served and gateway is not None:
                _check_gateway(subnet, gateway, draft, reading)


def _instances(draft: Draft) -> Iterator[tuple[str, DraftNic]]:
    """Every NIC that there will be, by its name."""
    for spec, nics in draft.nics.items():
        for vm in replica_names(spec, replicas(draft.vms[spec].value)):
            yield from ((f"{vm}.{nic.name}", nic) for nic in nics)


def _check_asking(nic: DraftNic, draft: Draft, reading: Reading) -> None:
    network = None if nic.network is None else draft.networks.get(nic.network.value)
    if nic.asks is None or not nic.asks.value or network is None or network.value.broken:
        return
    told = (
        dhcp_of(each) is not None or advertised_in(each) is Advertised.SLAAC
        for _, each in served_in(network.value)
    )
    if not any(told):
        problem = (
            f"nobody would answer: network {quoted(nic.network.value if nic.network else '')} has no DHCP"
        )
        reading.fault(nic.asks.at, nic.asks.path, problem, 'add "dhcp: true" to its subnets')


def _check_ra(subnet: _Subnet, reading: Reading) -> None:
    given = subnet.entry.get(lang.SUBNET_RA)
    if given is None or given.value is Advertised.NONE:
        return
    if subnet.cidr.version == 4:
        problem = f"router advertisements are of IPv6, and {subnet.cidr} is not"
        reading.fault(given.at, given.path, problem, 'leave "ra" out')
    elif given.value is Advertised.SLAAC and subnet.cidr.prefixlen != SLAAC_PREFIX:
        problem = f"guests make addresses of a /{SLAAC_PREFIX} only, and {subnet.cidr} is none"
        reading.fault(given.at, given.path, problem, 'use "managed" with "dhcp: true"')
    elif given.value is Advertised.MANAGED and dhcp_of(subnet.entry) is None:
        problem = "guests would ask by DHCPv6, and nobody would answer"
        reading.fault(given.at, given.path, problem, 'add "dhcp: true"')


def _check_one_voice(subnets: list[Entry], reading: Reading) -> None:
    """One daemon advertises for all subnets of a network that it serves by DHCPv6, or for none."""
    if all(advertised_in(each) is not Advertised.MANAGED for each in subnets):
        return
    for subnet in subnets:
        found = subnet.get(lang.SUBNET_RA)
        if found is not None and found.value is Advertised.NONE and dhcp_of(subnet) is not None:
            cidr = subnet.get(lang.SUBNET_CIDR)
            if cidr is not None and cidr.value.version == 6:
                problem = f"another subnet of the network is managed, so {cidr.value} is advertised too"
                reading.fault(found.at, found.path, problem, 'use "managed" for all of them')


def _check_range(subnet: _Subnet, reading: Reading) -> None:
    dhcp = dhcp_of(subnet.entry)
    found = None if dhcp is None else dhcp.get(lang.DHCP_RANGE)
    if found is None:
        return
    for end in dict.fromkeys((found.value.first, found.value.last)):
        why = _why_no_host(end, subnet.cidr)
        if why:
            reading.fault(found.at, found.path, why)
    if subnet.cidr.version == 6 and advertised_in(subnet.entry) is Advertised.SLAAC:
        problem = f"addresses of {subnet.cidr} are made of the MACs of NICs, not chosen from a range"
        reading.fault(found.at, found.path, problem, 'leave "range" out, or use "ra: managed"')


def _why_no_host(address: IPAddress, cidr: IPNetwork) -> str:
    """Why an address cannot be that of a host of a subnet; empty if it can."""
    if address not in cidr:
        return f"{address} lies outside the subnet {cidr}"
    if address == cidr.network_address:
        return f"{address} is the address of the subnet {cidr} itself"
    if cidr.version == 4 and address == cidr.broadcast_address:
        return f"{address} is the broadcast address of {cidr}"
    return ""


def _check_reservations(
    subnet: _Subnet, nics: Mapping[str, DraftNic], owners: dict[IPAddress, str], reading: Reading
) -> None:
    macs = {format_mac(nic.mac.value): name for name, nic in nics.items() if nic.mac is not None}
    seen: set[str] = set()
    for name, address in reservations_of(subnet.entry):
        _check_reserved(subnet, name, address, owners, reading)
        nic = macs.get(name, name)
        if nic in seen:
            reading.fault(
                address.at, address.path, f"{quoted(nic)} has a reservation in {subnet.cidr} already"
            )
        seen.add(nic)
        if nic in nics:
            _check_nic(subnet, nic, nics[nic], address, reading)
        elif ":" not in name and "." in name:
            problem = f"there is no NIC {quoted(name)}"
            reading.fault(address.at, address.path, problem, suggestion(name, nics))


def _check_reserved(
    subnet: _Subnet, name: str, address: Read[IPAddress], owners: dict[IPAddress, str], reading: Reading
) -> None:
    why = _why_no_host(address.value, subnet.cidr)
    if not why and address.value == subnet.gateway:
        why = f"{address.value} is the gateway of network {quoted(subnet.network)}"
    owner = owners.setdefault(address.value, name)
    if not why and owner != name:
        why = f"{address.value} is the address of {quoted(owner)} already"
    if why:
        reading.fault(address.at, address.path, why)


def _check_nic(subnet: _Subnet, name: str, nic: DraftNic, address: Read[IPAddress], reading: Reading) -> None:
    if nic.network is not None and nic.network.value != subnet.network:
        problem = f"{quoted(name)} is in network {quoted(nic.network.value)}, not {quoted(subnet.network)}"
        reading.fault(address.at, address.path, problem)
    elif nic.addresses:
        problem = f"{quoted(name)} declares its addresses itself"
        reading.fault(address.at, address.path, problem, "say it in one place")
    elif advertised_in(subnet.entry) is Advertised.SLAAC:
        problem = f"the address of {quoted(name)} in {subnet.cidr} is made of its MAC"
        reading.fault(address.at, address.path, problem, 'use "ra: managed" to choose it')


def _check_gateway(subnet: _Subnet, gateway: IPAddress, draft: Draft, reading: Reading) -> None:
    """No NIC has the address of who answers the guests. In a router's networks `check_routers` says so."""
    routed = {
        each.value
        for router in draft.routers.values()
        if (networks := router.value.get(lang.ROUTER_NETWORKS)) is not None
        for each in networks.value
    }
    for nics in () if subnet.network in routed else draft.nics.values():
        for nic in nics:
            for address in nic.addresses:
                if address.value.ip == gateway:
                    problem = f"{gateway} is the gateway of network {quoted(subnet.network)}"
                    hint = "who answers its guests has it"
                    reading.fault(address.at, address.path, problem, hint)
