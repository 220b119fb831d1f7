"""Frame bytes to match fields, written plainly, and independently of the eBPF parser it is compared with.

`parse(frame)` returns a `Packet`, whose `fields` hold what OpenFlow can match, named and shaped as in
`vnet.openflow.fields`. A field that the packet does not have is absent, with two exceptions, both
as in Open vSwitch: every packet has a `vlan_vid` (0 = untagged), and neighbour discovery without its
link-layer address option has an `ipv6_nd_sll` or `ipv6_nd_tll` of 0. Only the outer VLAN tag is read;
behind a second tag `eth_type` is that tag's TPID, and nothing deeper is looked at.

What cannot be read is refused (`Malformed`): the switch drops such packets rather than guess.
- A length or EtherType field below 0x600 (802.3 framing) gives `eth_type` 0x05ff, as in OpenFlow 1.0.
- Bytes beyond the IP packet (Ethernet padding) are not part of it.
- A first fragment must hold the whole layer-4 header (RFC 1858); a later one has no layer-4 fields.
  `ip_proto` of an IPv6 fragment is the Next Header of its fragment header.
- A fragment header that fragments nothing (RFC 6946) is read over.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field

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
    VLAN_PRESENT,
    Frag,
)

NOT_ETHERNET_II = 0x05FF
"""The `eth_type` of a frame in 802.3 framing (OFP_DL_TYPE_NOT_ETH_TYPE)."""
FIRST_ETHERTYPE = 0x0600

FRAG_FIRST = Frag.ANY
FRAG_LATER = Frag.ANY | Frag.LATER

HOP_BY_HOP, ROUTING, FRAGMENT, DESTINATION_OPTIONS = 0, 43, 44, 60
EXTENSION_HEADERS = frozenset({HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS})
MAX_EXTENSION_HEADERS = 8
"""More in one packet are refused: no honest sender needs them, and the dataplane's loop is bounded."""

NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT = 135, 136
OPTION_SLL, OPTION_TLL = 1, 2
MAX_ND_OPTIONS = 8

ICMP_HEADER_BYTES = 8
"""Type, code, checksum and the four bytes every message in use has behind them."""
EMBEDDED_L4_BYTES = 8
"""How much of the offending packet's layer 4 an ICMP error holds at least (RFC 792)."""


class Malformed(ValueError):
    """A header is truncated or contradicts itself; the text says which."""


@dataclass(frozen=True, slots=True)
class Packet:
    """What one frame says.

    `payload` is what follows the innermost header that was read; of an ICMP error it begins with the
    offending packet's IP header. `tcp_flags` (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, URG 32), `icmp_id` (echo)
    and `fragment_id` are for the connection tracker; None where the packet has none.
    """

    fields: Mapping[str, int]
    payload: bytes = b""
    tcp_flags: int | None = None
    icmp_id: int | None = None
    fragment_id: int | None = None

    def get(self, name: str) -> int | None:
        """The value of one field, None when the packet has none such."""
        return self.fields.get(name)


@dataclass(slots=True)
class _Reading:
    """A packet while it is read. `whole` is False for the cut-off packet inside an ICMP error."""

    fields: dict[str, int] = field(default_factory=dict)
    payload: bytes = b""
    tcp_flags: int | None = None
    icmp_id: int | None = None
    fragment_id: int | None = None
    whole: bool = True

    def done(self) -> Packet:
        return Packet(self.fields, self.payload, self.tcp_flags, self.icmp_id, self.fragment_id)


def parse(frame: bytes) -> Packet:
    """Read a frame as it came in by a port, without preamble and checksum.

    Raises: Malformed.
    """
    reading = _Reading()
    ethertype, rest = _ethernet(reading, frame)
    _layer3(reading, ethertype, rest)
    return reading.done()


