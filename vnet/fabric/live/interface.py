"""An interface of the host: looked at, moved from one namespace to another, and made as it was.

Every function works in the network namespace of the *calling thread*.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from contextlib import suppress
from ipaddress import ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from vnet.base.errors import HostError
from vnet.fabric.cable import MOVABLE, Interface, LinkState, Was
from vnet.switch.live import nic
from vnet.switch.live.attached import LINK_UP
from vnet.switch.live.netlink import netlink_to
from vnet.switch.live.nic import PROMISCUOUS, UP

_UNICAST = 1
"""RTN_UNICAST (linux/rtnetlink.h)."""
_SETTINGS = Path("/proc/sys/net")


def find(name: str) -> Interface | None:
    """The interface as it is here."""
    with netlink_to(f"look at {name}") as route:
        link = _link(route, name)
        if link is None:
            return None
        links = {each["index"]: each for each in route.get_links()}
        master = links.get(link.get_attr("IFLA_MASTER"))
        return Interface(
            name,
            _kind(link),
            master.get_attr("IFLA_IFNAME") if master else "",
            tuple(each.get_attr("IFLA_IFNAME") for each in links.values() if _is_on(each, link["index"])),
            tuple(_addresses(route, link["index"])),
            tuple(_routes(route, link["index"])),
            Path("/sys/class/net", name, "phy80211").exists(),
        )


def movable() -> tuple[str, ...]:
    """The names of those that can be taken, as far as their kind goes."""
    with netlink_to("list interfaces") as route:
        links = [link for link in route.get_links() if _kind(link) in MOVABLE]
    names = (link.get_attr("IFLA_IFNAME") for link in links)
    return tuple(sorted(name for name in names if name != "lo"))


def state(name: str) -> LinkState:
    """Its link, or that it is missing here."""
    with netlink_to(f"look at {name}") as route:
        link = _link(route, name)
    if link is None:
        return LinkState.MISSING
    return LinkState.UP if link["flags"] & LINK_UP == LINK_UP else LinkState.DOWN


def mtu_bytes(name: str) -> int | None:
    """Its MTU; None if there is none of the name."""
    with netlink_to(f"look at {name}") as route:
        link = _link(route, name)
        return None if link is None else int(link.get_attr("IFLA_MTU"))


def is_up(name: str) -> bool:
    """Whether it is there and switched on."""
    with netlink_to(f"look at {name}") as route:
        link = _link(route, name)
        return link is not None and bool(link["flags"] & UP)


def remember(name: str) -> Was:
    """What of it will have to be made again."""
    with netlink_to(f"look at {name}") as route:
        link = _there(route, name)
        up, promiscuous = bool(link["flags"] & UP), bool(link["flags"] & PROMISCUOUS)
        return Was(up, promiscuous, nic.has_lro(name), link.get_attr("IFLA_MTU"), _settings(name))


def move(name: str, to: str, netns: int) -> None:
    """Move it into a namespace that is open as `netns`, where it is called `to`: both or nothing."""
    with netlink_to(f"move the interface {name} into another network namespace") as route:
        route.link("set", index=_there(route, name)["index"], net_ns_fd=netns, ifname=to)


def rename(name: str, to: str) -> None:
    """Give it another name."""
    with netlink_to(f"rename the interface {name}") as route:
        index = _there(route, name)["index"]
        route.link("set", index=index, flags=0, change=UP)
        route.link("set", index=index, ifname=to)


def listen(name: str) -> None:
    """Have it take frames for all MACs, each as it came: what LRO joins can be sent on by nobody."""
    nic.switch_lro(name, on=False)
    nic.set_flags(name, UP | PROMISCUOUS, UP | PROMISCUOUS)


def unlisten(name: str) -> None:
    """Have it take frames for its own MAC only, as an interface of the host does."""
    nic.set_flags(name, 0, PROMISCUOUS)


def silence(name: str, was: Was) -> None:
    """Undo `listen`, and switch it off."""
    nic.set_flags(name, PROMISCUOUS if was.is_promiscuous else 0, UP | PROMISCUOUS)


def restore(name: str, was: Was) -> None:
    """Make it as it was."""
    for path, value in was.settings.items():
        with suppress(OSError):  # some can only be read, and some need others first
            if (_SETTINGS / path).read_text() != value:
                (_SETTINGS / path).write_text(value)
    with netlink_to(f"restore {name}") as route:
        link = _there(route, name)
        if was.mtu and link.get_attr("IFLA_MTU") != was.mtu:
            route.link("set", index=link["index"], mtu=was.mtu)
    if was.has_lro:
        with suppress(HostError):
            nic.switch_lro(name, on=True)
    promiscuous = PROMISCUOUS if was.is_promiscuous else 0
    nic.set_flags(name, (UP if was.is_up else 0) | promiscuous, UP | PROMISCUOUS)


def _settings(name: str) -> Mapping[str, str]:
    """The kernel's settings for this interface, by their path."""
    found = {}
    for folder in ("ipv4/conf", "ipv6/conf"):
        for path in (_SETTINGS / folder / name).glob("*"):
            with suppress(OSError):
                found[str(path.relative_to(_SETTINGS))] = path.read_text()
    return found


def _link(route: IPRoute, name: str) -> Any:
    index = next(iter(route.link_lookup(ifname=name)), None)
    return None if index is None else route.get_links(index)[0]


def _there(route: IPRoute, name: str) -> Any:
    link = _link(route, name)
    if link is None:
        raise HostError(f"the interface {name} has gone")
    return link


def _kind(link: Any) -> str:
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info else ""


def _is_on(link: Any, index: int) -> bool:
    """Whether a link is made of another, as VLANs are; the ends of a veth name each other too."""
    is_here = link.get_attr("IFLA_LINK_NETNSID") is None
    return is_here and link.get_attr("IFLA_LINK") == index and _kind(link) != "veth"


def _addresses(route: IPRoute, index: int) -> Iterator[str]:
    for each in route.get_addr(index=index):
        address = ip_interface(
            f"{each.get_attr('IFA_LOCAL') or each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}"
        )
        if address.version == 4 or not address.is_link_local:
            yield str(address)


def _routes(route: IPRoute, index: int) -> Iterator[str]:
    """Those by an interface, without what the kernel has for link-local addresses."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for each in route.get_routes(family=family, oif=index):
            target = each.get_attr("RTA_DST")
            if each["type"] == _UNICAST and not (target or "").startswith("fe80:"):
                via = each.get_attr("RTA_GATEWAY")
                yield f"{target}/{each['dst_len']}" if target else f"default{f' via {via}' if via else ''}"
