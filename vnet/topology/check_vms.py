"""Checks of VMs, templates and NICs: names, networks, addresses, MACs, room in the subnets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology import language_vms as lang_vms
from vnet.topology.check_images import is_micro
from vnet.topology.draft import (
    Draft,
    DraftNic,
    advertised_in,
    dhcp_of,
    replicas,
    reservations_of,
    served_in,
    subnets_of,
)
from vnet.topology.inventory import replica_names
from vnet.topology.model import STRICT, Advertised, DiskFormat, IPInterface, IPNetwork, Isolation, first_host
from vnet.topology.pool import Pool
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.repeated import report_repeated
from vnet.topology.selectors import RESERVED_GROUPS
from vnet.topology.shape import Entry, Read
from vnet.topology.values import family, format_mac


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the VMs to `reading`."""
    _check_templates(draft, reading)
    _check_generated_names(draft, reading)
    for name, vm in draft.vms.items():
        _check_groups(vm.value, reading)
        if name not in draft.endpoints:
            _check_has_nics(vm, reading)
        _check_disks(vm.value, reading)
        _check_memory(vm.value, reading)
    for name, nics in draft.nics.items():
        for nic in nics:
            _check_network(nic, draft, reading)
            _check_addresses(nic, draft, reading)
            _check_promiscuous(nic, draft, reading)
            _check_profile(nic, draft, reading)
        _check_replicas(draft.vms[name], nics, reading)
    _check_unique_addresses(draft, reading)
    _check_unique_macs(draft, reading)
    _check_room(draft, reading)


# ---- disks -----------------------------------------------------------------------------------


def _check_disks(vm: Entry, reading: Reading) -> None:
    only, several = vm.get(lang_vms.VM_DISK), vm.get(lang_vms.VM_DISKS)
    if only is not None and several is not None:
        reading.fault(
            only.at, only.path, '"disk" and "disks" are two ways to say the same', "use one of them"
        )
    listed = () if several is None else several.value
    names = [each.value.get(lang_vms.DISK_NAME) for each in listed]
    report_repeated(tuple(name for name in names if name is not None), "disk", reading)
    for disk in listed:
        encrypt, form = disk.value.get(lang_vms.DISK_ENCRYPT), disk.value.get(lang_vms.DISK_FORMAT)
        if encrypt is not None and encrypt.value and form is not None and form.value is DiskFormat.RAW:
            reading.fault(encrypt.at, encrypt.path, "a raw disk cannot be encrypted", "leave `format` out")


# ---- memory ----------------------------------------------------------------------------------


def _check_memory(vm: Entry, reading: Reading) -> None:
    memory = vm.get(lang_vms.VM_MEMORY)
    if is_micro(vm) and memory is not None and memory.value < lang_vms.MICRO_MEMORY_MIN:
        problem = f"the micro guest does not boot with {memory.value >> 20}M"
        reading.fault(memory.at, memory.path, problem, f"give it {lang_vms.MICRO_MEMORY_MIN >> 20}M or more")


# ---- names -----------------------------------------------------------------------------------


def _check_templates(draft: Draft, reading: Reading) -> None:
    templates = draft.root.get(lang.TEMPLATES)
    known = {} if templates is None else templates.value
    for vm in draft.vms.values():
        template = vm.value.get(lang_vms.VM_TEMPLATE)
        if template is not None and template.value not in known:
            problem = f"there is no template {quoted(template.value)}"
            reading.fault(template.at, template.path, problem, suggestion(template.value, known))


def _check_generated_names(draft: Draft, reading: Reading) -> None:
    owners: dict[str, str] = {}
    for spec, vm in draft.vms.items():
        names = replica_names(spec, replicas(vm.value))
        if names and len(spec) <= lang.VM_NAME_MAX < len(names[-1]):
            problem = f"the name {quoted(names[-1])} of its last replica is longer than {lang.VM_NAME_MAX}"
            reading.fault(vm.at, vm.path, problem)
        for name in names:
            owner = owners.setdefault(name, spec)
            if owner != spec:
                _report_collision(name, spec, owner, draft, reading)


def _report_collision(name: str, one: str, other: str, draft: Draft, reading: Reading) -> None:
    vm = draft.vms[one]
    if name == one:
        problem = f"{quoted(name)} is also the name of a replica of {quoted(other)}"
    elif name == other:
        problem = f"its replica {quoted(name)} has the name of another VM"
    else:
        problem = f"its replica {quoted(name)} has the name of a replica of {quoted(other)}"
    reading.fault(vm.at, vm.path, problem, "rename one of them")


