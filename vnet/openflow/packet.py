"""Frame bytes to match fields, written plainly, and independently of the eBPF parser it is compared with.

`parse(frame)` returns a `Packet`, whose `fields` hold what OpenFlow can match, named and shaped as in
`vnet.openflow.fields`, and whose `places` and `checksums` tell `vnet.openflow.rewrite` where they stand
(also where `icmp_id` does, which is translated and not matched). A
field that the packet does not have is absent, with two exceptions, both as in Open vSwitch: every packet
has a `vlan_vid` (0 = untagged), and neighbour discovery without its link-layer address option has an
`ipv6_nd_sll` or `ipv6_nd_tll` of 0. Only the outer VLAN tag is read; behind a second tag `eth_type` is that
tag's TPID, and nothing deeper is looked at. The same holds behind the outermost MPLS label stack entry.

What cannot be read is refused (`Malformed`): the switch drops such packets rather than guess.
- A length or EtherType field below 0x600 (802.3 framing) gives `eth_type` 0x05ff, as in OpenFlow 1.0.
- Bytes beyond the IP packet (Ethernet padding) are not part of it.
- A first fragment must hold the whole layer-4 header (RFC 1858); a later one has no layer-4 fields.
  `ip_proto` of an IPv6 fragment is the Next Header of its fragment header.
- A fragment header that fragments nothing (RFC 6946) is read over.

`ipv6_exthdr` tells of the headers up to the upper layer or a later fragment's header; what is behind ESP is
not read, `ip_proto` is then 50. Expected is the order of RFC 8200,
section 4.1; a header below one that was seen is UNSEQ, a second of a kind or a third of options for the
destination is UNREP.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from vnet.openflow.fields import (
    ETH_ARP,
    ETH_IPV4,
    ETH_IPV6,
    ETH_MPLS,
    ETH_MPLS_MULTICAST,
    ETH_SVLAN,
    ETH_VLAN,
    FIRST_ETHERTYPE,
    ICMP,
    ICMPV6,
    SCTP,
    TCP,
    UDP,
    VLAN_PRESENT,
    ExtHeader,
    Frag,
)

NOT_ETHERNET_II = 0x05FF
"""The `eth_type` of a frame in 802.3 framing (OFP_DL_TYPE_NOT_ETH_TYPE)."""
VLAN_TYPES = frozenset({ETH_VLAN, ETH_SVLAN})
MPLS_TYPES = frozenset({ETH_MPLS, ETH_MPLS_MULTICAST})

FRAG_FIRST = Frag.ANY
FRAG_LATER = Frag.ANY | Frag.LATER

HOP_BY_HOP, ROUTING, FRAGMENT, ESP, AUTHENTICATION, NO_NEXT, DESTINATION_OPTIONS = 0, 43, 44, 50, 51, 59, 60
EXTENSION_HEADERS = frozenset({HOP_BY_HOP, ROUTING, DESTINATION_OPTIONS, AUTHENTICATION})
MAX_EXTENSION_HEADERS = 8
"""More in one packet are refused: no honest sender needs them, and the dataplane's loop is bounded."""

EXTENSION_BITS: Mapping[int, int] = {
    HOP_BY_HOP: ExtHeader.HOP,
    ROUTING: ExtHeader.ROUTER,
    FRAGMENT: ExtHeader.FRAG,
    ESP: ExtHeader.ESP,
    AUTHENTICATION: ExtHeader.AUTH,
    NO_NEXT: ExtHeader.NO_NEXT,
    DESTINATION_OPTIONS: ExtHeader.DEST,
}
EXTENSION_ORDER = (HOP_BY_HOP, DESTINATION_OPTIONS, ROUTING, FRAGMENT, AUTHENTICATION, ESP)
"""RFC 8200, section 4.1; options for the last destination may stand behind all of them."""

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
class Place:
    """Where a field stands: `bits` bits, `shift` from the right, of the `size` bytes at `start`."""

    start: int
    size: int
    shift: int
    bits: int


class Sum(Enum):
    """How a checksum is computed."""

    INTERNET = "RFC 1071"
    UDP = "RFC 768: 0 means none, so a computed 0 is sent as 0xffff"
    CRC32C = "RFC 9260, appendix A"


