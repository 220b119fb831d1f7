"""The interfaces behind endpoints: a veth into the fabric's namespace, TAPs, and what is in namespaces.

But for those that name one, functions work in the network namespace of the *calling thread*: the host's.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.fabric.cable import Obstacle, obstacle
from vnet.fabric.live import interface
from vnet.fabric.live.service_port import put_addresses
from vnet.fabric.state import Endpoint
from vnet.switch.live import nic, ports, wire
from vnet.switch.live.netlink import netlink_to
from vnet.switch.live.netns import NETNS_DIR, inside

_MTU_MAX_BYTES = 65521
"""Of TAPs and of the veth's end on the host: what may be sent the switch says, at the port."""
_STATIC = 4
"""RTPROT_STATIC (linux/rtnetlink.h)."""
_TAP_KIND = "tun"


@dataclass(frozen=True, slots=True)
class Veth:
    """A pair: `near` on the host, `far` in the fabric's namespace, where it is a port of the switch."""

    near: str
    far: str
    netns: str
    host: str | None

    def exists(self) -> bool:
        """Whether the port's end is there."""
        with inside(self.netns):
            return ports.interfaces().get(self.far) == "veth"

    def make(self, alias: str) -> None:
        """Make the pair, up; `alias` says on the host what it is."""
        with inside(self.host):
            ports.remove(self.near)
            target = os.open(NETNS_DIR / self.netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with netlink_to(f"make the port {self.far}") as netlink:
                    peer = {"ifname": self.far, "net_ns_fd": target}
                    netlink.link("add", ifname=self.near, kind="veth", mtu=_MTU_MAX_BYTES, peer=peer)
                    netlink.link("set", index=_index(netlink, self.near), ifalias=alias)
            finally:
                os.close(target)
            silence(self.near)
            _up(self.near)
        with inside(self.netns):
            _up(self.far)

    def lead_into(self, netns: str, device: str) -> None:
        """Move the host's end into a namespace, where it is called `device`."""
        with inside(self.host), netlink_to(f"move an interface into the namespace {netns}") as netlink:
            target = os.open(NETNS_DIR / netns, os.O_RDONLY | os.O_CLOEXEC)
            try:
                netlink.link("set", index=_index(netlink, self.near), net_ns_fd=target, ifname=device)
            finally:
                os.close(target)

    def remove(self) -> None:
        """Remove both ends, wherever the host's is by now."""
        if (NETNS_DIR / self.netns).exists():
            with inside(self.netns):
                ports.remove(self.far)
        with inside(self.host):
            ports.remove(self.near)


def is_inside(netns: str, device: str) -> bool:
    """Whether a namespace has an interface of the name."""
    with inside(netns):
        return nic.exists(device)


def make_tap(name: str, owner_uid: int) -> None:
    """A TAP that a program on the host can open by its name, as libvirt's `ethernet` does."""
    ports.create_tap(name, owner_uid)
    silence(name)
    ports.resize(name, _MTU_MAX_BYTES)


def silence(name: str) -> None:
    """Keep the host's own stack off it: no addresses of its own, and no ARP."""
    for setting, value in (("ipv6/conf/{}/disable_ipv6", "1"), ("ipv4/conf/{}/arp_ignore", "8")):
        _set(setting.format(name), value)


def _set(setting: str, value: str) -> None:
    with suppress(OSError):  # a kernel without IPv6 has none of it
        (Path("/proc/sys/net") / setting).write_text(value)


def join(outer: str, near: str, *, is_ours: bool) -> None:
    """Have packets go from the one to the other; an interface of the host takes frames for all MACs then."""
    if not is_ours:
        found = in_use(outer)
        if found is not None:
            raise HostError(str(found))
        interface.listen(outer)
    wire.join(socket.if_nametoindex(outer), socket.if_nametoindex(near))


def is_joined(outer: str, near: str) -> bool:
    """Whether packets go from the one to the other, and back."""
    if not nic.exists(near):
        return False
    one, other = socket.if_nametoindex(outer), socket.if_nametoindex(near)
    return wire.leads(one, other) and wire.leads(other, one)


def part(outer: str) -> None:
    """Give an interface of the host back."""
    wire.part(socket.if_nametoindex(outer))
    interface.unlisten(outer)


def in_use(name: str) -> Obstacle | None:
    """Why the host, or somebody on it, would miss an interface; None of one that is not there."""
    found = interface.find(name)
    if found is None:
        return None
    why = obstacle(found, also=(_TAP_KIND,))
    if why is None and wire.is_taken(socket.if_nametoindex(name)):
        problem = f"somebody else's program looks first at what {name} receives"
        return Obstacle(problem, f"`tc filter show dev {name} ingress` tells which")
    return why


def configure(netns: str, device: str, endpoint: Endpoint) -> None:
    """Give the interface in a namespace its MAC, MTU, addresses, and default routes where there are none."""
    with inside(netns), netlink_to(f"set up {device} in the namespace {netns}") as netlink:
        index, text = _index(netlink, device), endpoint.mac.to_bytes(6, "big").hex(":")
        (link,) = netlink.get_links(index)
        if link.get_attr("IFLA_ADDRESS") != text:
            netlink.link("set", index=index, state="down")
            netlink.link("set", index=index, address=text)
        has_v6 = any(ip_interface(address).version == 6 for address in endpoint.addresses)
        _set(f"ipv6/conf/{device}/disable_ipv6", "0" if has_v6 else "1")  # else it asks in vain
        netlink.link("set", index=index, state="up", mtu=endpoint.mtu_bytes)
        put_addresses(netlink, index, endpoint.addresses)
        for gateway in endpoint.gateways:
            _default_route(netlink, index, gateway)


def _default_route(netlink: IPRoute, index: int, gateway: str) -> None:
    family = socket.AF_INET6 if ip_address(gateway).version == 6 else socket.AF_INET
    if not any(_is_default(route) for route in netlink.get_routes(family=family)):
        with suppress(NetlinkError):  # its own stack may not have IPv6
            netlink.route("add", dst="default", gateway=gateway, oif=index, family=family, proto=_STATIC)


def _is_default(route: Any) -> bool:
    return route["dst_len"] == 0 and route.get_attr("RTA_GATEWAY") is not None


def _up(name: str) -> None:
    with netlink_to(f"switch {name} on") as netlink:
        netlink.link("set", index=_index(netlink, name), state="up")


def _index(netlink: IPRoute, name: str) -> int:
    found = netlink.link_lookup(ifname=name)
    if not found:
        raise HostError(f"the interface {name} has gone")
    return int(found[0])