def embedded(packet: Packet) -> Packet | None:
    """The offending packet that an ICMP error of the same IP version quotes; None if it is no such error.

    The quoted packet is cut off by its nature, so only its IP header and ports (or ICMP id) are read.
    """
    if not _is_icmp_error(packet):
        return None
    reading = _Reading(whole=False)
    try:
        _layer3(reading, packet.fields["eth_type"], packet.payload)
    except Malformed:
        return None
    return reading.done()


ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Unreachable, source quench, redirect, time exceeded, parameter problem."""
ICMPV6_ERRORS = frozenset({1, 2, 3, 4})
"""Unreachable, packet too big, time exceeded, parameter problem."""


def _is_icmp_error(packet: Packet) -> bool:
    return packet.get("icmpv4_type") in ICMP_ERRORS or packet.get("icmpv6_type") in ICMPV6_ERRORS


def _need(data: bytes, length: int, header: str) -> None:
    if len(data) < length:
        raise Malformed(f"{header} truncated: {len(data)} of {length} bytes")


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


# -- layer 2 --------------------------------------------------------------------------------------


def _ethernet(reading: _Reading, frame: bytes) -> tuple[int, bytes]:
    _need(frame, 14, "Ethernet header")
    ethertype, rest = _number(frame[12:14]), frame[14:]
    vlan = 0
    if ethertype in (ETH_VLAN, ETH_SVLAN):
        _need(rest, 4, "VLAN tag")
        tci, ethertype = struct.unpack_from("!HH", rest)
        vlan, rest = VLAN_PRESENT | tci & 0xFFF, rest[4:]
        reading.fields["vlan_pcp"] = tci >> 13
    if ethertype < FIRST_ETHERTYPE:
        ethertype = NOT_ETHERNET_II
    reading.fields |= {
        "eth_dst": _number(frame[0:6]),
        "eth_src": _number(frame[6:12]),
        "eth_type": ethertype,
        "vlan_vid": vlan,
    }
    return ethertype, rest


def _layer3(reading: _Reading, ethertype: int, data: bytes) -> None:
    reading.fields["eth_type"] = ethertype
    reading.payload = data
    if ethertype == ETH_ARP:
        _arp(reading, data)
    elif ethertype == ETH_IPV4:
        _ipv4(reading, data)
    elif ethertype == ETH_IPV6:
        _ipv6(reading, data)


def _arp(reading: _Reading, data: bytes) -> None:
    """RFC 826, for IPv4 over Ethernet only."""
    _need(data, 8, "ARP header")
    hardware, protocol, hardware_len, protocol_len, operation = struct.unpack_from("!HHBBH", data)
    if (hardware, protocol, hardware_len, protocol_len) != (1, ETH_IPV4, 6, 4):
        raise Malformed(f"ARP for hardware {hardware} and protocol {protocol:#x}")
    _need(data, 28, "ARP")
    reading.fields |= {
        "arp_op": operation,
        "arp_sha": _number(data[8:14]),
        "arp_spa": _number(data[14:18]),
        "arp_tha": _number(data[18:24]),
        "arp_tpa": _number(data[24:28]),
    }
    reading.payload = data[28:]


# -- layer 3 --------------------------------------------------------------------------------------


def _ipv4(reading: _Reading, data: bytes) -> None:
    """RFC 791."""
    _need(data, 20, "IPv4 header")
    first, tos, total, identification, fragment, _ttl, protocol = struct.unpack_from("!BBHHHBB", data)
    header = (first & 0xF) * 4
    if first >> 4 != 4:
        raise Malformed(f"IPv4 packet says version {first >> 4}")
    if header < 20:
        raise Malformed(f"IPv4 header length {header} is below 20")
    _need(data, header, "IPv4 options")
    if reading.whole:
        _check_total(total, header, len(data))
        data = data[:total]
    offset, more = fragment & 0x1FFF, bool(fragment & 0x2000)
    reading.fields |= {
        "ip_dscp": tos >> 2,
        "ip_ecn": tos & 3,
        "ip_proto": protocol,
        "ip_frag": _fragment_kind(offset, more),
        "ipv4_src": _number(data[12:16]),
        "ipv4_dst": _number(data[16:20]),
    }
    if offset or more:
        reading.fragment_id = identification
    _layer4(reading, protocol, data[header:])


def _check_total(total: int, header: int, there: int) -> None:
    if total < header:
        raise Malformed(f"IPv4 total length {total} is below the header's {header}")
    if total > there:
        raise Malformed(f"IPv4 total length {total} exceeds the frame's {there}")


def _ipv6(reading: _Reading, data: bytes) -> None:
    """RFC 8200."""
    _need(data, 40, "IPv6 header")
    first, length, protocol, _hops = struct.unpack_from("!IHBB", data)
    if first >> 28 != 6:
        raise Malformed(f"IPv6 packet says version {first >> 28}")
    if reading.whole and 40 + length > len(data):
        raise Malformed(f"IPv6 payload length {length} exceeds the frame's {len(data) - 40}")
    payload = data[40 : 40 + length] if reading.whole else data[40:]
    reading.fields |= {
        "ip_dscp": first >> 22 & 0x3F,
        "ip_ecn": first >> 20 & 3,
        "ipv6_src": _number(data[8:24]),
        "ipv6_dst": _number(data[24:40]),
        "ip_frag": 0,
    }
    protocol, payload = _extension_headers(reading, protocol, payload)
    reading.fields["ip_proto"] = protocol
    _layer4(reading, protocol, payload)


def _extension_headers(reading: _Reading, protocol: int, data: bytes) -> tuple[int, bytes]:
    """Walk to the upper layer: its protocol and bytes. Stops at a later fragment's header."""
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        if protocol == FRAGMENT:
            _need(data, 8, "IPv6 fragment header")
            protocol, _reserved, fragment, reading.fragment_id = struct.unpack_from("!BBHI", data)
            data = data[8:]
            kind = _fragment_kind(fragment >> 3, bool(fragment & 1))
            reading.fields["ip_frag"] = kind = max(kind, reading.fields["ip_frag"])
            if kind == FRAG_LATER:
                return protocol, data
            if not kind:
                reading.fragment_id = None
        elif protocol in EXTENSION_HEADERS:
            _need(data, 8, "IPv6 extension header")
            length = (data[1] + 1) * 8
            _need(data, length, "IPv6 extension header")
            protocol, data = data[0], data[length:]
        else:
            return protocol, data
    raise Malformed(f"more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")