@dataclass(frozen=True, slots=True)
class Checksum:
    """A checksum at offset `at` over the bytes of `covers`, each a (start, end) of the frame."""

    kind: Sum
    at: int
    covers: tuple[tuple[int, int], ...]
    protocol: int | None = None
    """Where the protocol stands that a pseudo header repeats, as a word of its own."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """Which bytes of which datagram a fragment holds; the last one is the one without `more`."""

    identification: int
    start: int
    end: int
    more: bool


@dataclass(frozen=True, slots=True)
class Packet:
    """What one frame says.

    `payload` is what follows the innermost header that was read; of an ICMP error it begins with the
    offending packet's IP header. `icmp_id` (echo) and `fragment` are for the connection tracker; None where
    the packet has none. `checksums` are ordered from the inside out.
    """

    frame: bytes = field(repr=False)
    fields: Mapping[str, int]
    places: Mapping[str, Place] = field(repr=False)
    checksums: tuple[Checksum, ...] = field(repr=False)
    payload: bytes = b""
    icmp_id: int | None = None
    fragment: Fragment | None = None

    def get(self, name: str) -> int | None:
        """The value of one field, None when the packet has none such."""
        return self.fields.get(name)


@dataclass(slots=True)
class _Reading:
    """A packet while it is read, from `at` to `end`. `whole` is False for the one inside an ICMP error."""

    frame: bytes
    at: int
    end: int
    whole: bool = True
    fields: dict[str, int] = field(default_factory=dict)
    places: dict[str, Place] = field(default_factory=dict)
    checksums: list[Checksum] = field(default_factory=list)
    addresses: tuple[tuple[int, int], ...] = ()
    """What of the IP header the checksums of layer 4 cover."""
    icmp_id: int | None = None
    fragment: Fragment | None = None

    @property
    def left(self) -> int:
        return self.end - self.at

    def need(self, length: int, header: str) -> None:
        if self.left < length:
            raise Malformed(f"{header} truncated: {self.left} of {length} bytes")

    def number(self, offset: int, size: int = 1) -> int:
        """An integer `offset` bytes from here."""
        return int.from_bytes(self.frame[self.at + offset : self.at + offset + size], "big")

    def field(self, name: str, offset: int, size: int, shift: int = 0, bits: int | None = None) -> int:
        """Note a field and where it stands."""
        place = Place(self.at + offset, size, shift, 8 * size if bits is None else bits)
        self.places[name] = place
        self.fields[name] = value = self.number(offset, size) >> shift & (1 << place.bits) - 1
        return value

    def checksum(
        self, offset: int, covers: tuple[tuple[int, int], ...], kind: Sum = Sum.INTERNET, pseudo: bool = False
    ) -> None:
        """Note a checksum, if it is there at all: what an ICMP error quotes may end before it.

        `pseudo`: it covers addresses and protocol of the IP header too (RFC 9293, section 3.1).
        """
        if self.left < offset + 2:
            return
        covers, protocol = (
            ((*covers, *self.addresses), self.places["ip_proto"].start) if pseudo else (covers, None)
        )
        self.checksums.insert(0, Checksum(kind, self.at + offset, covers, protocol))

    def done(self) -> Packet:
        return Packet(
            self.frame,
            self.fields,
            self.places,
            tuple(self.checksums),
            self.frame[self.at : self.end],
            self.icmp_id,
            self.fragment,
        )


def parse(frame: bytes) -> Packet:
    """Read a frame as it came in by a port, without preamble and checksum.

    Raises: Malformed.
    """
    reading = _Reading(frame, 0, len(frame))
    _layer3(reading, _ethernet(reading))
    return reading.done()


def embedded(packet: Packet) -> Packet | None:
    """The offending packet that an ICMP error of the same IP version quotes; None if it is no such error.

    The quoted packet is cut off by its nature, so only its IP header and ports (or ICMP id) are read. Its
    checksums are followed by those of the error around it.
    """
    if not is_icmp_error(packet):
        return None
    end = packet.checksums[0].covers[0][1]
    reading = _Reading(packet.frame, end - len(packet.payload), end, whole=False)
    reading.checksums = list(packet.checksums)
    try:
        _layer3(reading, packet.fields["eth_type"])
    except Malformed:
        return None
    return reading.done()


ICMP_ERRORS = frozenset({3, 4, 5, 11, 12})
"""Unreachable, source quench, redirect, time exceeded, parameter problem."""
ICMPV6_ERRORS = frozenset({1, 2, 3, 4})
"""Unreachable, packet too big, time exceeded, parameter problem."""


def is_icmp_error(packet: Packet) -> bool:
    """Whether the packet is an ICMP or ICMPv6 message about another packet."""
    return packet.get("icmpv4_type") in ICMP_ERRORS or packet.get("icmpv6_type") in ICMPV6_ERRORS


# -- layer 2 --------------------------------------------------------------------------------------


def _ethernet(reading: _Reading) -> int:
    """Returns: the EtherType behind a VLAN tag, if there is one."""
    reading.need(14, "Ethernet header")
    reading.field("eth_dst", 0, 6)
    reading.field("eth_src", 6, 6)
    ethertype = reading.number(12, 2)
    reading.fields["vlan_vid"] = 0
    reading.at += 14
    if ethertype in VLAN_TYPES:
        reading.need(4, "VLAN tag")
        reading.field("vlan_vid", 0, 2, bits=12)
        reading.fields["vlan_vid"] |= VLAN_PRESENT
        reading.field("vlan_pcp", 0, 2, shift=13, bits=3)
        ethertype = reading.number(2, 2)
        reading.at += 4
    reading.places["eth_type"] = Place(reading.at - 2, 2, 0, 16)
    return NOT_ETHERNET_II if ethertype < FIRST_ETHERTYPE else ethertype


def _layer3(reading: _Reading, ethertype: int) -> None:
    reading.fields["eth_type"] = ethertype
    if ethertype == ETH_ARP:
        _arp(reading)
    elif ethertype == ETH_IPV4:
        _ipv4(reading)
    elif ethertype == ETH_IPV6:
        _ipv6(reading)
    elif ethertype in MPLS_TYPES:
        _mpls(reading)


def _arp(reading: _Reading) -> None:
    """RFC 826, for IPv4 over Ethernet only."""
    reading.need(8, "ARP header")
    kind = reading.number(0, 2), reading.number(2, 2), reading.number(4), reading.number(5)
    if kind != (1, ETH_IPV4, 6, 4):
        raise Malformed(f"ARP for hardware {kind[0]} and protocol {kind[1]:#x}")
    reading.need(28, "ARP")
    reading.field("arp_op", 6, 2)
    reading.field("arp_sha", 8, 6)
    reading.field("arp_spa", 14, 4)
    reading.field("arp_tha", 18, 6)
    reading.field("arp_tpa", 24, 4)
    reading.at += 28


def _mpls(reading: _Reading) -> None:
    """RFC 3032, section 2.1: the outermost entry only."""
    reading.need(4, "MPLS label stack entry")
    reading.field("mpls_label", 0, 4, shift=12, bits=20)
    reading.field("mpls_tc", 0, 4, shift=9, bits=3)
    reading.field("mpls_bos", 0, 4, shift=8, bits=1)
    reading.field("mpls_ttl", 3, 1)
    reading.at += 4


# -- layer 3 --------------------------------------------------------------------------------------


def _ipv4(reading: _Reading) -> None:
    """RFC 791."""
    reading.need(20, "IPv4 header")
    version, header = reading.number(0) >> 4, (reading.number(0) & 0xF) * 4
    if version != 4:
        raise Malformed(f"IPv4 packet says version {version}")
    if header < 20:
        raise Malformed(f"IPv4 header length {header} is below 20")
    reading.need(header, "IPv4 options")
    total = reading.number(2, 2)
    if reading.whole:
        _check_total(total, header, reading.left)
        reading.end = reading.at + total
    reading.field("ip_dscp", 1, 1, shift=2, bits=6)
    reading.field("ip_ecn", 1, 1, bits=2)
    reading.field("nw_ttl", 8, 1)
    reading.field("ip_proto", 9, 1)
    reading.field("ipv4_src", 12, 4)
    reading.field("ipv4_dst", 16, 4)
    reading.checksum(10, ((reading.at, reading.at + header),))
    reading.addresses = ((reading.at + 12, reading.at + 20),)
    flags = reading.number(6, 2)
    start, more = (flags & 0x1FFF) * 8, bool(flags & 0x2000)
    reading.fields["ip_frag"] = _fragment_kind(start, more)
    if start or more:
        reading.fragment = Fragment(reading.number(4, 2), start, start + total - header, more)
    reading.at += header
    _layer4(reading)


def _check_total(total: int, header: int, there: int) -> None:
    if total < header:
        raise Malformed(f"IPv4 total length {total} is below the header's {header}")
    if total > there:
        raise Malformed(f"IPv4 total length {total} exceeds the frame's {there}")


def _ipv6(reading: _Reading) -> None:
    """RFC 8200."""
    reading.need(40, "IPv6 header")
    version, length = reading.number(0) >> 4, reading.number(4, 2)
    if version != 6:
        raise Malformed(f"IPv6 packet says version {version}")
    if reading.whole and 40 + length > reading.left:
        raise Malformed(f"IPv6 payload length {length} exceeds the frame's {reading.left - 40}")
    if reading.whole:
        reading.end = reading.at + 40 + length
    reading.field("ip_dscp", 0, 4, shift=22, bits=6)
    reading.field("ip_ecn", 0, 4, shift=20, bits=2)
    reading.field("ipv6_flabel", 0, 4, bits=20)
    protocol = reading.field("ip_proto", 6, 1)
    reading.field("nw_ttl", 7, 1)
    reading.field("ipv6_src", 8, 16)
    reading.field("ipv6_dst", 24, 16)
    reading.addresses = ((reading.at + 8, reading.at + 24), (reading.at + 24, reading.at + 40))
    reading.fields["ip_frag"] = 0
    reading.at += 40
    seen: list[int] = []
    _extension_headers(reading, protocol, seen)
    reading.fields["ipv6_exthdr"] = extension_bits(seen)
    _layer4(reading)


def _extension_headers(reading: _Reading, protocol: int, seen: list[int]) -> None:
    """Walk to the upper layer. Stops at a later fragment's header."""
    for _ in range(MAX_EXTENSION_HEADERS + 1):
        if protocol in EXTENSION_BITS:
            seen.append(protocol)
        if protocol == FRAGMENT:
            protocol = _fragment_header(reading)
            if reading.fields["ip_frag"] == FRAG_LATER:
                return
        elif protocol in EXTENSION_HEADERS:
            protocol = _extension_header(reading, protocol)
        else:
            return
    raise Malformed(f"more than {MAX_EXTENSION_HEADERS} IPv6 extension headers")


