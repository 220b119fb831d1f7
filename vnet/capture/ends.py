"""Between whom a packet goes, read from the first bytes of its frame.

Tolerates anything: a guest may send what it likes, and the frame may be cut. What cannot be read is None.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from vnet.base.protocols import PORT_PROTOCOLS
from vnet.openflow.fields import ETH_ARP, ETH_IPV4, ETH_IPV6, ETH_SVLAN, ETH_VLAN, ICMP, ICMPV6, TCP

IPAddress = IPv4Address | IPv6Address
_OPTIONS = (0, 43, 60)
"""Hop-by-hop, routing, destination options (RFC 8200): next header, then length in 8-byte units."""
_FRAGMENT = 44


@dataclass(frozen=True, slots=True)
class Ends:
    """`protocol` is the IP protocol number. `target_port` of ICMP is its type. ARP has addresses only.

    `fragment_at` is where a later fragment belongs in its datagram, in bytes; it has no ports.
    """

    source: IPAddress | None = None
    target: IPAddress | None = None
    protocol: int | None = None
    source_port: int | None = None
    target_port: int | None = None
    tcp_flags: int | None = None
    fragment_at: int = 0


UNKNOWN = Ends()


def ends_of(frame: bytes) -> Ends:
    """What the frame says, as far as its bytes go."""
    ethertype, packet, _ = untagged(frame)
    try:
        return _READ.get(ethertype, _nobody)(packet)
    except (struct.error, IndexError):
        return UNKNOWN


def untagged(frame: bytes) -> tuple[int, bytes, tuple[int, ...]]:
    """EtherType and payload behind all VLAN tags, and the VLAN of each tag."""
    tags: list[int] = []
    at = 12
    while (ethertype := int.from_bytes(frame[at : at + 2], "big")) in (ETH_VLAN, ETH_SVLAN):
        if len(frame) < at + 6:
            break
        tags.append(int.from_bytes(frame[at + 2 : at + 4], "big") & 0xFFF)
        at += 4
    return ethertype, frame[at + 2 :], tuple(tags)


def _nobody(packet: bytes) -> Ends:
    return UNKNOWN


def _arp(packet: bytes) -> Ends:
    sender, target = struct.unpack_from("!14x4s6x4s", packet)
    return Ends(IPv4Address(sender), IPv4Address(target))


def _ipv4(packet: bytes) -> Ends:
    fragment, protocol, *ends = struct.unpack_from("!6xHxB2x4s4s", packet)
    source, target = map(IPv4Address, ends)
    if fragment & 0x1FFF:
        return Ends(source, target, protocol, fragment_at=(fragment & 0x1FFF) * 8)
    return _transport(source, target, protocol, packet[(packet[0] & 0xF) * 4 :])


def _ipv6(packet: bytes) -> Ends:
    header, *ends = struct.unpack_from("!6xBx16s16s", packet)
    source, target = map(IPv6Address, ends)
    at = 40
    while header in _OPTIONS or header == _FRAGMENT:
        if len(packet) < at + 8:
            return Ends(source, target)
        offset = int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF8 if header == _FRAGMENT else 0
        size = 8 if header == _FRAGMENT else 8 + packet[at + 1] * 8
        header, at = packet[at], at + size
        if offset:
            return Ends(source, target, header, fragment_at=offset)
    return _transport(source, target, header, packet[at:])


def _transport(source: IPAddress, target: IPAddress, protocol: int, rest: bytes) -> Ends:
    if protocol in PORT_PROTOCOLS and len(rest) >= 4:
        source_port, target_port = struct.unpack_from("!HH", rest)
        flags = rest[13] if protocol == TCP and len(rest) > 13 else None
        return Ends(source, target, protocol, source_port, target_port, flags)
    if protocol in (ICMP, ICMPV6) and rest:
        return Ends(source, target, protocol, None, rest[0])
    return Ends(source, target, protocol)


_READ: Mapping[int, Callable[[bytes], Ends]] = {ETH_ARP: _arp, ETH_IPV4: _ipv4, ETH_IPV6: _ipv6}
