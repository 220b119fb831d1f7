"""The namespace in which a network's guests are answered, and the veth that leads from it to the switch."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import struct
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface
from pathlib import Path

from pyroute2 import IPRoute

from vnet.fabric.live import netns
from vnet.services.dhcp import INTERFACE
from vnet.switch.live.netlink import netlink_to
from vnet.switch.live.netns import NETNS_DIR, inside

_NODAD = 0x02
"""IFA_F_NODAD (linux/if_addr.h): the switch lets nobody else have the address."""
_STATIC, _LINK, _PERMANENT = 4, 253, 0x80
"""RTPROT_STATIC and RT_SCOPE_LINK (linux/rtnetlink.h), NUD_PERMANENT (linux/neighbour.h)."""
_SIOCETHTOOL, _ETHTOOL_STXCSUM = 0x8946, 0x17
_SETTINGS = {
    "ipv4/ip_forward": "0",
    "ipv6/conf/all/forwarding": "0",
    f"ipv6/conf/{INTERFACE}/accept_ra": "0",
    f"ipv6/conf/{INTERFACE}/accept_dad": "0",
    f"ipv6/conf/{INTERFACE}/disable_ipv6": "0",
    f"ipv6/conf/{INTERFACE}/addr_gen_mode": "0",
}
"""Of the kernel's stack in the namespace: it is a host, and takes nothing from guests."""


@dataclass(frozen=True, slots=True)
class WantedPort:
    """What a service's interface is to have. `mac` is a 48-bit integer, `addresses` are `IP/PREFIX`.

    `forwarders` are reached by the router, whose MAC is the interface's own.
    """

    mac: int
    addresses: tuple[str, ...]
    mtu_bytes: int
    forwarders: tuple[str, ...] = ()


def exists(ifname: str, fabric_netns: str, service_netns: str) -> bool:
    """Whether both ends are there."""
    if not netns.exists(service_netns):
        return False
    with inside(service_netns), IPRoute() as netlink:
        there = bool(netlink.link_lookup(ifname=INTERFACE))
    with inside(fabric_netns), IPRoute() as netlink:
        return there and bool(netlink.link_lookup(ifname=ifname))


def make(ifname: str, fabric_netns: str, service_netns: str, wanted: WantedPort) -> bool:
    """Make the namespace and the veth, if they are not there, with exactly what is wanted.

    Returns whether they were not.
    """
    is_new = not exists(ifname, fabric_netns, service_netns)
    if is_new:
        remove(ifname, fabric_netns, service_netns)
        netns.create(service_netns)
        _make_veth(ifname, fabric_netns, service_netns)
    with inside(service_netns):
        for name, value in _SETTINGS.items():
            path = Path("/proc/sys/net", name)
            if path.exists():
                path.write_text(value)
        _without_offload()
        with netlink_to("set up the service's interface") as netlink:
            _set_up(netlink, wanted)
            _lead(netlink, wanted)
    with inside(fabric_netns), netlink_to(f"set the MTU of {ifname}") as netlink:
        netlink.link("set", index=netlink.link_lookup(ifname=ifname)[0], mtu=wanted.mtu_bytes)
    return is_new


def _make_veth(ifname: str, fabric_netns: str, service_netns: str) -> None:
    with inside(fabric_netns), netlink_to(f"make the port {ifname}") as netlink:
        target = os.open(NETNS_DIR / service_netns, os.O_RDONLY | os.O_CLOEXEC)
        try:
            peer = {"ifname": INTERFACE, "net_ns_fd": target}
            netlink.link("add", ifname=ifname, kind="veth", peer=peer)
        finally:
            os.close(target)
        netlink.link("set", index=netlink.link_lookup(ifname=ifname)[0], state="up")


def _set_up(netlink: IPRoute, wanted: WantedPort) -> None:
    (index,) = netlink.link_lookup(ifname=INTERFACE)
    text = wanted.mac.to_bytes(6, "big").hex(":")
    (link,) = netlink.get_links(index)
    if link.get_attr("IFLA_ADDRESS") != text:
        netlink.link("set", index=index, state="down")
        netlink.link("set", index=index, address=text)
    netlink.link("set", index=index, state="up", mtu=wanted.mtu_bytes)
    put_addresses(netlink, index, wanted.addresses)


def put_addresses(netlink: IPRoute, index: int, addresses: tuple[str, ...]) -> None:
    """Give an interface exactly these, besides what the kernel makes itself."""
    has = {
        f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}"
        for each in netlink.get_addr(index=index)
        if not ip_interface(f"{each.get_attr('IFA_ADDRESS')}/{each['prefixlen']}").is_link_local
    }
    for gone in has - set(addresses):
        _address(netlink, "del", index, gone)
    for new in addresses:
        if new not in has:
            _address(netlink, "add", index, new)


def _lead(netlink: IPRoute, wanted: WantedPort) -> None:
    """Exactly the routes to the forwarders. The router takes what has its MAC, whoever is asked for it."""
    (index,) = netlink.link_lookup(ifname=INTERFACE)
    for family in (socket.AF_INET, socket.AF_INET6):
        netlink.flush_routes(oif=index, family=family, proto=_STATIC)
    for forwarder in wanted.forwarders:
        address = ip_address(forwarder)
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        lladdr = wanted.mac.to_bytes(6, "big").hex(":")
        netlink.neigh("replace", dst=forwarder, lladdr=lladdr, ifindex=index, family=family, state=_PERMANENT)
        target = f"{forwarder}/{address.max_prefixlen}"
        netlink.route("replace", dst=target, oif=index, family=family, proto=_STATIC, scope=_LINK)


def _address(netlink: IPRoute, what: str, index: int, address: str) -> None:
    interface = ip_interface(address)
    flags = {"flags": _NODAD} if interface.version == 6 and what == "add" else {}
    family = socket.AF_INET6 if interface.version == 6 else socket.AF_INET
    prefix = interface.network.prefixlen
    netlink.addr(what, index=index, address=str(interface.ip), prefixlen=prefix, family=family, **flags)


def _without_offload() -> None:
    """Have the kernel fill in checksums: DHCP clients read raw packets, and take no other ones."""
    request = array.array("B", struct.pack("II", _ETHTOOL_STXCSUM, 0))
    address, _ = request.buffer_info()
    packed = struct.pack("16sQ16x", INTERFACE.encode(), address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, _SIOCETHTOOL, packed)


def remove(ifname: str, fabric_netns: str, service_netns: str) -> None:
    """Remove the veth and the namespace; what is not there is no error."""
    if netns.exists(fabric_netns):
        with inside(fabric_netns), netlink_to(f"remove the port {ifname}") as netlink:
            for index in netlink.link_lookup(ifname=ifname):
                netlink.link("del", index=index)
    netns.remove(service_netns)
