"""Interfaces that carry copies of packets to another machine: VXLAN and ERSPAN devices of the kernel.

Such a device lies in the fabric's namespace, where the switch can send to it. What it makes of that it sends
in the namespace where it was made, the daemon's, by whose routes the other machine is reached.
"""

from __future__ import annotations

import os
from ipaddress import IPv6Address
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.fabric.mirror import TUNNEL
from vnet.switch.live.netns import NETNS_DIR, inside
from vnet.topology.model import ToErspan, ToVxlan

_IKEY_SEQ = 0x1000 | 0x2000
"""GRE_SEQ and GRE_KEY (linux/if_tunnel.h), in network byte order there: ERSPAN type II has both."""


def make(ifname: str, to: ToVxlan | ToErspan, netns: str, underlay: str | None = None) -> None:
    """Make the device anew, up.

    Args:
        netns: where the device lies.
        underlay: whose routes lead to the other machine; None for the namespace of the daemon.

    Raises: HostError, which says so when the kernel has no such devices.
    """
    assert ifname.startswith(TUNNEL)
    remove(ifname, netns)
    try:
        with inside(underlay), IPRoute() as netlink:
            _add(netlink, ifname, to, netns)
        with inside(netns), IPRoute() as netlink:
            netlink.link("set", index=netlink.link_lookup(ifname=ifname)[0], state="up")
    except NetlinkError as error:
        kind = "VXLAN" if isinstance(to, ToVxlan) else "ERSPAN"
        why = os.strerror(error.code) if error.code else str(error)
        unknown = f"this kernel has no {kind} devices (`ip link add type {kind.lower()}` is refused: {why})"
        raise HostError(
            unknown if error.code in (95, 93) else f"cannot make the {kind} device to {to.address}: {why}"
        ) from error


def _add(netlink: IPRoute, ifname: str, to: ToVxlan | ToErspan, netns: str) -> None:
    is_v6 = isinstance(to.address, IPv6Address)
    namespace = os.open(NETNS_DIR / netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        given: dict[str, Any] = {"ifname": ifname, "net_ns_fd": namespace}
        if isinstance(to, ToVxlan):
            given |= {"kind": "vxlan", "vxlan_id": to.number, "vxlan_port": to.udp_port, "vxlan_learning": 0}
            given["vxlan_group6" if is_v6 else "vxlan_group"] = str(to.address)
        else:
            prefix = "ip6gre" if is_v6 else "gre"
            given |= {"kind": "ip6erspan" if is_v6 else "erspan", f"{prefix}_remote": str(to.address)}
            given |= {f"{prefix}_oflags": _IKEY_SEQ, f"{prefix}_okey": to.number}
        netlink.link("add", **given)
    finally:
        os.close(namespace)


def remove(ifname: str, netns: str) -> None:
    """Delete the device; one that is not there is no error."""
    with inside(netns), IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=ifname):
            netlink.link("del", index=index)
