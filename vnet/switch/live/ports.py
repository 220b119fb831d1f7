"""The interfaces behind the switch's ports: persistent TAPs that guests are given by file descriptor.

Every function works in the network namespace of the *calling thread*: run them in the fabric's
namespace (`vnet.fabric.live.netns.Namespace.run`). The kernel's own stack must never answer on a
port, so the namespace has no IPv6 and no address (`silence`).
"""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError
from vnet.switch.live.netlink import netlink_to

TUN = Path("/dev/net/tun")
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI, _IFF_VNET_HDR = 0x0002, 0x1000, 0x4000
_TAP_FLAGS = {"no_pi": 1, "one_queue": 0, "vnet_hdr": 1, "multi_queue": 0}
"""All four keys, inside `ifr`: pyroute2 ignores them at the top level, and without `no_pi` and
`vnet_hdr` QEMU cannot use the TAP."""


def silence() -> None:
    """Keep the kernel's stack of this namespace off the wire: no IPv6, no forwarding.

    `default` holds for interfaces made later, `all` for those already there.
    """
    settings = {
        "ipv6/conf/{}/disable_ipv6": "1",
        "ipv6/conf/{}/accept_ra": "0",
        "ipv4/conf/{}/forwarding": "0",
    }
    for template, value in settings.items():
        for scope in ("all", "default"):
            path = Path("/proc/sys/net") / template.format(scope)
            if path.exists():
                path.write_text(value)


def create_tap(ifname: str, owner_uid: int = 0) -> None:
    """Make a persistent TAP, up, with `IFF_VNET_HDR`; only `owner_uid` (or root) may open it."""
    with netlink_to(f"create the TAP {ifname}") as netlink:
        netlink.link("add", ifname=ifname, kind="tuntap", mode="tap", uid=owner_uid, ifr=dict(_TAP_FLAGS))
        index = _index(netlink, ifname)
        try:
            netlink.link("set", index=index, state="up")
        except NetlinkError:
            netlink.link("del", index=index)
            raise


def resize(ifname: str, mtu_bytes: int) -> None:
    """Give an interface an MTU; it goes on."""
    with netlink_to(f"set an MTU of {mtu_bytes} for {ifname}") as netlink:
        links = netlink.get_links(ifname=ifname)
        if not links:
            raise HostError(f"cannot set the MTU of {ifname}: there is no such interface")
        if links[0].get_attr("IFLA_MTU") != mtu_bytes:
            netlink.link("set", index=links[0]["index"], mtu=mtu_bytes)


def remove(ifname: str) -> None:
    """Delete an interface; one that is not there is no error."""
    with netlink_to(f"remove {ifname}") as netlink:
        for index in netlink.link_lookup(ifname=ifname):
            netlink.link("del", index=index)


def interfaces() -> dict[str, str]:
    """Interface name → kind (`tun` for a TAP, `veth`, `""` for hardware), without the loopback."""
    with netlink_to("list interfaces") as netlink:
        links = [link for link in netlink.get_links() if link.get_attr("IFLA_IFNAME") != "lo"]
        return {link.get_attr("IFLA_IFNAME"): kind(link) for link in links}


def open_tap(ifname: str) -> int:
    """A file descriptor of an existing TAP, to hand to QEMU; close it once QEMU has its copy.

    While any copy is open the TAP has carrier and cannot be opened a second time.
    """
    if ifname not in interfaces():
        raise HostError(f"cannot open the TAP {ifname}: there is no such interface in the fabric's namespace")
    fd = open_device()
    try:
        request = struct.pack("16sH22x", ifname.encode(), _IFF_TAP | _IFF_NO_PI | _IFF_VNET_HDR)
        fcntl.ioctl(fd, _TUNSETIFF, request)
    except OSError as error:
        os.close(fd)
        hint = "; another process holds it" if error.errno == 16 else ""
        raise HostError(f"cannot open the TAP {ifname}: {error.strerror}{hint}") from error
    return fd


def open_device() -> int:
    """A file descriptor of `/dev/net/tun`, not yet bound to a TAP."""
    try:
        return os.open(TUN, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        hint = "load it with `modprobe tun`, or give this machine or container the device"
        raise HostError(f"cannot open {TUN}: {error.strerror}; {hint}") from error


def kind(link: Any) -> str:
    """The kind of an interface, of netlink's message about it; empty for hardware."""
    info = link.get_attr("IFLA_LINKINFO")
    return (info.get_attr("IFLA_INFO_KIND") or "") if info else ""


def _index(netlink: IPRoute, ifname: str) -> int:
    return int(netlink.link_lookup(ifname=ifname)[0])
