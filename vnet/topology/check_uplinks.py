"""Checks of ways out: uplinks, the routers that use them, published ports and floating addresses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from vnet.topology import language_networks as lang_networks
from vnet.topology import language_vms as lang_vms
from vnet.topology.draft import Draft, carried, replicas, subnets_of
from vnet.topology.model import HOST_UPLINK, IPAddress, IPInterface, IPNetwork, Nat, UplinkMode
from vnet.topology.published import PortText
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.repeated import report_repeated
from vnet.topology.shape import Entry, Read


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the ways out to `reading`."""
    networks = carried(draft)
    _check_interfaces(draft, reading)
    for name, uplink in draft.uplinks.items():
        _check_uplink(name, uplink, networks[name], draft, reading)
    for name, network in draft.networks.items():
        _check_network(name, network.value, draft, reading)
    _check_one_cable(networks, reading)
    _check_routers(draft, networks, reading)
    _check_ports(draft, reading)
    _check_floating(draft, reading)


# ---- uplinks ---------------------------------------------------------------------------------


def _check_interfaces(draft: Draft, reading: Reading) -> None:
    owners: dict[str, str] = {}
    for name, uplink in draft.uplinks.items():
        interface = uplink.value.get(lang_networks.UPLINK_INTERFACE)
        if interface is None:
            continue
        owner = owners.setdefault(interface.value, name)
        if owner != name:
            problem = f"the uplink {quoted(owner)} has the interface {quoted(interface.value)} already"
            reading.fault(interface.at, interface.path, problem, "carry several networks by one trunk")


def _check_uplink(
    name: str, uplink: Read[Entry], networks: tuple[Read[str], ...], draft: Draft, reading: Reading
) -> None:
    if name == HOST_UPLINK:
        problem = f"{quoted(name)} is the host itself and needs no declaration"
        reading.fault(uplink.at, uplink.path, problem, "choose another name")
    entry = uplink.value
    listed, mode = entry.get(lang_networks.UPLINK_NETWORKS), entry.get(lang_networks.UPLINK_MODE)
    if listed is not None:
        report_repeated(listed.value, "network", reading)
    is_routed = entry.given(lang_networks.UPLINK_ADDRESSES) or entry.given(lang_networks.UPLINK_GATEWAYS)
    if is_routed and (networks or mode is not None):
        problem = 'an uplink carries networks ("networks", "mode") or is a router\'s ("addresses", "gateway")'
        reading.fault(uplink.at, uplink.path, problem, "it cannot be both")
    elif not is_routed and not networks and not entry.given(lang_networks.UPLINK_NETWORKS):
        problem = "the uplink carries nothing"
        hint = 'give it "networks", or "addresses" and name it in a router'
        reading.fault(uplink.at, uplink.path, problem, hint)
    if len(networks) > 1 and (mode is None or mode.value is UplinkMode.ACCESS):
        problem = f"one network can go without tags, not {len(networks)}"
        reading.fault(networks[1].at, networks[1].path, problem, 'use "mode: trunk"')
    for network in networks:
        _check_carried(network, draft, reading)
    _check_addresses(entry, draft, reading)
    _check_gateways(entry, reading)


def _check_addresses(uplink: Entry, draft: Draft, reading: Reading) -> None:
    for address in _addresses(uplink):
        overlapping = (each for each in _subnets(draft) if each.overlaps(address.value.network))
        kind, within = _unfit(address.value.ip), next(overlapping, None)
        if kind:
            reading.fault(
                address.at, address.path, f"{address.value.ip} is {kind}: nobody outside can reach it"
            )
        elif within is not None:
            problem = f"{address.value.network} overlaps with {within}, a subnet of the fabric"
            hint = "what is for the one would go to the other; choose other addresses for the network"
            reading.fault(address.at, address.path, problem, hint)


def _addresses(uplink: Entry) -> tuple[Read[IPInterface], ...]:
    found = uplink.get(lang_networks.UPLINK_ADDRESSES)
    return () if found is None else found.value


def _subnets(draft: Draft) -> Iterator[IPNetwork]:
    """Those of the fabric."""
    return (cidr.value for network in draft.networks.values() for cidr in subnets_of(network.value))