def _fragment_header(reading: _Reading) -> int:
    """RFC 8200, section 4.5."""
    reading.need(8, "IPv6 fragment header")
    protocol = reading.field("ip_proto", 0, 1)
    flags, identification = reading.number(2, 2), reading.number(4, 4)
    reading.at += 8
    start, more = flags & 0xFFF8, bool(flags & 1)
    kind = _fragment_kind(start, more)
    reading.fields["ip_frag"] = max(kind, reading.fields["ip_frag"])
    if kind:
        reading.fragment = Fragment(identification, start, start + reading.left, more)
    return protocol


def _extension_header(reading: _Reading, protocol: int) -> int:
    reading.need(8, "IPv6 extension header")
    length = (reading.number(1) + 1) * 8
    if protocol == AUTHENTICATION:
        length = (reading.number(1) + 2) * 4  # RFC 4302, section 2.2
    reading.need(length, "IPv6 extension header")
    if protocol == ROUTING and reading.number(3):
        # On the way to a waypoint the checksum covers the last destination (RFC 8200, section 8.1).
        reading.addresses = reading.addresses[:1]
    protocol = reading.field("ip_proto", 0, 1)
    reading.at += length
    return protocol


def extension_bits(headers: list[int]) -> int:
    """`ipv6_exthdr` of a packet with these headers, in their order (OpenFlow 1.3.5, section 7.2.3.8)."""
    bits, highest = 0, -1
    for position, header in enumerate(headers):
        bits |= EXTENSION_BITS[header]
        before = headers[:position].count(header)
        if before > (header == DESTINATION_OPTIONS):
            bits |= ExtHeader.UNREP
        rank = _rank(header, first=not before and highest < EXTENSION_ORDER.index(ROUTING))
        if rank < highest:
            bits |= ExtHeader.UNSEQ
        highest = max(rank, highest)
    return bits


