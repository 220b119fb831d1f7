"""A file as it was read: typed values with places, templates merged, nothing checked across entries.

Checks work on this form because it exists also for a file with faults; `build` makes a Topology of
one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from vnet.base.source import Location
from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology import language_nics as lang_nics
from vnet.topology import language_policies as lang_policies
from vnet.topology import language_vms as lang_vms
from vnet.topology.endpoints import NIC
from vnet.topology.merge import merged_vms
from vnet.topology.model import TIERS, Advertised, Direction, IPAddress, IPInterface, IPNetwork, Service
from vnet.topology.shape import Entry, Field, Read

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class DraftNic:
    """A NIC of a VM, whichever way it was declared. `network` is None if missing or broken."""

    name: str
    network: Read[str] | None
    addresses: tuple[Read[IPInterface], ...]
    mac: Read[int] | None
    takes_addresses: bool
    """Whether it is to get an address of each subnet."""
    is_broken: bool
    is_promiscuous: bool
    profile: Read[str] | None
    is_mirror_only: bool
    at: Location
    path: str
    asks: Read[bool] | None = None
    rate: Read[Entry] | None = None
    dscp: Read[int] | None = None
    impair: Read[Entry] | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """The parts of a file; what is absent or broken is empty."""

    root: Entry
    networks: Mapping[str, Read[Entry]]
    routers: Mapping[str, Read[Entry]]
    uplinks: Mapping[str, Read[Entry]]
    profiles: Mapping[str, Read[Entry]]
    images: Mapping[str, Read[Entry]]
    vms: Mapping[str, Read[Entry]]
    nics: Mapping[str, tuple[DraftNic, ...]]
    """By the VM's name."""
    groups: Mapping[str, Read[Entry]]
    services: Mapping[str, Read[tuple[Read[Service], ...]]]
    tiers: tuple[str, ...]
    policies: tuple[Read[Entry], ...]
    mirrors: Mapping[str, Read[Entry]]
    endpoints: Mapping[str, Read[Entry]]
    """They are among `vms` too."""


def draft(root: Entry) -> Draft:
    """The parts of a file that was read."""
    endpoints = _named(root, lang.ENDPOINTS)
    vms = {**merged_vms(root), **endpoints}
    tiers = root.get(lang.ALL_TIERS)
    policies = root.get(lang.POLICIES)
    return Draft(
        root=root,
        networks=_named(root, lang.NETWORKS),
        routers=_named(root, lang.ROUTERS),
        uplinks=_named(root, lang.UPLINKS),
        profiles=_named(root, lang.PROFILES),
        images=_named(root, lang.IMAGES),
        vms=vms,
        nics={
            name: (_declared(NIC, vm),) if name in endpoints else tuple(_nics(vm.value))
            for name, vm in vms.items()
        },
        groups=_named(root, lang.GROUPS),
        services=_named(root, lang.SERVICES),
        tiers=TIERS if tiers is None else tuple(tier.value for tier in tiers.value),
        policies=() if policies is None else policies.value,
        mirrors=_named(root, lang.MIRRORS),
        endpoints=endpoints,
    )


def _named(root: Entry, key: Field[dict[str, Read[T]]]) -> Mapping[str, Read[T]]:
    found = root.get(key)
    return {} if found is None else found.value


def _nics(vm: Entry) -> Iterator[DraftNic]:
    networks, interfaces = vm.get(lang_vms.VM_NETWORKS), vm.get(lang_vms.VM_INTERFACES)
    if interfaces is not None:
        for name, interface in interfaces.value.items():
            yield _declared(name, interface)
    elif networks is not None:
        for i, network in enumerate(networks.value):
            yield DraftNic(
                f"eth{i}", network, (), None, True, False, False, None, False, network.at, network.path
            )


def _declared(name: str, interface: Read[Entry]) -> DraftNic:
    entry = interface.value
    addresses, promiscuous = (
        entry.get(lang_nics.INTERFACE_ADDRESSES),
        entry.get(lang_nics.INTERFACE_PROMISCUOUS),
    )
    mirror_only = entry.get(lang_nics.INTERFACE_MIRROR_ONLY)
    return DraftNic(
        name,
        entry.get(lang_nics.INTERFACE_NETWORK),
        () if addresses is None else addresses.value,
        entry.get(lang_nics.INTERFACE_MAC),
        not entry.given(lang_nics.INTERFACE_ADDRESSES),
        bool(entry.broken),
        promiscuous is not None and promiscuous.value,
        entry.get(lang_nics.INTERFACE_PROFILE),
        mirror_only is not None and mirror_only.value,
        interface.at,
        interface.path,
        entry.get(lang_nics.INTERFACE_DHCP),
        entry.get(lang_nics.INTERFACE_RATE),
        entry.get(lang_nics.INTERFACE_DSCP),
        entry.get(lang_nics.INTERFACE_IMPAIR),
    )


def subnets_of(network: Entry) -> tuple[Read[IPNetwork], ...]:
    """The subnets that could be read."""
    return tuple(cidr for cidr, _ in gateways_of(network))


