"""Interfaces that carry copies of packets to another machine: VXLAN and ERSPAN devices of the kernel.

Such a device lies in the fabric's namespace, where the switch can send to it. What it makes of that it sends
in the namespace where it was made, the daemon's, by whose routes the other machine is reached.
"""

from __future__ import annotations

import os
import socket
import subprocess
from ipaddress import IPv6Address

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.fabric.mirror import TUNNEL
from vnet.fabric.state import ifname as short
from vnet.switch.live.netns import inside
from vnet.topology.model import ToErspan, ToVxlan

WIDE = 65000
"""MTU of a device that cuts what is longer: about as much as an IPv4 packet takes, in fragments."""

CUT_OFF = 40 + 8 + 8 + 74
"""Bytes by which the MTU of an IPv6 device is less than that of the way, so that what is cut fits.

IPv6, GRE and ERSPAN; and as the kernel cuts at the MTU plus what it takes for the device's link header, that:
the three once more, and up to 18 bytes of Ethernet with a tag.
"""


def make(ifname: str, to: ToVxlan | ToErspan, netns: str, underlay: str | None = None) -> None:
    """Make the device anew, up.

    It is made where its packets leave, and moved: a GRE device sends them where it was made.

    Args:
        netns: where the device lies.
        underlay: whose routes lead to the other machine; None for the namespace of the daemon.

    Raises: HostError, which says so when the kernel has no such devices.
    """
    assert ifname.startswith(TUNNEL)
    made = short(f"{ifname}.{netns}")  # no other fabric's device has this name meanwhile
    remove(ifname, netns)
    remove(made, underlay)
    with inside(underlay):
        kind, options = _vxlan(to) if isinstance(to, ToVxlan) else _erspan(to)
        why = _refused(f"ip link add name {made} {options}")
        if "Unknown device type" in why:
            raise HostError(f"this kernel has no {kind} devices: `ip link add type {kind}` says: {why}")
        if "File exists" in why:
            why = f"another mirror sends to it under {to.number}; give each a number of its own"
        why = why or _refused(f"ip link set dev {made} netns {netns} name {ifname}")
    if why:
        remove(made, underlay)
        raise HostError(f"cannot make the {kind} device to {to.address}: {why}")
    with inside(netns), IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=ifname)[0], state="up")


def _refused(command: str) -> str:
    """Why a command failed; empty if it did not."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=20)
    why = done.stderr.strip().removeprefix("Error: ").rstrip(".")
    return (why or f"`{command}` failed") if done.returncode else ""


def _vxlan(to: ToVxlan) -> tuple[str, str]:
    """Kind of the device, and its options for ip-link(8)."""
    return "vxlan", f"type vxlan id {to.number} remote {to.address} dstport {to.udp_port} nolearning"


def _erspan(to: ToErspan) -> tuple[str, str]:
    """Type II has a sequence number, and the session ID in place of the key.

    Over IPv4 nothing of the copied packet is taken over: not its TTL, which may be 1, nor that it must not be
    fragmented. Over IPv6 the kernel does not fragment, so it is to cut what is too long, which it says in the
    copy's header. It knows no source by itself, and must be kept from an extension header before GRE.
    """
    options = f"seq key {to.number} remote {to.address} erspan_ver 1"
    if isinstance(to.address, IPv6Address):
        source, mtu = _way(to.address)
        mtu -= CUT_OFF
        return "ip6erspan", f"mtu {mtu} type ip6erspan {options} local {source} encaplimit none"
    return "erspan", f"mtu {WIDE} type erspan {options} ttl 64 nopmtudisc ignore-df"


def _way(target: IPv6Address) -> tuple[str, int]:
    """From which address the routes from here lead to another machine, and the MTU of the link they take."""
    try:
        with IPRoute() as netlink:
            (route,) = netlink.route("get", dst=str(target), family=socket.AF_INET6)
            (link,) = netlink.get_links(route.get_attr("RTA_OIF"))
    except NetlinkError as error:
        raise HostError(f"no route to {target}: {os.strerror(error.code)}") from error
    return str(route.get_attr("RTA_PREFSRC")), int(link.get_attr("IFLA_MTU"))


def remove(ifname: str, netns: str | None) -> None:
    """Delete the device; one that is not there is no error."""
    with inside(netns), IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=ifname):
            netlink.link("del", index=index)