def _fragment_kind(offset: int, more: bool) -> int:
    if offset:
        return FRAG_LATER
    return FRAG_FIRST if more else 0


# -- layer 4 --------------------------------------------------------------------------------------


def _layer4(reading: _Reading, protocol: int, data: bytes) -> None:
    reading.payload = data
    if reading.fields["ip_frag"] == FRAG_LATER:
        return
    if not reading.whole:
        _need(data, EMBEDDED_L4_BYTES, "quoted packet")
    if protocol == TCP:
        _tcp(reading, data)
    elif protocol == UDP:
        _ports(reading, "udp", data, 8)
    elif protocol == SCTP:
        _ports(reading, "sctp", data, 12)
    elif protocol == ICMP and reading.fields["eth_type"] == ETH_IPV4:
        _icmp(reading, "icmpv4", data, echo=(8, 0))
    elif protocol == ICMPV6 and reading.fields["eth_type"] == ETH_IPV6:
        _icmp(reading, "icmpv6", data, echo=(128, 129))
        _neighbour_discovery(reading, data)


def _ports(reading: _Reading, protocol: str, data: bytes, header: int) -> None:
    """The two ports with which TCP, UDP and SCTP headers of `header` bytes begin."""
    if reading.whole:
        _need(data, header, f"{protocol.upper()} header")
    source, target = struct.unpack_from("!HH", data)
    reading.fields |= {f"{protocol}_src": source, f"{protocol}_dst": target}
    reading.payload = data[header:]