def gateways_of(network: Entry) -> Iterator[tuple[Read[IPNetwork], Read[IPAddress] | None]]:
    """Each subnet with the gateway that the file gives it."""
    found = network.get(lang_networks.NETWORK_SUBNETS)
    for each in () if found is None else found.value:
        cidr = each.value.get(lang_networks.SUBNET_CIDR)
        if cidr is not None:
            yield cidr, each.value.get(lang_networks.SUBNET_GATEWAY)


def served_in(network: Entry) -> Iterator[tuple[Read[IPNetwork], Entry]]:
    """Each subnet that could be read, with all that the file says of it."""
    found = network.get(lang_networks.NETWORK_SUBNETS)
    for each in () if found is None else found.value:
        cidr = each.value.get(lang_networks.SUBNET_CIDR)
        if cidr is not None:
            yield cidr, each.value


def dhcp_of(subnet: Entry) -> Entry | None:
    """What the file says of a subnet's DHCP; None where nobody answers."""
    found = subnet.get(lang_networks.SUBNET_DHCP)
    return None if found is None else found.value


def reservations_of(subnet: Entry) -> Iterator[tuple[str, Read[IPAddress]]]:
    """Who always gets which address of a subnet; NICs and MACs in lowercase."""
    dhcp = dhcp_of(subnet)
    found = None if dhcp is None else dhcp.get(lang_networks.DHCP_RESERVATIONS)
    for whose, address in {} if found is None else found.value.items():
        yield whose.lower(), address


def advertised_in(subnet: Entry) -> Advertised:
    """What routers advertise in a subnet, with what holds if the file does not say."""
    found, cidr = subnet.get(lang_networks.SUBNET_RA), subnet.get(lang_networks.SUBNET_CIDR)
    if found is not None:
        return found.value
    is_managed = cidr is not None and cidr.value.version == 6 and dhcp_of(subnet) is not None
    return Advertised.MANAGED if is_managed else Advertised.NONE


def has_services(network: Entry) -> bool:
    """Whether somebody answers a network's guests."""
    told = (
        dhcp_of(each) is not None or advertised_in(each) is not Advertised.NONE
        for _, each in served_in(network)
    )
    return has_names(network) or any(told)


def has_names(network: Entry) -> bool:
    """Whether somebody answers a network's guests who ask for names."""
    dns = network.get(lang_networks.NETWORK_DNS)
    domain = None if dns is None else dns.value.get(lang_networks.DNS_DOMAIN)
    return dns is not None and (domain is None or domain.value is not False)


def forwarders_of(network: Entry) -> tuple[Read[IPAddress], ...]:
    """Who is asked for the names that a network's server does not know."""
    found = network.part(lang_networks.NETWORK_DNS).get(lang_networks.DNS_FORWARDERS)
    return () if found is None else found.value


PLACES = (lang_vms.ENDPOINT_TAP, lang_vms.ENDPOINT_INTERFACE, lang_vms.ENDPOINT_NETNS)
"""By which of these an endpoint says where it is."""


def places(endpoint: Entry) -> list[tuple[Field[str], Read[str]]]:
    """What it says of where it is; one thing if it is right."""
    found = ((field, endpoint.get(field)) for field in PLACES)
    return [(field, read) for field, read in found if read is not None]


def replicas(vm: Entry) -> int | None:
    """How many of it to run; None for the one VM that bears the name itself."""
    found = vm.get(lang_vms.VM_REPLICAS)
    return None if found is None else found.value


def group_names(of: Draft) -> frozenset[str]:
    """Every group that exists: declared, or listed by a VM."""
    listed = (vm.value.get(lang_vms.VM_GROUPS) for vm in of.vms.values())
    return frozenset(of.groups) | {group.value for groups in listed if groups for group in groups.value}


def rules(policy: Entry) -> Iterator[tuple[Direction, Read[Entry]]]:
    """All rules of a policy with their direction."""
    for direction, key in (
        (Direction.INGRESS, lang_policies.POLICY_INGRESS),
        (Direction.EGRESS, lang_policies.POLICY_EGRESS),
    ):
        found = policy.get(key)
        for rule in () if found is None else found.value:
            yield direction, rule


def carried(of: Draft) -> Mapping[str, tuple[Read[str], ...]]:
    """The networks that each uplink carries, whichever of the two says so; each where it is said first."""
    found: dict[str, dict[str, Read[str]]] = {name: {} for name in of.uplinks}
    for name, uplink in of.uplinks.items():
        listed = uplink.value.get(lang_networks.UPLINK_NETWORKS)
        for network in () if listed is None else listed.value:
            found[name].setdefault(network.value, network)
    for name, entry in of.networks.items():
        named = entry.value.get(lang_networks.NETWORK_UPLINK)
        if named is not None and named.value in found:
            found[named.value].setdefault(name, Read(name, named.at, named.path))
    return {name: tuple(networks.values()) for name, networks in found.items()}
