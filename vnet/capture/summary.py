"""One frame in a few words: source, destination, protocol, what matters of it.

Tolerates anything: a guest may send what it likes, and the frame may be cut. What cannot be read is
left out; nothing here decides about packets.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address

from vnet.base.protocols import PROTOCOLS
from vnet.capture.ends import Ends, ends_of, untagged
from vnet.openflow import fields

TCP_FLAGS = "FSRPAUEC"
"""From bit 0 up, with the letters that tcpdump users know."""
ICMP_TYPES = {0: "echo reply", 3: "unreachable", 8: "echo request", 11: "time exceeded"}
ICMPV6_TYPES = {
    1: "unreachable",
    2: "packet too big",
    3: "time exceeded",
    128: "echo request",
    129: "echo reply",
    133: "router solicitation",
    134: "router advertisement",
    135: "neighbour solicitation",
    136: "neighbour advertisement",
    143: "multicast listener report",
}


@dataclass(frozen=True, slots=True)
class Summary:
    """Addresses with ports where there are any (`10.10.20.3:41022`, `[fd00:10::2]:22`), protocol, detail."""

    source: str
    destination: str
    protocol: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.source} > {self.destination} {self.protocol}{' ' if self.detail else ''}{self.detail}"


def summarise(data: bytes) -> Summary:
    """What the frame is, as far as its bytes go."""
    if len(data) < 14:
        return Summary("?", "?", "ethernet", f"cut after {len(data)} bytes")
    ethertype, packet, tags = untagged(data)
    link = Summary(mac(data[6:12]), mac(data[:6]), _ETHERTYPES.get(ethertype, f"0x{ethertype:04x}"))
    inner = _arp(link, packet) if ethertype == fields.ETH_ARP else _of_ip(link, ends_of(data))
    if ethertype in (fields.ETH_IPV4, fields.ETH_IPV6) and inner is link:
        inner = replace(link, detail="cut off")
    return replace(inner, detail=" ".join(filter(None, (*(f"vlan {tag}" for tag in tags), inner.detail))))


def mac(address: bytes) -> str:
    """Six bytes as `52:54:00:12:34:56`."""
    return address.hex(":")


def _arp(link: Summary, arp: bytes) -> Summary:
    try:
        operation, sender, target = struct.unpack_from("!6xH6x4s6x4s", arp)
    except struct.error:
        return replace(link, detail="cut off")
    asks, tells = str(IPv4Address(target)), str(IPv4Address(sender))
    detail = {1: f"who has {asks}, tell {tells}", 2: f"{tells} is at {mac(arp[8:14])}"}
    return replace(link, detail=detail.get(operation, f"operation {operation}"))


def _of_ip(link: Summary, ends: Ends) -> Summary:
    """Of a packet whose addresses can be read; else the frame."""
    if ends.source is None or ends.target is None:
        return link
    source, target = str(ends.source), str(ends.target)
    if ends.protocol is None:
        return Summary(source, target, link.protocol, "cut off")
    name = PROTOCOLS.get(ends.protocol, f"ip-proto-{ends.protocol}")
    if ends.fragment_at:
        return Summary(source, target, name, f"fragment at byte {ends.fragment_at}")
    if ends.source_port is not None and ends.target_port is not None:
        flags = "" if ends.tcp_flags is None else tcp_flags(ends.tcp_flags)
        return Summary(_socket(source, ends.source_port), _socket(target, ends.target_port), name, flags)
    if ends.target_port is not None:
        types = ICMP_TYPES if ends.protocol == fields.ICMP else ICMPV6_TYPES
        return Summary(source, target, name, types.get(ends.target_port, f"type {ends.target_port}"))
    return Summary(source, target, name)


def _socket(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def tcp_flags(flags: int) -> str:
    """`S`, `SA`, `PA`, …; `none` for a TCP header without a flag."""
    return "".join(letter for bit, letter in enumerate(TCP_FLAGS) if flags >> bit & 1) or "none"


_ETHERTYPES: Mapping[int, str] = {
    fields.ETH_ARP: "arp",
    fields.ETH_IPV4: "ipv4",
    fields.ETH_IPV6: "ipv6",
    0x8035: "rarp",  # QEMU announces a NIC by it
    0x88CC: "lldp",
}
