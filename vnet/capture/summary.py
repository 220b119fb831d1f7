"""One frame in a few words: source, destination, protocol, what matters of it.

Tolerates anything: a guest may send what it likes, and the frame may be cut. What cannot be read is
left out; nothing here decides about packets.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow import fields

TAGS = (fields.ETH_VLAN, fields.ETH_SVLAN)
EXTENSION_HEADERS = (0, 43, 60)
"""Hop-by-hop, routing, destination options (RFC 8200): next header, then length in 8-byte units."""
IPV6_FRAGMENT = 44
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
    ethernet = Summary(mac(data[6:12]), mac(data[:6]), "ethernet")
    ethertype, payload, tags = _untagged(data)
    try:
        inner = _LAYER3.get(ethertype, _unknown(ethertype))(ethernet, payload)
    except (struct.error, IndexError, ValueError):
        inner = replace(ethernet, protocol=_name(ethertype), detail="cut off")
    return replace(inner, detail=" ".join(filter(None, (*tags, inner.detail))))


def mac(address: bytes) -> str:
    """Six bytes as `52:54:00:12:34:56`."""
    return address.hex(":")


def _untagged(data: bytes) -> tuple[int, bytes, tuple[str, ...]]:
    """Ethertype and payload behind all VLAN tags, and each tag as `vlan N`."""
    tags: list[str] = []
    at = 12
    while (ethertype := int.from_bytes(data[at : at + 2], "big")) in TAGS and len(data) >= at + 6:
        tags.append(f"vlan {int.from_bytes(data[at + 2 : at + 4], 'big') & 0xFFF}")
        at += 4
    return ethertype, data[at + 2 :], tuple(tags)


def _unknown(ethertype: int) -> Callable[[Summary, bytes], Summary]:
    return lambda ethernet, _: replace(ethernet, protocol=_name(ethertype))


def _name(ethertype: int) -> str:
    return _ETHERTYPES.get(ethertype, f"0x{ethertype:04x}")


def _arp(ethernet: Summary, arp: bytes) -> Summary:
    operation, sender, target = struct.unpack_from("!6xH6x4s6x4s", arp)
    asks, tells = str(IPv4Address(target)), str(IPv4Address(sender))
    detail = {1: f"who has {asks}, tell {tells}", 2: f"{tells} is at {mac(arp[8:14])}"}
    return replace(ethernet, protocol="arp", detail=detail.get(operation, f"operation {operation}"))


def _ipv4(_: Summary, packet: bytes) -> Summary:
    fragment, protocol, source, destination = struct.unpack_from("!6xHxB2x4s4s", packet)
    payload = packet[(packet[0] & 0xF) * 4 :]
    ends = str(IPv4Address(source)), str(IPv4Address(destination))
    if fragment & 0x1FFF:
        return _later_fragment(ends, protocol, (fragment & 0x1FFF) * 8)
    return _transport(ends, protocol, payload)


def _ipv6(_: Summary, packet: bytes) -> Summary:
    header, source, destination = struct.unpack_from("!6xBx16s16s", packet)
    ends = str(IPv6Address(source)), str(IPv6Address(destination))
    at = 40
    while header in EXTENSION_HEADERS:
        header, at = packet[at], at + 8 + packet[at + 1] * 8
    if header == IPV6_FRAGMENT:
        header, offset = struct.unpack_from("!BxH", packet, at)
        at += 8
        if offset & 0xFFF8:
            return _later_fragment(ends, header, offset & 0xFFF8)
    return _transport(ends, header, packet[at:])


def _later_fragment(ends: tuple[str, str], protocol: int, offset_bytes: int) -> Summary:
    name = PORT_PROTOCOLS.get(protocol, f"ip-proto-{protocol}")
    return Summary(*ends, name, f"fragment at byte {offset_bytes}")


def _transport(ends: tuple[str, str], protocol: int, payload: bytes) -> Summary:
    if protocol in PORT_PROTOCOLS and len(payload) >= 4:
        ports = struct.unpack_from("!HH", payload)
        source, destination = (_socket(end, port) for end, port in zip(ends, ports, strict=True))
        detail = tcp_flags(payload[13]) if protocol == fields.TCP and len(payload) > 13 else ""
        return Summary(source, destination, PORT_PROTOCOLS[protocol], detail)
    if protocol in (fields.ICMP, fields.ICMPV6) and payload:
        name, types = ("icmp", ICMP_TYPES) if protocol == fields.ICMP else ("icmpv6", ICMPV6_TYPES)
        return Summary(*ends, name, types.get(payload[0], f"type {payload[0]}"))
    return Summary(*ends, PORT_PROTOCOLS.get(protocol, f"ip-proto-{protocol}"))


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
_LAYER3: Mapping[int, Callable[[Summary, bytes], Summary]] = {
    fields.ETH_ARP: _arp,
    fields.ETH_IPV4: _ipv4,
    fields.ETH_IPV6: _ipv6,
}
