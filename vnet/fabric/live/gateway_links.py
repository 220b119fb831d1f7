"""The namespace in which a gateway forwards, and its interfaces: to the switch, and to the outside.

"The host" is the network namespace of the calling thread: the daemon's own.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from pyroute2 import NetlinkError

from vnet.base.errors import HostError
from vnet.fabric.live import gateway_side, netns, settings
from vnet.fabric.live.gateway_side import read
from vnet.services.gateway import FABRIC, GROUP, HOST, Address, Route, Side
from vnet.switch.live.netlink import netlink_to
from vnet.switch.live.netns import NETNS_DIR, inside

_UP = 1
"""IFF_UP (linux/if.h)."""
_GET_FLAGS, _GET_HARDWARE = 0x8913, 0x8927
"""SIOCGIFFLAGS, SIOCGIFHWADDR (linux/sockios.h)."""
_FORWARDING = {"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1"}
_GATEWAY = _FORWARDING | {
    "ipv6/conf/default/forwarding": "1",
    "ipv6/conf/all/disable_ipv6": "0",
    "ipv6/conf/default/disable_ipv6": "0",
    "ipv6/conf/default/accept_ra": "0",
    "ipv6/conf/default/accept_dad": "0",
    "ipv4/conf/all/rp_filter": "0",
    "ipv4/conf/default/rp_filter": "0",
}
"""Of the kernel in the gateway's namespace; its rules have the check of source addresses."""
_EACH = {
    "ipv4/conf/{}/send_redirects": "0",
    "ipv4/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_redirects": "0",
    "ipv6/conf/{}/accept_ra": "0",
    "ipv6/conf/{}/accept_dad": "0",
    "ipv6/conf/{}/disable_ipv6": "0",
}
_TO_HOST = _EACH | {"ipv4/conf/{}/route_localnet": "1", "ipv4/conf/{}/rp_filter": "0"}
"""Of the host's interface to a gateway: what the host asks for at 127.0.0.1 leaves by it."""
_NO_LINK_LOCAL = {f"ipv6/conf/{FABRIC}/addr_gen_mode": "1"}
"""The switch lets nothing pass from an address that the kernel chose."""


@dataclass(frozen=True, slots=True)
class Names:
    """Of what belongs to one gateway: port, namespaces of the fabric and its own, the host's interface."""

    port: str
    fabric: str
    own: str
    host: str


@dataclass(frozen=True, slots=True)
class Moved:
    """What an interface of the host had before it became a gateway's. `boot` is when that was."""

    boot: str
    is_up: bool
    addresses: tuple[str, ...]
    routes: tuple[Route, ...]


def is_whole(names: Names, mac: int, device: str) -> bool:
    """Whether the namespace and its interfaces are there, and up."""
    if not netns.exists(names.own) or not netns.exists(names.fabric):
        return False
    with inside(names.own):
        whole = _are_up(FABRIC, device) and _mac(FABRIC) == mac
        whole = whole and all(settings.get(name) in ("", value) for name, value in _FORWARDING.items())
    with inside(names.fabric):
        whole = whole and _are_up(names.port)
    if device != HOST:
        return whole
    return whole and _are_up(names.host) and settings.get(f"ipv4/conf/{names.host}/route_localnet") == "1"


def make(names: Names, mac: int, to_host: bool) -> None:
    """Make what is missing of the namespace, the interface to the switch, and the one to the host."""
    if not netns.exists(names.own):
        netns.create(names.own)
    with inside(names.own):
        settings.put(_GATEWAY)
        with netlink_to("set up the gateway's loopback") as netlink:
            netlink.link("set", index=_index("lo"), state="up")
    _join((names.fabric, names.port), (names.own, FABRIC))
    if to_host:
        _join((None, names.host), (names.own, HOST))
        _set(names.host, _TO_HOST)
        with netlink_to("mark the interface to the gateway") as netlink:
            netlink.link("set", index=_index(names.host), group=GROUP)
    with inside(names.own):
        _identify(mac)
        for each in (FABRIC, HOST) if to_host else (FABRIC,):
            _set(each, _EACH)
            _raise(each)
    with inside(names.fabric):
        _raise(names.port)
    if to_host:
        _raise(names.host)


def _set(device: str, templates: Mapping[str, str]) -> None:
    settings.put({template.format(device): value for template, value in templates.items()})


def _join(one: tuple[str | None, str], other: tuple[str, str]) -> None:
    """A veth between two namespaces, unless there is one."""
    (near, name), (far, peer) = one, other
    with inside(near):
        here = exists(name)
    with inside(far):
        there = exists(peer)
    if here and there:
        return
    for space, each in (one, other):
        with inside(space):
            remove_link(each)
    with inside(near), netlink_to(f"make the interface {name}") as netlink:
        target = os.open(NETNS_DIR / far, os.O_RDONLY | os.O_CLOEXEC)
        try:
            netlink.link("add", ifname=name, kind="veth", peer={"ifname": peer, "net_ns_fd": target})
        finally:
            os.close(target)


