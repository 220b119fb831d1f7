"""Interfaces that carry copies of packets to another machine: VXLAN and ERSPAN devices of the kernel.

Such a device lies in the fabric's namespace, where the switch can send to it. What it makes of that it sends
in the namespace where it was made, the daemon's, by whose routes the other machine is reached.
"""

from __future__ import annotations

import subprocess

from pyroute2 import IPRoute

from vnet.base.errors import HostError
from vnet.fabric.mirror import TUNNEL
from vnet.switch.live.netns import inside
from vnet.topology.model import ToErspan, ToVxlan


def make(ifname: str, to: ToVxlan | ToErspan, netns: str, underlay: str | None = None) -> None:
    """Make the device anew, up.

    Args:
        netns: where the device lies.
        underlay: whose routes lead to the other machine; None for the namespace of the daemon.

    Raises: HostError, which says so when the kernel has no such devices.
    """
    assert ifname.startswith(TUNNEL)
    remove(ifname, netns)
    kind, words = _vxlan(to) if isinstance(to, ToVxlan) else _erspan(to)
    with inside(underlay):
        command = ["ip", "link", "add", "name", ifname, "netns", netns, "type", kind, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    why = done.stderr.strip().removeprefix("Error: ").rstrip(".")
    if "Unknown device type" in why:
        raise HostError(f"this kernel has no {kind} devices: `ip link add type {kind}` says: {why}")
    if done.returncode:
        raise HostError(f"cannot make the {kind} device to {to.address}: {why}")
    with inside(netns), IPRoute() as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=ifname)[0], state="up")


def _vxlan(to: ToVxlan) -> tuple[str, list[str]]:
    words = f"id {to.number} remote {to.address} dstport {to.udp_port} nolearning"
    return "vxlan", words.split()


def _erspan(to: ToErspan) -> tuple[str, list[str]]:
    """Type II has a sequence number, and the session ID in place of the key."""
    words = f"seq key {to.number} remote {to.address} erspan_ver 1"
    return "ip6erspan" if to.address.version == 6 else "erspan", words.split()


def remove(ifname: str, netns: str) -> None:
    """Delete the device; one that is not there is no error."""
    with inside(netns), IPRoute() as netlink:
        for index in netlink.link_lookup(ifname=ifname):
            netlink.link("del", index=index)
