"""Addresses, routes and neighbours of interfaces, read and brought to what they should be.

Works in the network namespace of the calling thread, and on the interfaces named only.
"""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_address, ip_interface, ip_network
from typing import Any, TypeVar

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.services.gateway import PROTOCOL, Address, Neighbour, Route, Side

T = TypeVar("T")

_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_NODAD, _ONLINK, _PERMANENT, _PROXY = 0x02, 0x04, 0x80, 0x08
"""IFA_F_NODAD (linux/if_addr.h), RTNH_F_ONLINK (linux/rtnetlink.h), NUD_PERMANENT, NTF_PROXY
(linux/neighbour.h)."""
_MAIN, _UNICAST, _BY_KERNEL = 254, 1, 2
"""RT_TABLE_MAIN, RTN_UNICAST, RTPROT_KERNEL (linux/rtnetlink.h)."""
_USUAL_METRIC = {4: 0, 6: 1024}
"""IP6_RT_PRIO_USER (net/ip6_route.h)."""


def read(netlink: IPRoute, devices: Iterable[str]) -> Side:
    """What the interfaces have, as far as somebody gave it to them."""
    wanted = frozenset(devices)
    names = {index: name for index, name in socket.if_nameindex() if name in wanted}
    return Side(
        frozenset(_addresses(netlink, names)),
        frozenset(_routes(netlink, names)),
        frozenset(_neighbours(netlink, names)),
    )


def _addresses(netlink: IPRoute, names: Mapping[int, str]) -> Iterator[Address]:
    for each in netlink.get_addr():
        own = each.get_attr("IFA_LOCAL") or each.get_attr("IFA_ADDRESS")
        if each["index"] in names and not (each["family"] == socket.AF_INET6 and _is_link_local(own)):
            yield Address(names[each["index"]], f"{own}/{each['prefixlen']}")


def _is_link_local(address: str) -> bool:
    return ip_address(address).is_link_local


def _routes(netlink: IPRoute, names: Mapping[int, str]) -> Iterator[Route]:
    for version, family in _FAMILY.items():
        for each in netlink.get_routes(family=family, table=_MAIN):
            device = names.get(each.get_attr("RTA_OIF"))
            if device and each["type"] == _UNICAST and each["proto"] != _BY_KERNEL:
                prefix = f"{each.get_attr('RTA_DST') or _nothing(version)}/{each['dst_len']}"
                via, source = each.get_attr("RTA_GATEWAY") or "", each.get_attr("RTA_PREFSRC") or ""
                metric = (each.get_attr("RTA_PRIORITY") or 0) - _USUAL_METRIC[version]
                yield Route(prefix, via, device, source, metric, each["proto"], each["scope"])


def _nothing(version: int) -> str:
    return "0.0.0.0" if version == 4 else "::"


def _neighbours(netlink: IPRoute, names: Mapping[int, str]) -> Iterator[Neighbour]:
    for each in netlink.get_neighbours():
        if each["ifindex"] in names and each["state"] & _PERMANENT and each.get_attr("NDA_LLADDR"):
            mac = int(each.get_attr("NDA_LLADDR").replace(":", ""), 16)
            yield Neighbour(names[each["ifindex"]], each.get_attr("NDA_DST"), mac)


def lacks(wanted: Side, found: Side) -> bool:
    """Whether anything is missing."""
    parts = ((wanted.addresses, found.addresses), (wanted.routes, found.routes))
    return not (all(one <= other for one, other in parts) and wanted.neighbours <= found.neighbours)


def bring(netlink: IPRoute, wanted: Side, devices: Iterable[str]) -> None:
    """Make what is missing, then remove what is too much."""
    found = read(netlink, devices)
    for address in sorted(wanted.addresses - found.addresses):
        _address(netlink, "add", address)
    for neighbour in sorted(wanted.neighbours - found.neighbours):
        _neighbour(netlink, "replace", neighbour)
    for route in sorted(wanted.routes - found.routes):
        _route(netlink, "replace", route)
    prefixes = {(route.prefix, route.device) for route in wanted.routes}
    for route in sorted(found.routes - wanted.routes):
        if (route.prefix, route.device) not in prefixes:  # else it was replaced
            _gone(_route, netlink, route)
    for neighbour in sorted(found.neighbours - wanted.neighbours):
        _gone(_neighbour, netlink, neighbour)
    for address in sorted(found.addresses - wanted.addresses):
        _gone(_address, netlink, address)


def _gone(change: Callable[[IPRoute, str, T], None], netlink: IPRoute, what: T) -> None:
    with suppress(NetlinkError):  # it went with something else
        change(netlink, "del", what)


def _address(netlink: IPRoute, what: str, address: Address) -> None:
    interface = ip_interface(address.address)
    flags = {"flags": _NODAD} if interface.version == 6 and what == "add" else {}
    netlink.addr(
        what,
        index=socket.if_nametoindex(address.device),
        address=str(interface.ip),
        prefixlen=interface.network.prefixlen,
        family=_FAMILY[interface.version],
        **flags,
    )


def _route(netlink: IPRoute, what: str, route: Route) -> None:
    version = ip_network(route.prefix).version
    fields: dict[str, Any] = {"dst": route.prefix, "oif": socket.if_nametoindex(route.device)}
    fields |= {"proto": route.protocol, "scope": route.scope}
    if route.via:
        fields["gateway"] = route.via
    if route.protocol == PROTOCOL:
        fields["flags"] = _ONLINK
    if route.source:
        fields["prefsrc"] = route.source
    if route.metric:
        fields["priority"] = route.metric + _USUAL_METRIC[version]
    netlink.route(what, family=_FAMILY[version], **fields)


def _neighbour(netlink: IPRoute, what: str, neighbour: Neighbour) -> None:
    netlink.neigh(
        what,
        dst=neighbour.address,
        lladdr=neighbour.mac.to_bytes(6, "big").hex(":"),
        ifindex=socket.if_nametoindex(neighbour.device),
        state=_PERMANENT,
        family=_FAMILY[ip_address(neighbour.address).version],
    )


# ---- addresses that the host answers for -----------------------------------------------------


def proxies() -> frozenset[Address]:
    """The addresses that the host answers for by ARP or neighbour discovery, and by which interface."""
    command = ["ip", "-j", "neigh", "show", "proxy"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return frozenset(Address(each["dev"], each["dst"]) for each in json.loads(done.stdout or "[]"))


def answer(netlink: IPRoute, proxy: Address) -> None:
    """Have the host answer for it."""
    _proxy(netlink, "replace", proxy)


def answer_no_more(netlink: IPRoute, proxy: Address) -> None:
    """Have the host answer for it no more; what is not there is no error."""
    with suppress(OSError):  # the interface is gone
        _gone(_proxy, netlink, proxy)


def _proxy(netlink: IPRoute, what: str, proxy: Address) -> None:
    netlink.neigh(
        what,
        dst=proxy.address,
        ifindex=socket.if_nametoindex(proxy.device),
        flags=_PROXY,
        family=_FAMILY[ip_address(proxy.address).version],
    )