def _identify(mac: int) -> None:
    if _mac(FABRIC) != mac:
        with netlink_to("give the gateway its MAC") as netlink:
            index = _index(FABRIC)
            netlink.link("set", index=index, state="down")
            netlink.link("set", index=index, address=mac.to_bytes(6, "big").hex(":"))
    settings.put(_NO_LINK_LOCAL)


def remove(names: Names) -> None:
    """Remove all of it but an interface that was the host's; what is not there is no error."""
    remove_link(names.host)
    if netns.exists(names.fabric):
        with inside(names.fabric):
            remove_link(names.port)
    netns.remove(names.own)


# ---- an interface that is the host's ---------------------------------------------------------


def seen(device: str, boot: str) -> Moved | None:
    """What an interface of the host has now; None if it is not there."""
    with netlink_to(f"read the interface {device}") as netlink:
        if not netlink.link_lookup(ifname=device):
            return None
        side = read(netlink, (device,))
        (link,) = netlink.get_links(_index(device))
    addresses = tuple(each.address for each in sorted(side.addresses))
    return Moved(boot, bool(link["flags"] & _UP), addresses, tuple(sorted(side.routes)))


def has(names: Names, device: str) -> bool:
    """Whether the gateway has the interface already."""
    if not netns.exists(names.own):
        return False
    with inside(names.own):
        return exists(device)


def take(names: Names, device: str) -> None:
    """Move an interface of the host into the gateway's namespace."""
    with open(NETNS_DIR / names.own, "rb") as target, netlink_to(f"take the interface {device}") as netlink:
        netlink.link("set", index=_index(device), net_ns_fd=target.fileno())


def settle(names: Names, device: str) -> None:
    """Have an interface that was taken up, and as quiet as the others."""
    with inside(names.own):
        _set(device, _EACH)
        _raise(device)


def give_back(names: Names, device: str, was: Moved | None) -> None:
    """Move an interface back to the host, and make it what it was there."""
    if has(names, device):
        action = f"give the interface {device} back"
        with open("/proc/thread-self/ns/net", "rb") as home, inside(names.own), netlink_to(action) as netlink:
            index = _index(device)
            gateway_side.bring(netlink, Side(), (device,))
            netlink.link("set", index=index, state="down")
            netlink.link("set", index=index, net_ns_fd=home.fileno())
    if was is None or not exists(device):
        return
    with netlink_to(f"make the interface {device} what it was") as netlink:
        netlink.link("set", index=_index(device), state="up" if was.is_up else "down")
        addresses = frozenset(Address(device, each) for each in was.addresses)
        gateway_side.bring(netlink, Side(addresses, frozenset(was.routes)), (device,))


# ---- single interfaces -----------------------------------------------------------------------


def exists(name: str) -> bool:
    """Whether there is an interface of that name."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def group(name: str) -> int:
    """That of an interface; 0 if it is in none."""
    with netlink_to(f"read the interface {name}") as netlink:
        (link,) = netlink.get_links(_index(name))
        return int(link.get_attr("IFLA_GROUP") or 0)


def is_any_left() -> bool:
    """Whether the host has an interface to any gateway."""
    with netlink_to("read the interfaces") as netlink:
        return any(link.get_attr("IFLA_GROUP") == GROUP for link in netlink.get_links())


def _are_up(*names: str) -> bool:
    answers = [_asked(_GET_FLAGS, name) for name in names]
    return all(answer is not None and struct.unpack("=H", answer[:2])[0] & _UP for answer in answers)


def _mac(name: str) -> int | None:
    answer = _asked(_GET_HARDWARE, name)
    return None if answer is None else int.from_bytes(answer[2:8], "big")


def _asked(what: int, name: str) -> bytes | None:
    """What an ioctl tells of an interface, which costs much less than netlink; None if it is not there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        try:
            return fcntl.ioctl(control, what, struct.pack("16s24x", name.encode()))[16:]
        except OSError:
            return None


def _raise(name: str) -> None:
    if not _are_up(name):
        with netlink_to(f"switch the interface {name} on") as netlink:
            netlink.link("set", index=_index(name), state="up")


def remove_link(name: str) -> None:
    """Remove an interface; one that is not there is no error."""
    with netlink_to(f"remove the interface {name}") as netlink:
        for index in netlink.link_lookup(ifname=name):
            with suppress(NetlinkError):  # its other end took it along
                netlink.link("del", index=index)


def _index(name: str) -> int:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        raise HostError(f"there is no interface {name}") from error