def _check_groups(vm: Entry, reading: Reading) -> None:
    groups = vm.get(lang_vms.VM_GROUPS)
    if groups is None:
        return
    report_repeated(groups.value, "group", reading)
    for group in groups.value:
        if group.value in RESERVED_GROUPS:
            problem = f"{quoted(group.value)} has a meaning of its own and names no group"
            reading.fault(group.at, group.path, problem)


# ---- NICs ------------------------------------------------------------------------------------


def _check_has_nics(vm: Read[Entry], reading: Reading) -> None:
    networks, interfaces = vm.value.get(lang_vms.VM_NETWORKS), vm.value.get(lang_vms.VM_INTERFACES)
    if networks is not None and interfaces is not None:
        problem = 'expected either "networks" or "interfaces", found both'
        reading.fault(interfaces.at, interfaces.path, problem, 'say it all in "interfaces"')
    elif not vm.value.given(lang_vms.VM_NETWORKS) and not vm.value.given(lang_vms.VM_INTERFACES):
        problem = 'a VM needs "networks" or "interfaces"'
        reading.fault(vm.at, vm.path, problem, "write networks: [] for a VM without any")
    if networks is not None:
        hint = 'for two NICs in one network use "interfaces"'
        report_repeated(networks.value, "network", reading, hint)


def _check_network(nic: DraftNic, draft: Draft, reading: Reading) -> None:
    if nic.network is None:
        if not nic.is_broken and not nic.is_mirror_only:
            reading.fault(nic.at, nic.path, 'an interface needs "network": the network it is plugged into')
    elif nic.network.value not in draft.networks:
        name = nic.network.value
        problem = f"there is no network {quoted(name)}"
        reading.fault(nic.network.at, nic.network.path, problem, suggestion(name, draft.networks))


def _check_promiscuous(nic: DraftNic, draft: Draft, reading: Reading) -> None:
    network = None if nic.network is None else draft.networks.get(nic.network.value)
    isolation = None if network is None else network.value.get(lang_networks.NETWORK_ISOLATION)
    is_open = network is not None and (isolation is None or isolation.value is Isolation.NONE)
    if nic.is_promiscuous and is_open and not (network and network.value.broken):
        problem = f"the network {quoted(nic.network.value if nic.network else '')} is not isolated"
        reading.fault(nic.at, nic.path, problem, 'leave "promiscuous" out')


def _check_profile(nic: DraftNic, draft: Draft, reading: Reading) -> None:
    known = (STRICT.name, *draft.profiles)
    if nic.profile is not None and nic.profile.value not in known:
        problem = f"there is no profile {quoted(nic.profile.value)}"
        reading.fault(nic.profile.at, nic.profile.path, problem, suggestion(nic.profile.value, known))


def _subnets(nic: DraftNic, draft: Draft) -> tuple[IPNetwork, ...] | None:
    """The subnets of the NIC's network, None if they are not known for a fault elsewhere."""
    network = None if nic.network is None else draft.networks.get(nic.network.value)
    found = None if network is None else network.value.get(lang_networks.NETWORK_SUBNETS)
    return (
        None if network is None or found is None else tuple(each.value for each in subnets_of(network.value))
    )


def _check_addresses(nic: DraftNic, draft: Draft, reading: Reading) -> None:
    subnets = _subnets(nic, draft)
    if subnets is None:
        return
    for address in nic.addresses:
        subnet = next((each for each in subnets if address.value.ip in each), None)
        if subnet is None:
            listed = ", ".join(str(each) for each in subnets) or "none"
            network = nic.network.value if nic.network else ""
            problem = f"{address.value.ip} lies outside the subnets of network {quoted(network)} ({listed})"
            reading.fault(address.at, address.path, problem)
        else:
            _check_address_in(address, subnet, reading)


