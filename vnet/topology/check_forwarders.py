"""Checks of DNS forwarders: each can be asked by the router of the network whose server is to ask it."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.topology import language_networks as lang
from vnet.topology.draft import Draft, forwarders_of, gateways_of, has_names, subnets_of
from vnet.topology.model import IPAddress, first_host
from vnet.topology.reading import Reading, quoted
from vnet.topology.repeated import report_repeated
from vnet.topology.shape import Entry, Read


def check(draft: Draft, reading: Reading) -> None:
    """Reports every fault of the forwarders to `reading`."""
    for name, network in draft.networks.items():
        found = forwarders_of(network.value)
        report_repeated((Read(str(each.value), each.at, each.path) for each in found), "forwarder", reading)
        for forwarder in found:
            problem, hint = _why_not(forwarder.value, name, network.value, draft)
            if problem:
                reading.fault(forwarder.at, forwarder.path, problem, hint)


def _why_not(forwarder: IPAddress, name: str, network: Entry, draft: Draft) -> tuple[str, str]:
    """Why the server of a network cannot ask one, and what to do; two empty texts if it can."""
    own = [subnet.value for subnet in subnets_of(network)]
    if not has_names(network):
        return "without names nobody asks for them", 'leave "domain" out'
    if forwarder.version not in {subnet.version for subnet in own}:
        return f"network {quoted(name)} has no IPv{forwarder.version} subnet", ""
    if any(forwarder in subnet for subnet in own):
        return (
            f"{forwarder} lies in network {quoted(name)} itself",
            "who is asked is in another one, or outside",
        )
    router = next((each for each, networks in _routers(draft) if name in networks), None)
    if router is None:
        hint = 'put it in a router with "uplink: host"'
        return f"network {quoted(name)} is in no router, so nobody is reached from it", hint
    return _why_not_reached(forwarder, router, draft)


def _why_not_reached(forwarder: IPAddress, router: str, draft: Draft) -> tuple[str, str]:
    for name, network in draft.networks.items():
        for subnet, gateway in gateways_of(network.value):
            if forwarder not in subnet.value:
                continue
            if forwarder == (first_host(subnet.value) if gateway is None else gateway.value):
                return (
                    f"{forwarder} is the gateway of network {quoted(name)}",
                    "it answers its own guests only",
                )
            if name in dict(_routers(draft))[router]:
                return "", ""
            return f"network {quoted(name)} is not in router {quoted(router)}", "nothing leads there"
    entry = draft.routers[router].value
    routes = (route.value.get(lang.ROUTE_TO) for route in entry.value(lang.ROUTER_ROUTES))
    if entry.given(lang.ROUTER_UPLINK) or any(to is not None and forwarder in to.value for to in routes):
        return "", ""
    return f"{forwarder} is outside, and router {quoted(router)} has no uplink", 'add "uplink: host" to it'


def _routers(draft: Draft) -> Iterator[tuple[str, frozenset[str]]]:
    """Each router, with its networks."""
    for name, router in draft.routers.items():
        listed = router.value.get(lang.ROUTER_NETWORKS)
        yield name, frozenset() if listed is None else frozenset(each.value for each in listed.value)