def _rank(header: int, first: bool) -> int:
    """The position a header should have; options may stand at two (`first` or last), and nothing is last."""
    if header == NO_NEXT or header == DESTINATION_OPTIONS and not first:
        return len(EXTENSION_ORDER)
    return EXTENSION_ORDER.index(header)


def _fragment_kind(offset: int, more: bool) -> int:
    if offset:
        return FRAG_LATER
    return FRAG_FIRST if more else 0


# -- layer 4 --------------------------------------------------------------------------------------


def _layer4(reading: _Reading) -> None:
    protocol, ethertype = reading.fields["ip_proto"], reading.fields["eth_type"]
    if reading.fields["ip_frag"] == FRAG_LATER:
        return
    if not reading.whole:
        reading.need(EMBEDDED_L4_BYTES, "quoted packet")
    if protocol == TCP:
        _tcp(reading)
    elif protocol == UDP:
        _udp(reading)
    elif protocol == SCTP:
        _sctp(reading)
    elif protocol == ICMP and ethertype == ETH_IPV4:
        _icmp(reading, "icmpv4", echo=(8, 0), pseudo=False)
    elif protocol == ICMPV6 and ethertype == ETH_IPV6:
        _icmp(reading, "icmpv6", echo=(128, 129), pseudo=True)
        _neighbour_discovery(reading)