def _check_address_in(address: Read[IPInterface], subnet: IPNetwork, reading: Reading) -> None:
    ip, where, path = address.value.ip, address.at, address.path
    if address.value.network.prefixlen != subnet.prefixlen:
        problem = f"the prefix /{address.value.network.prefixlen} is not that of the subnet {subnet}"
        reading.fault(where, path, problem, f'did you mean "{ip}/{subnet.prefixlen}"?')
    elif ip == subnet.network_address:
        problem = f"{ip} is the address of the subnet {subnet} itself"
        reading.fault(where, path, problem, "a NIC needs another one")
    elif subnet.version == 4 and ip == subnet.broadcast_address:
        reading.fault(where, path, f"{ip} is the broadcast address of {subnet}", "a NIC needs another one")


def _check_replicas(vm: Read[Entry], nics: tuple[DraftNic, ...], reading: Reading) -> None:
    count = replicas(vm.value)
    if count is None or count < 2:
        return
    for nic in nics:
        for address in nic.addresses:
            problem = f"{count} replicas cannot share the address {address.value.ip}"
            reading.fault(address.at, address.path, problem, 'leave "addresses" out')
        if nic.mac is not None:
            problem = f"{count} replicas cannot share the MAC {format_mac(nic.mac.value)}"
            reading.fault(nic.mac.at, nic.mac.path, problem, 'leave "mac" out')


# ---- double use and room ---------------------------------------------------------------------


def _check_unique_addresses(draft: Draft, reading: Reading) -> None:
    owners: dict[object, str] = {}
    for vm, nics in draft.nics.items():
        for nic in nics:
            for address in nic.addresses:
                owner = owners.get(address.value.ip)
                owners.setdefault(address.value.ip, f"{vm}.{nic.name}")
                if owner is not None:
                    problem = f"{address.value.ip} is the address of {quoted(owner)} already"
                    reading.fault(address.at, address.path, problem)


def _check_unique_macs(draft: Draft, reading: Reading) -> None:
    owners: dict[int, str] = {}
    for vm, nics in draft.nics.items():
        for nic in nics:
            if nic.mac is None:
                continue
            owner = owners.get(nic.mac.value)
            owners.setdefault(nic.mac.value, f"{vm}.{nic.name}")
            if owner is not None:
                problem = f"{format_mac(nic.mac.value)} is the MAC of {quoted(owner)} already"
                reading.fault(nic.mac.at, nic.mac.path, problem)


def _check_room(draft: Draft, reading: Reading) -> None:
    taking: Counter[str] = Counter()
    declared: dict[str, list[IPInterface]] = {}
    for vm, nics in draft.nics.items():
        count = replicas(draft.vms[vm].value)
        for nic in nics:
            if nic.network is None:
                continue
            if nic.takes_addresses:
                taking[nic.network.value] += 1 if count is None else count
            declared.setdefault(nic.network.value, []).extend(each.value for each in nic.addresses)
    _report_small_subnets(draft, taking, declared, reading)


def _report_small_subnets(
    draft: Draft, taking: Mapping[str, int], declared: Mapping[str, list[IPInterface]], reading: Reading
) -> None:
    for name, network in draft.networks.items():
        for subnet, entry in served_in(network.value):
            if advertised_in(entry) is Advertised.SLAAC:
                continue  # made of the MACs of NICs
            pool = _pool(subnet.value, entry)
            reserved = {each.value for _, each in reservations_of(entry)}
            fixed = {each.ip for each in declared.get(name, ())} | reserved
            taken = sum(pool.may_allocate(each) for each in fixed)
            wanted, room = taking.get(name, 0) - _reserved_nics(entry), pool.size - taken
            if wanted > room:
                places = f"{pool.chosen} of {subnet.value}" if pool.chosen else f"{subnet.value}"
                problem = (
                    f"{places} is too small: {wanted} NICs of network {quoted(name)} need an "
                    f"{family(subnet.value)} address each, {room} are free besides the gateway's"
                )
                reading.fault(subnet.at, subnet.path, problem)


def _pool(cidr: IPNetwork, entry: Entry) -> Pool:
    gateway, dhcp = entry.get(lang_networks.SUBNET_GATEWAY), dhcp_of(entry)
    chosen = None if dhcp is None else dhcp.get(lang_networks.DHCP_RANGE)
    return Pool(
        cidr,
        first_host(cidr) if gateway is None else gateway.value,
        None if chosen is None else chosen.value,
    )


def _reserved_nics(entry: Entry) -> int:
    """How many NICs have a reservation, at least: who has a MAC is known when all have one."""
    return sum(":" not in whose for whose, _ in reservations_of(entry))