def _tcp(reading: _Reading, data: bytes) -> None:
    """RFC 9293, section 3.1."""
    _ports(reading, "tcp", data, 20)
    if not reading.whole:
        return
    header = (data[12] >> 4) * 4
    if header < 20:
        raise Malformed(f"TCP header length {header} is below 20")
    _need(data, header, "TCP options")
    reading.tcp_flags = data[13] & 0x3F
    reading.payload = data[header:]


def _icmp(reading: _Reading, protocol: str, data: bytes, echo: tuple[int, int]) -> None:
    """RFC 792 and RFC 4443: both begin alike."""
    _need(data, ICMP_HEADER_BYTES, "ICMP header")
    kind, code, _checksum, identifier = struct.unpack_from("!BBHH", data)
    reading.fields |= {f"{protocol}_type": kind, f"{protocol}_code": code}
    if kind in echo:
        reading.icmp_id = identifier
    reading.payload = data[ICMP_HEADER_BYTES:]


def _neighbour_discovery(reading: _Reading, data: bytes) -> None:
    """RFC 4861, sections 4.3 and 4.4: target and the link-layer address option."""
    kind = reading.fields["icmpv6_type"]
    if kind not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT) or not reading.whole:
        return
    _need(data, 24, "neighbour discovery")
    reading.fields["ipv6_nd_target"] = _number(data[8:24])
    wanted, name = (
        (OPTION_SLL, "ipv6_nd_sll") if kind == NEIGHBOUR_SOLICITATION else (OPTION_TLL, "ipv6_nd_tll")
    )
    addresses = [value for option, value in _options(data[24:]) if option == wanted and len(value) == 6]
    reading.fields[name] = _number(addresses[0]) if addresses else 0


def _options(data: bytes) -> list[tuple[int, bytes]]:
    """Type and value of each option; a length of zero or beyond the end voids the message (RFC 4861, 7.1)."""
    found: list[tuple[int, bytes]] = []
    while data:
        if len(found) == MAX_ND_OPTIONS:
            raise Malformed(f"more than {MAX_ND_OPTIONS} neighbour discovery options")
        _need(data, 2, "neighbour discovery option")
        length = data[1] * 8
        if not length:
            raise Malformed("neighbour discovery option of length 0")
        _need(data, length, "neighbour discovery option")
        found.append((data[0], data[2:length]))
        data = data[length:]
    return found


# -- rewriting ------------------------------------------------------------------------------------


def push_vlan(frame: bytes, tpid: int = ETH_VLAN) -> bytes:
    """Insert a tag with VID 0 and priority 0 as the outermost."""
    return frame[:12] + struct.pack("!HH", tpid, 0) + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    """Remove the outermost tag; an untagged frame is returned as it is."""
    return frame[:12] + frame[16:] if is_tagged(frame) else frame


def set_vlan(frame: bytes, vid: int | None = None, pcp: int | None = None) -> bytes:
    """Write VID (0-4095) or priority of the outermost tag; an untagged frame is returned as it is."""
    if not is_tagged(frame):
        return frame
    tci = _number(frame[14:16])
    if vid is not None:
        tci = tci & ~0xFFF | vid & 0xFFF
    if pcp is not None:
        tci = tci & 0x1FFF | pcp << 13
    return frame[:14] + tci.to_bytes(2, "big") + frame[16:]


def set_mac(frame: bytes, name: str, value: int) -> bytes:
    """Write `eth_dst` or `eth_src`."""
    start = {"eth_dst": 0, "eth_src": 6}[name]
    return frame[:start] + value.to_bytes(6, "big") + frame[start + 6 :]


def is_tagged(frame: bytes) -> bool:
    """Whether the outermost EtherType is that of a VLAN tag."""
    return _number(frame[12:14]) in (ETH_VLAN, ETH_SVLAN)