def _body(reading: _Reading) -> tuple[int, int]:
    return reading.at, reading.end


def _ports(reading: _Reading, protocol: str, header: int) -> None:
    """The two ports with which TCP, UDP and SCTP headers of `header` bytes begin."""
    if reading.whole:
        reading.need(header, f"{protocol.upper()} header")
    reading.field(f"{protocol}_src", 0, 2)
    reading.field(f"{protocol}_dst", 2, 2)


def _udp(reading: _Reading) -> None:
    """RFC 768."""
    _ports(reading, "udp", 8)
    reading.checksum(6, (_body(reading),), Sum.UDP, pseudo=True)
    reading.at += 8


def _sctp(reading: _Reading) -> None:
    """RFC 9260, section 3.1. Its checksum covers all: of a quoted packet it can only be left alone."""
    _ports(reading, "sctp", 12)
    if reading.whole:
        reading.checksum(8, (_body(reading),), Sum.CRC32C)
    reading.at += min(12, reading.left)


def _tcp(reading: _Reading) -> None:
    """RFC 9293, section 3.1."""
    _ports(reading, "tcp", 20)
    reading.checksum(16, (_body(reading),), pseudo=True)
    if not reading.whole:
        reading.at += min(20, reading.left)
        return
    header = (reading.number(12) >> 4) * 4
    if header < 20:
        raise Malformed(f"TCP header length {header} is below 20")
    reading.need(header, "TCP options")
    reading.field("tcp_flags", 12, 2, bits=12)
    reading.at += header


def _icmp(reading: _Reading, protocol: str, echo: tuple[int, int], pseudo: bool) -> None:
    """RFC 792 and RFC 4443: both begin alike."""
    reading.need(ICMP_HEADER_BYTES, "ICMP header")
    kind = reading.field(f"{protocol}_type", 0, 1)
    reading.field(f"{protocol}_code", 1, 1)
    reading.checksum(2, (_body(reading),), pseudo=pseudo)
    if kind in echo:
        reading.icmp_id = reading.number(4, 2)
        reading.places["icmp_id"] = Place(reading.at + 4, 2, 0, 16)
    reading.at += ICMP_HEADER_BYTES


def _neighbour_discovery(reading: _Reading) -> None:
    """RFC 4861, sections 4.3 and 4.4: target and the link-layer address option."""
    kind = reading.fields["icmpv6_type"]
    if kind not in (NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT) or not reading.whole:
        return
    if reading.left < 16:
        raise Malformed(f"neighbour discovery truncated: {reading.left + 8} of 24 bytes")
    reading.field("ipv6_nd_target", 0, 16)
    wanted, name = (
        (OPTION_SLL, "ipv6_nd_sll") if kind == NEIGHBOUR_SOLICITATION else (OPTION_TLL, "ipv6_nd_tll")
    )
    reading.fields[name] = 0
    start = reading.at
    reading.at += 16
    for _ in range(MAX_ND_OPTIONS):
        if not reading.left:
            break
        _option(reading, wanted, name)
    if reading.left:
        raise Malformed(f"more than {MAX_ND_OPTIONS} neighbour discovery options")
    reading.at = start


def _option(reading: _Reading, wanted: int, name: str) -> None:
    """Read over one option; a length of zero or beyond the end voids the message (RFC 4861, 7.1)."""
    reading.need(2, "neighbour discovery option")
    length = reading.number(1) * 8
    if not length:
        raise Malformed("neighbour discovery option of length 0")
    reading.need(length, "neighbour discovery option")
    if reading.number(0) == wanted and length == 8 and name not in reading.places:
        reading.field(name, 2, 6)
    reading.at += length
