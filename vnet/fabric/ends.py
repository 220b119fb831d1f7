"""Between whom a packet goes, read from the first bytes of its frame.

Tolerates anything: a guest may send what it likes, and the frame is cut. What cannot be read is None.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow.fields import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_SVLAN,
    ETH_VLAN,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
)

IPAddress = IPv4Address | IPv6Address
_WITH_PORTS = (TCP, UDP, SCTP)
_OPTIONS = (0, 43, 60)
"""Hop-by-hop, routing, destination options (RFC 8200): next header, then length in 8-byte units."""
_FRAGMENT = 44


@dataclass(frozen=True, slots=True)
class Ends:
    """`protocol` is the IP protocol number. `target_port` of ICMP is its type. ARP has addresses only."""

    source: IPAddress | None = None
    target: IPAddress | None = None
    protocol: int | None = None
    source_port: int | None = None
    target_port: int | None = None
    tcp_flags: int | None = None


UNKNOWN = Ends()


def ends_of(frame: bytes) -> Ends:
    """What the frame says, as far as its bytes go."""
    at = 12
    while (kind := int.from_bytes(frame[at : at + 2], "big")) in (ETH_VLAN, ETH_SVLAN):
        at += 4
    packet = frame[at + 2 :]
    try:
        if kind == ETH_IPV4:
            return _ipv4(packet)
        if kind == ETH_IPV6:
            return _ipv6(packet)
        if kind == ETH_ARP:
            sender, target = struct.unpack_from("!14x4s6x4s", packet)
            return Ends(IPv4Address(sender), IPv4Address(target))
    except (struct.error, IndexError):
        pass
    return UNKNOWN


def _ipv4(packet: bytes) -> Ends:
    fragment, protocol, source, target = struct.unpack_from("!6xHxB2x4s4s", packet)
    rest = b"" if fragment & 0x1FFF else packet[(packet[0] & 0xF) * 4 :]
    return _transport(IPv4Address(source), IPv4Address(target), protocol, rest)


def _ipv6(packet: bytes) -> Ends:
    header, source, target = struct.unpack_from("!6xBx16s16s", packet)
    at, later = 40, False
    while (header in _OPTIONS or header == _FRAGMENT) and len(packet) >= at + 8:
        if header == _FRAGMENT:
            later = bool(int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8)
        size = 8 if header == _FRAGMENT else 8 + packet[at + 1] * 8
        header, at = packet[at], at + size
        if later:
            break
    rest = b"" if later else packet[at:]
    return _transport(IPv6Address(source), IPv6Address(target), header, rest)


def _transport(source: IPAddress, target: IPAddress, protocol: int, rest: bytes) -> Ends:
    if protocol in _WITH_PORTS and len(rest) >= 4:
        source_port, target_port = struct.unpack_from("!HH", rest)
        flags = rest[13] if protocol == TCP and len(rest) > 13 else None
        return Ends(source, target, protocol, source_port, target_port, flags)
    if protocol in (ICMP, ICMPV6) and rest:
        return Ends(source, target, protocol, None, rest[0])
    return Ends(source, target, protocol)
