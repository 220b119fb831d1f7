"""What is wrong with a file that no single value shows: names, overlaps, double use, sizes."""

from __future__ import annotations

from ipaddress import IPv4Network

from vnet.topology import (
    check_cloud_init,
    check_endpoints,
    check_forwarders,
    check_images,
    check_life,
    check_lines,
    check_mirrors,
    check_policies,
    check_profiles,
    check_routers,
    check_services,
    check_uplinks,
    check_vms,
)
from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology import language_policies as lang_policies
from vnet.topology.draft import Draft, subnets_of
from vnet.topology.model import IPNetwork
from vnet.topology.mtu import least_bytes
from vnet.topology.reading import Reading, quoted
from vnet.topology.repeated import report_repeated
from vnet.topology.selectors import BUILT_IN_SERVICES, RESERVED_GROUPS
from vnet.topology.shape import Read

_WIDEST = {4: 8, 6: 16}
"""The shortest prefix of a subnet by IP version: a wider one is a slip of the pen."""


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the file to `reading`."""
    _check_vlans(draft, reading)
    _check_subnets(draft, reading)
    _check_mtus(draft, reading)
    _check_groups(draft, reading)
    check_profiles.check(draft, reading)
    _check_services(draft, reading)
    _check_tiers(draft, reading)
    check_vms.check(draft, reading)
    check_endpoints.check(draft, reading)
    check_images.check(draft, reading)
    check_cloud_init.check(draft, reading)
    check_life.check(draft, reading)
    check_lines.check(draft, reading)
    check_routers.check(draft, reading)
    check_uplinks.check(draft, reading)
    check_services.check(draft, reading)
    check_forwarders.check(draft, reading)
    check_policies.check(draft, reading)
    check_mirrors.check(draft, reading)


def _check_vlans(draft: Draft, reading: Reading) -> None:
    owners: dict[int, str] = {}
    for name, network in draft.networks.items():
        vlan = network.value.get(lang_networks.NETWORK_VLAN)
        if vlan is None:
            continue
        owner = owners.setdefault(vlan.value, name)
        if owner != name:
            problem = f'VLAN {vlan.value} is that of network "{owner}" already'
            reading.fault(vlan.at, vlan.path, problem, _free_vlan(draft))


def _free_vlan(draft: Draft) -> str:
    found = (network.value.get(lang_networks.NETWORK_VLAN) for network in draft.networks.values())
    used = {vlan.value for vlan in found if vlan}
    free = next((vlan for vlan in range(max(used), lang_networks.VLAN_MAX + 1) if vlan not in used), None)
    return "" if free is None else f"{free} is free"


def _check_subnets(draft: Draft, reading: Reading) -> None:
    everything: list[tuple[Read[IPNetwork], str]] = []
    for name, network in draft.networks.items():
        for subnet in subnets_of(network.value):
            _check_use(subnet, reading)
            everything.append((subnet, name))
    for version in (4, 6):
        _check_overlaps([each for each in everything if each[0].value.version == version], reading)


def _check_use(subnet: Read[IPNetwork], reading: Reading) -> None:
    cidr = subnet.value
    widest = _WIDEST[cidr.version]
    if cidr.prefixlen < widest:
        reading.fault(subnet.at, subnet.path, f"{cidr} is too large: a subnet is a /{widest} or smaller")
        return
    kinds = (
        (cidr.is_multicast, "multicast"),
        (cidr.is_loopback, "loopback"),
        (cidr.is_link_local, "link-local"),
        (isinstance(cidr, IPv4Network) and int(cidr.network_address) >> 28 == 0xF, "reserved"),
        (int(cidr.network_address) >> (cidr.max_prefixlen - 8) == 0, "reserved"),
    )
    for applies, kind in kinds:
        if applies:
            private = "10.0.0.0/8 or 192.168.0.0/16" if cidr.version == 4 else "fd00::/8"
            hint = f"take a part of {private}"
            reading.fault(subnet.at, subnet.path, f"{cidr} is {kind} and cannot be a subnet", hint)
            return


def _check_mtus(draft: Draft, reading: Reading) -> None:
    for network in draft.networks.values():
        mtu = network.value.get(lang_networks.NETWORK_MTU)
        versions = {4, *(subnet.value.version for subnet in subnets_of(network.value))}
        least = least_bytes(versions)
        if mtu is not None and mtu.value is not None and mtu.value < least:
            problem = f"IPv6 needs an MTU of {least}, and this is {mtu.value}"
            reading.fault(mtu.at, mtu.path, problem, f"use {least} or more, or no IPv6 subnet")


def _check_overlaps(subnets: list[tuple[Read[IPNetwork], str]], reading: Reading) -> None:
    """Sorted by address, a subnet overlaps an earlier one only if it overlaps the widest before it."""
    widest: tuple[Read[IPNetwork], str] | None = None
    for subnet, name in sorted(subnets, key=lambda each: _extent(each[0].value)):
        if widest is not None and _extent(subnet.value)[0] <= int(widest[0].value.broadcast_address):
            _report_overlap((subnet, name), widest, reading)
        else:
            widest = (subnet, name)


def _extent(cidr: IPNetwork) -> tuple[int, int]:
    return int(cidr.network_address), cidr.prefixlen


def _report_overlap(
    one: tuple[Read[IPNetwork], str], other: tuple[Read[IPNetwork], str], reading: Reading
) -> None:
    # Whichever stands later in the file is the one to report.
    (early, early_name), (late, late_name) = sorted((one, other), key=lambda each: each[0].at)
    owner = "the same network" if early_name == late_name else f'network "{early_name}"'
    problem = f"{late.value} overlaps {early.value} of {owner} (line {early.at.line})"
    reading.fault(late.at, late.path, problem)


def _check_groups(draft: Draft, reading: Reading) -> None:
    for name, group in draft.groups.items():
        if name in RESERVED_GROUPS:
            reading.fault(group.at, group.path, f"{quoted(name)} has a meaning of its own and names no group")
        given = [each.name for each in lang_policies.GROUP.fields if group.value.given(each)]
        if len(given) != 1:
            found = " and ".join(f'"{key}"' for key in given) or "neither"
            problem = f'expected either "cidrs" or "labels", found {found}'
            reading.fault(group.at, group.path, problem)
        labels = group.value.get(lang_policies.GROUP_LABELS)
        if labels is not None and not labels.value:
            problem = "expected at least one label: a group of no labels would contain every VM"
            reading.fault(labels.at, labels.path, problem)


def _check_services(draft: Draft, reading: Reading) -> None:
    for name, service in draft.services.items():
        if name in BUILT_IN_SERVICES:
            reading.fault(service.at, service.path, f"{quoted(name)} is built in", "choose another name")
        elif name in ("tcp", "udp"):
            reading.fault(service.at, service.path, f"{quoted(name)} is a protocol", "choose another name")


def _check_tiers(draft: Draft, reading: Reading) -> None:
    tiers = draft.root.get(lang.ALL_TIERS)
    if tiers is None:
        return
    report_repeated(tiers.value, "tier", reading)
    if len(tiers.value) > lang_policies.TIERS_MAX:
        problem = f"expected at most {lang_policies.TIERS_MAX} tiers, found {len(tiers.value)}"
        reading.fault(tiers.at, tiers.path, problem, "join some of them")
