"""What a switch answers to a packet that it rejects: a TCP reset, or ICMP "administratively prohibited".

The answer looks as if the destination had sent it, and keeps the tag of the packet. Where the switch is a
router, it is an ICMP error of that router. Nobody is answered who
must not be: a reset, an ICMP error or redirect, a later fragment, what is addressed to many or comes from
nobody (RFC 1122, section 3.2.2; RFC 4443, section 2.4e). `vnet/switch/bpf/reject.h` makes the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping

from vnet.openflow import packet
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, ICMP, ICMPV6, TCP
from vnet.openflow.flow import IcmpError

TTL = 64
FIN, SYN, RST, ACK = 1, 2, 4, 16
PROHIBITED = {ETH_IPV4: (3, 13), ETH_IPV6: (1, 1)}
"""Type and code: RFC 1812, section 5.2.7.1; RFC 4443, section 3.1."""
ERRORS_V4 = (3, 4, 5, 11, 12)
REDIRECT_V6 = 137
SOLICITATION, ADVERTISEMENT, TARGET_LINK_LAYER = 135, 136, 2
ROUTER_SOLICITED_OVERRIDE = 0xE0000000
"""Flags of a neighbour advertisement (RFC 4861, section 4.4)."""
QUOTED_BYTES = 8
"""Of what follows the IP header (RFC 792); over IPv6 as well: who sent it knows the rest."""


def answer(frame: bytes, error: IcmpError | None = None) -> bytes | None:
    """The frame to send back out of the port by which `frame` came in; None to stay silent.

    Args:
        error: what a router says of it, if one does.
    """
    parsed = packet.parse(frame)
    fields = parsed.fields
    eth_type = fields["eth_type"]
    if eth_type not in PROHIBITED or fields["ip_frag"] == packet.FRAG_LATER or frame[0] & 1:
        return None
    l3 = 18 if fields["vlan_vid"] else 14
    if not (_is_unicast(frame, l3, eth_type)):
        return None
    if error is not None and error.family != (4 if eth_type == ETH_IPV4 else 6):
        return None
    if fields["ip_proto"] == TCP and error is None:
        body = _reset(frame, parsed.places["tcp_src"].start, l3, eth_type)
    else:
        body = None if _is_error(fields) else _error(frame, l3, eth_type, error)
    return None if body is None else frame[6:12] + frame[:6] + frame[12:l3] + body


def advertised(frame: bytes, mac: int) -> bytes:
    """A neighbour solicitation as its answer, which a router with this MAC sends for the target.

    Only what is behind the Ethernet header and its tag changes; another packet stays as it is. RFC 4861,
    section 7.2.4.
    """
    fields = packet.parse(frame).fields
    if fields.get("icmpv6_type") != SOLICITATION:
        return frame
    l3 = 18 if fields["vlan_vid"] else 14
    target = fields["ipv6_nd_target"].to_bytes(16, "big")
    ends = target + frame[l3 + 8 : l3 + 24]
    option = bytes((TARGET_LINK_LAYER, 1)) + mac.to_bytes(6, "big")
    body = struct.pack("!BBHI", ADVERTISEMENT, 0, 0, ROUTER_SOLICITED_OVERRIDE) + target + option
    head = struct.pack("!IHBB", 6 << 28, len(body), ICMPV6, 255) + ends
    return frame[:l3] + head + _filled(body, 2, ends + struct.pack("!II", len(body), ICMPV6) + body)


def _is_unicast(frame: bytes, l3: int, eth_type: int) -> bool:
    """Whether source and destination are addresses of single hosts."""
    if eth_type == ETH_IPV4:
        source, target = frame[l3 + 12], frame[l3 + 16]
        return source not in (0, 127) and source < 224 and target < 224
    source6, target6 = frame[l3 + 8 : l3 + 24], frame[l3 + 24 : l3 + 40]
    return bool(any(source6[:15]) and source6[0] != 0xFF and target6[0] != 0xFF)


def _is_error(fields: Mapping[str, int]) -> bool:
    if fields["ip_proto"] == ICMP and fields["eth_type"] == ETH_IPV4:
        return fields["icmpv4_type"] in ERRORS_V4
    if fields["ip_proto"] == ICMPV6 and fields["eth_type"] == ETH_IPV6:
        return fields["icmpv6_type"] < 128 or fields["icmpv6_type"] == REDIRECT_V6
    return False


def _reset(frame: bytes, l4: int, l3: int, eth_type: int) -> bytes | None:
    """RFC 9293, section 3.10.7.1: what acknowledges is believed, what does not is acknowledged."""
    source, target, sequence, acknowledged, offset, flags = struct.unpack_from("!HHIIBB", frame, l4)
    if flags & RST:
        return None
    if flags & ACK:
        numbers, how = (acknowledged, 0), RST
    else:
        length = _end(frame, l3, eth_type) - l4 - (offset >> 4) * 4
        taken = length + bool(flags & SYN) + bool(flags & FIN)
        numbers, how = (0, (sequence + taken) & 0xFFFFFFFF), RST | ACK
    return _with_ip(
        frame,
        l3,
        eth_type,
        TCP,
        struct.pack("!HHIIBBHHH", target, source, *numbers, 5 << 4, how, 0, 0, 0),
        16,
    )


def _error(frame: bytes, l3: int, eth_type: int, error: IcmpError | None) -> bytes:
    header = (frame[l3] & 15) * 4 if eth_type == ETH_IPV4 else 40
    end = min(_end(frame, l3, eth_type), l3 + header + QUOTED_BYTES)
    quoted = frame[l3 : l3 + (end - l3 & ~3)]
    kind = PROHIBITED[eth_type] if error is None else (error.kind, error.code)
    source = None if error is None else error.source
    message = struct.pack("!BBHI", *kind, 0, 0) + quoted
    return _with_ip(frame, l3, eth_type, ICMP if eth_type == ETH_IPV4 else ICMPV6, message, 2, source)


def _end(frame: bytes, l3: int, eth_type: int) -> int:
    """Where the packet ends, by what its header says."""
    if eth_type == ETH_IPV4:
        return l3 + int.from_bytes(frame[l3 + 2 : l3 + 4], "big")
    return l3 + 40 + int.from_bytes(frame[l3 + 4 : l3 + 6], "big")


def _with_ip(
    frame: bytes,
    l3: int,
    eth_type: int,
    protocol: int,
    body: bytes,
    sum_at: int,
    source: int | None = None,
) -> bytes:
    """An IP header to the packet's source in front of a body, checksums filled in; from its destination, if
    no other `source` is given."""
    if eth_type == ETH_IPV4:
        sender = frame[l3 + 16 : l3 + 20] if source is None else source.to_bytes(4, "big")
        ends = sender + frame[l3 + 12 : l3 + 16]
        head = struct.pack("!BBHIBBH", 0x45, 0, 20 + len(body), 0x4000, TTL, protocol, 0) + ends
        head = _filled(head, 10, head)
        pseudo = ends + struct.pack("!HH", protocol, len(body)) if protocol == TCP else b""
    else:
        sender = frame[l3 + 24 : l3 + 40] if source is None else source.to_bytes(16, "big")
        ends = sender + frame[l3 + 8 : l3 + 24]
        head = struct.pack("!IHBB", 6 << 28, len(body), protocol, TTL) + ends
        pseudo = ends + struct.pack("!II", len(body), protocol)
    return head + _filled(body, sum_at, pseudo + body)


def _filled(data: bytes, at: int, summed: bytes) -> bytes:
    """`data` with the Internet checksum of `summed` at a place (RFC 1071)."""
    total: int = sum(struct.unpack(f"!{len(summed) // 2}H", summed))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return data[:at] + (0xFFFF - total).to_bytes(2, "big") + data[at + 2 :]