def _unfit(address: IPAddress) -> str:
    """Why nobody outside can have an address; empty if somebody can."""
    kinds = (
        (address.is_unspecified, "the unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address.is_link_local, "a link-local address"),
        (address.version == 4 and address.is_reserved, "a reserved address"),
    )
    return next((what for fits, what in kinds if fits), "")


def _check_carried(network: Read[str], draft: Draft, reading: Reading) -> None:
    if network.value not in draft.networks:
        problem = f"there is no network {quoted(network.value)}"
        reading.fault(network.at, network.path, problem, suggestion(network.value, draft.networks))
    else:
        _check_not_internal(network, draft, reading)


def _check_not_internal(network: Read[str], draft: Draft, reading: Reading) -> None:
    internal = draft.networks[network.value].value.get(lang_networks.NETWORK_INTERNAL)
    if internal is not None and internal.value:
        problem = f"the network {quoted(network.value)} is internal: it may have no way out"
        reading.fault(network.at, network.path, problem)


def _check_gateways(uplink: Entry, reading: Reading) -> None:
    addresses, gateways = (
        uplink.get(lang_networks.UPLINK_ADDRESSES),
        uplink.get(lang_networks.UPLINK_GATEWAYS),
    )
    if gateways is None:
        return
    versions: set[int] = set()
    for gateway in gateways.value:
        own = () if addresses is None else addresses.value
        if all(gateway.value not in each.value.network for each in own):
            problem = f"{gateway.value} lies in none of the subnets of the uplink's addresses"
            reading.fault(gateway.at, gateway.path, problem)
        elif any(gateway.value == each.value.ip for each in own):
            reading.fault(gateway.at, gateway.path, f"{gateway.value} is the uplink's own address")
        if gateway.value.version in versions:
            problem = f"there is a gateway of IPv{gateway.value.version} already"
            reading.fault(gateway.at, gateway.path, problem, "one of each version of IP")
        versions.add(gateway.value.version)


def _check_network(name: str, network: Entry, draft: Draft, reading: Reading) -> None:
    uplink = network.get(lang_networks.NETWORK_UPLINK)
    if uplink is None:
        return
    if uplink.value == HOST_UPLINK:
        problem = "the host carries no networks: it forwards what routers send"
        reading.fault(uplink.at, uplink.path, problem, 'put the network in a router with "uplink: host"')
    elif uplink.value not in draft.uplinks:
        problem = f"there is no uplink {quoted(uplink.value)}"
        reading.fault(uplink.at, uplink.path, problem, suggestion(uplink.value, draft.uplinks))


def _check_one_cable(networks: Mapping[str, tuple[Read[str], ...]], reading: Reading) -> None:
    owners: dict[str, str] = {}
    for name, listed in networks.items():
        for network in listed:
            owner = owners.setdefault(network.value, name)
            if owner != name:
                problem = f"the uplink {quoted(owner)} carries the network {quoted(network.value)} already"
                reading.fault(network.at, network.path, problem, "two would be a loop")


# ---- routers ---------------------------------------------------------------------------------


def _check_routers(draft: Draft, cables: Mapping[str, tuple[Read[str], ...]], reading: Reading) -> None:
    owners: dict[str, str] = {}
    for name, router in draft.routers.items():
        uplink, nat = (
            router.value.get(lang_networks.ROUTER_UPLINK),
            router.value.get(lang_networks.ROUTER_NAT),
        )
        if uplink is None:
            if nat is not None and nat.value is not Nat.NONE:
                reading.fault(nat.at, nat.path, "without an uplink nothing leaves", 'add "uplink: host"')
            continue
        listed = router.value.get(lang_networks.ROUTER_NETWORKS)
        for network in () if listed is None else listed.value:
            if network.value in draft.networks:
                _check_not_internal(network, draft, reading)
        if uplink.value == HOST_UPLINK:
            continue
        _check_routed(uplink, draft, cables, reading)
        owner = owners.setdefault(uplink.value, name)
        if owner != name:
            problem = f"the uplink {quoted(uplink.value)} is the router {quoted(owner)}'s already"
            reading.fault(uplink.at, uplink.path, problem)
    unused = {
        name
        for name, each in draft.uplinks.items()
        if each.value.given(lang_networks.UPLINK_ADDRESSES) and name not in owners and name != HOST_UPLINK
    }
    for name in sorted(unused):
        uplink_at = draft.uplinks[name]
        problem = "no router uses the uplink"
        reading.fault(uplink_at.at, uplink_at.path, problem, f'name it in one: "uplink: {name}"')


def _check_routed(
    uplink: Read[str], draft: Draft, cables: Mapping[str, tuple[Read[str], ...]], reading: Reading
) -> None:
    if uplink.value not in draft.uplinks:
        problem = f"there is no uplink {quoted(uplink.value)}"
        known = (HOST_UPLINK, *draft.uplinks)
        reading.fault(uplink.at, uplink.path, problem, suggestion(uplink.value, known))
    elif cables[uplink.value]:
        problem = f"the uplink {quoted(uplink.value)} carries networks, and a router has no address there"
        reading.fault(uplink.at, uplink.path, problem, 'declare one with "addresses"')
    elif not draft.uplinks[uplink.value].value.given(lang_networks.UPLINK_ADDRESSES):
        problem = f"the uplink {quoted(uplink.value)} has no addresses for a router"
        reading.fault(uplink.at, uplink.path, problem, 'add "addresses" to it')


# ---- what is open to the outside -------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Way:
    """A way of a VM to the outside: the uplink of a router, and the versions of IP of the network there."""

    uplink: str
    versions: frozenset[int]


def _ways(vm: str, draft: Draft) -> Iterator[_Way]:
    networks = {nic.network.value for nic in draft.nics[vm] if nic.network is not None}
    for router in draft.routers.values():
        uplink, listed = (
            router.value.get(lang_networks.ROUTER_UPLINK),
            router.value.get(lang_networks.ROUTER_NETWORKS),
        )
        for network in () if uplink is None or listed is None else listed.value:
            if uplink is not None and network.value in networks & draft.networks.keys():
                subnets = subnets_of(draft.networks[network.value].value)
                yield _Way(uplink.value, frozenset(subnet.value.version for subnet in subnets))


def _check_ports(draft: Draft, reading: Reading) -> None:
    open_at: list[tuple[Read[PortText], str]] = []
    for name, vm in draft.vms.items():
        for port in vm.value.value(lang_vms.VM_PORTS):
            _check_port(port, tuple(_ways(name, draft)), draft, reading)
            for other, owner in open_at:
                if _collide(port.value, other.value):
                    problem = f"the port is published for {quoted(owner)} already (line {other.at.line})"
                    reading.fault(port.at, port.path, problem)
                    break
            open_at.append((port, name))


def _collide(one: PortText, other: PortText) -> bool:
    same = one.port == other.port and one.protocol == other.protocol
    address = one.listen == other.listen or one.listen.is_unspecified or other.listen.is_unspecified
    return same and one.listen.version == other.listen.version and address


def _check_port(port: Read[PortText], ways: tuple[_Way, ...], draft: Draft, reading: Reading) -> None:
    listen = port.value.listen
    fitting = [way for way in ways if listen.version in way.versions]
    if not fitting:
        why = "no network of this VM" if not ways else f"no IPv{listen.version} network of this VM"
        problem = f"{why} is in a router with an uplink, so nothing leads to it"
        reading.fault(port.at, port.path, problem, 'add "uplink: host" to its router')
    elif all(not _is_open(way.uplink, listen, draft) for way in fitting):
        problem = f"the uplink {quoted(fitting[0].uplink)} does not have the address {listen}"
        hint = "publish it at an address of the uplink, or at 0.0.0.0 for all"
        reading.fault(port.at, port.path, problem, hint)


def _is_open(uplink: str, listen: IPAddress, draft: Draft) -> bool:
    if uplink == HOST_UPLINK or listen.is_unspecified:
        return True
    declared = draft.uplinks.get(uplink)
    addresses = None if declared is None else declared.value.get(lang_networks.UPLINK_ADDRESSES)
    return addresses is None or listen in {each.value.ip for each in addresses.value}


def _uplink_addresses(draft: Draft) -> Iterator[tuple[str, Read[IPInterface]]]:
    for name, uplink in draft.uplinks.items():
        yield from ((name, each) for each in _addresses(uplink.value))


def _check_floating(draft: Draft, reading: Reading) -> None:
    owners: dict[IPAddress, str] = {}
    subnets = [*_subnets(draft)]
    taken = {own.value.ip: name for name, own in _uplink_addresses(draft)}
    for name, vm in draft.vms.items():
        for address in vm.value.value(lang_vms.VM_FLOATING):
            ways = tuple(_ways(name, draft))
            owner = owners.setdefault(address.value, name)
            within = next((each for each in subnets if address.value in each), None)
            hint = ""
            if (replicas(vm.value) or 0) > 1:
                problem, hint = (
                    "the replicas of a VM cannot share a floating address",
                    "publish ports instead",
                )
            elif owner != name:
                problem = f"{address.value} is a floating address of {quoted(owner)} already"
            elif kind := _unfit(address.value):
                problem = f"{address.value} is {kind}: nobody outside can reach it"
            elif address.value in taken:
                problem = f"{address.value} is an address of the uplink {quoted(taken[address.value])}"
            elif within is not None:
                problem = f"{address.value} lies in {within}, a subnet of the fabric, and not outside"
            elif not any(address.value.version in way.versions for way in ways):
                problem = f"no IPv{address.value.version} network of this VM is in a router with an uplink"
                hint = 'add "uplink: host" to its router'
            else:
                continue
            reading.fault(address.at, address.path, problem, hint)
