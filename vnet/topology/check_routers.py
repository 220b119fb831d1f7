"""Checks of gateways and routers: each has its address, and its ways lead somewhere."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.topology import language as lang
from vnet.topology import language_networks as lang_networks
from vnet.topology.draft import Draft, gateways_of, subnets_of
from vnet.topology.model import IPAddress, IPNetwork, first_host
from vnet.topology.reading import Reading, quoted, suggestion
from vnet.topology.repeated import report_repeated
from vnet.topology.routing import gateway_mac
from vnet.topology.shape import Entry, Read
from vnet.topology.values import format_mac


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the routers to `reading`."""
    for network in draft.networks.values():
        for subnet, gateway in gateways_of(network.value):
            if gateway is not None:
                _check_gateway(gateway, subnet.value, reading)
    owners: dict[str, str] = {}
    for name, router in draft.routers.items():
        _check_networks(name, router.value, owners, draft, reading)
        _check_routes(router.value, draft, reading)
    _check_nics(owners, draft, reading)


def _check_gateway(gateway: Read[IPAddress], subnet: IPNetwork, reading: Reading) -> None:
    if gateway.value not in subnet:
        problem = f"the gateway {gateway.value} lies outside the subnet {subnet}"
    elif gateway.value == subnet.network_address:
        problem = f"{gateway.value} is the address of the subnet {subnet} itself"
    elif subnet.version == 4 and gateway.value == subnet.broadcast_address:
        problem = f"{gateway.value} is the broadcast address of {subnet}"
    else:
        return
    first = first_host(subnet)
    reading.fault(gateway.at, gateway.path, problem, "" if first is None else f"its first address is {first}")


# ---- networks --------------------------------------------------------------------------------


def _networks(router: Entry) -> tuple[Read[str], ...]:
    found = router.get(lang_networks.ROUTER_NETWORKS)
    return () if found is None else found.value


def _check_networks(name: str, router: Entry, owners: dict[str, str], draft: Draft, reading: Reading) -> None:
    report_repeated(_networks(router), "network", reading)
    for network in _networks(router):
        if network.value not in draft.networks:
            problem = f"there is no network {quoted(network.value)}"
            reading.fault(network.at, network.path, problem, suggestion(network.value, draft.networks))
            continue
        owner = owners.setdefault(network.value, name)
        if owner != name:
            problem = f"the network {quoted(network.value)} is in the router {quoted(owner)} already"
            reading.fault(network.at, network.path, problem, "a network is in one router at most")
        for subnet in subnets_of(draft.networks[network.value].value):
            if first_host(subnet.value) is None:
                problem = f"{subnet.value} of network {quoted(network.value)} has no room for a gateway"
                reading.fault(network.at, network.path, problem)


# ---- routes ----------------------------------------------------------------------------------


def _reached(router: Entry, draft: Draft) -> Iterator[tuple[str, IPNetwork, IPAddress | None]]:
    """The subnets of a router's networks: by whose name, and with which gateway."""
    for network in _networks(router):
        if network.value in draft.networks:
            for subnet, gateway in _gateways(draft.networks[network.value].value):
                yield network.value, subnet, gateway


def _check_routes(router: Entry, draft: Draft, reading: Reading) -> None:
    routes = router.get(lang_networks.ROUTER_ROUTES)
    subnets = [*_reached(router, draft)]
    seen: set[IPNetwork] = set()
    for route in () if routes is None else routes.value:
        to, via = route.value.get(lang_networks.ROUTE_TO), route.value.get(lang_networks.ROUTE_VIA)
        if to is not None:
            _check_to(to, subnets, seen, reading)
        if via is not None:
            _check_via(via, to, subnets, draft, reading)


def _check_to(
    to: Read[IPNetwork],
    subnets: list[tuple[str, IPNetwork, IPAddress | None]],
    seen: set[IPNetwork],
    reading: Reading,
) -> None:
    for name, subnet, _ in subnets:
        if subnet.version == to.value.version and _contains(subnet, to.value):
            problem = (
                f"{to.value} lies in {subnet} of network {quoted(name)}, which the router reaches itself"
            )
            reading.fault(to.at, to.path, problem)
    if to.value in seen:
        reading.fault(to.at, to.path, f"there is a route to {to.value} already")
    seen.add(to.value)


def _contains(subnet: IPNetwork, other: IPNetwork) -> bool:
    return other.prefixlen >= subnet.prefixlen and other.network_address in subnet


def _check_via(
    via: Read[IPAddress],
    to: Read[IPNetwork] | None,
    subnets: list[tuple[str, IPNetwork, IPAddress | None]],
    draft: Draft,
    reading: Reading,
) -> None:
    name, gateway = next(((name, own) for name, subnet, own in subnets if via.value in subnet), ("", None))
    if to is not None and to.value.version != via.value.version:
        problem = f"{via.value} cannot carry packets to {to.value}: they are of different versions of IP"
        reading.fault(via.at, via.path, problem)
    elif not name:
        listed = ", ".join(str(subnet) for _, subnet, _ in subnets)
        problem = f"{via.value} lies in none of the router's networks ({listed})"
        reading.fault(via.at, via.path, problem)
    elif via.value == gateway:
        problem = f"{via.value} is the router's own address in network {quoted(name)}"
        reading.fault(via.at, via.path, problem)
    elif all(via.value != address for network, address in _declared(draft) if network == name):
        problem = f"no NIC of network {quoted(name)} declares the address {via.value}"
        reading.fault(via.at, via.path, problem, 'give it to one with "addresses"')


def _declared(draft: Draft) -> Iterator[tuple[str, IPAddress]]:
    """The addresses that NICs declare, with their networks."""
    for nics in draft.nics.values():
        for nic in nics:
            if nic.network is not None:
                yield from ((nic.network.value, address.value.ip) for address in nic.addresses)


# ---- NICs ------------------------------------------------------------------------------------


def _check_nics(owners: dict[str, str], draft: Draft, reading: Reading) -> None:
    """No NIC has what is a gateway's."""
    name = draft.root.get(lang.NAME)
    mac = None if name is None or not owners else gateway_mac(name.value)
    gateways = {network: {own for _, own in _gateways(draft.networks[network].value)} for network in owners}
    for nics in draft.nics.values():
        for nic in nics:
            if nic.mac is not None and nic.mac.value == mac:
                problem = f"{format_mac(nic.mac.value)} is the MAC of the gateways of this fabric"
                reading.fault(nic.mac.at, nic.mac.path, problem)
            network = "" if nic.network is None else nic.network.value
            for address in nic.addresses:
                if address.value.ip in gateways.get(network, ()):
                    problem = f"{address.value.ip} is the gateway of network {quoted(network)}"
                    hint = f"the router {quoted(owners[network])} has it"
                    reading.fault(address.at, address.path, problem, hint)


def _gateways(network: Entry) -> Iterator[tuple[IPNetwork, IPAddress | None]]:
    for subnet, gateway in gateways_of(network):
        yield subnet.value, first_host(subnet.value) if gateway is None else gateway.value
