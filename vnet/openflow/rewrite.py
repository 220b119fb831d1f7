"""Changed frames: fields written, tags and labels pushed and popped. Checksums follow by what changed.

A checksum is never computed anew but corrected by the difference (RFC 1624), as Open vSwitch does: one that
was wrong stays wrong, and a first fragment's, which covers bytes that are not here, stays right. A UDP
checksum of 0 (none) stays 0. The CRC of SCTP is linear over equal lengths and corrected the same way.

Writing a field that the packet has not changes nothing, nor do the ports of a later fragment exist.
Open vSwitch 3.1 differs: it corrects "checksums" in the payload of later IPv4 fragments.
"""

from __future__ import annotations

import struct
from dataclasses import replace

from vnet.openflow.fields import ETH_VLAN
from vnet.openflow.packet import MPLS_TYPES, VLAN_TYPES, Checksum, Packet, Place, Sum, parse

MIN_FRAME_BYTES = 60
"""Without the FCS (IEEE 802.3, section 4.4.2, minFrameSize)."""
DROP_ELIGIBLE = 0x1000
"""The bit between priority and VID (IEEE 802.1Q, section 9.6)."""


def set_field(frame: bytes, name: str, value: int) -> bytes:
    """Write a whole field; of `vlan_vid` the VID (0-4095) only."""
    return write(parse(frame), {name: value})


def write(packet: Packet, values: dict[str, int]) -> bytes:
    """The frame of a packet, also of one that an ICMP error quotes, with some fields changed.

    A tag that changes loses its drop-eligible indicator: no field tells it, as in Open vSwitch.
    """
    frame = packet.frame
    for name, value in values.items():
        if name in packet.places:
            frame = _put(frame, packet.places[name], value)
    if is_tagged(frame) and frame[14:16] != packet.frame[14:16]:
        frame = frame[:14] + bytes([frame[14] & ~(DROP_ELIGIBLE >> 8)]) + frame[15:]
    for checksum in packet.checksums:
        frame = _correct(packet.frame, frame, checksum)
    return frame


def _put(frame: bytes, place: Place, value: int) -> bytes:
    end = place.start + place.size
    mask = (1 << place.bits) - 1
    number = int.from_bytes(frame[place.start : end], "big")
    number = number & ~(mask << place.shift) | (value & mask) << place.shift
    return frame[: place.start] + number.to_bytes(place.size, "big") + frame[end:]


# -- checksums ------------------------------------------------------------------------------------


def _correct(before: bytes, after: bytes, checksum: Checksum) -> bytes:
    """`after` with one checksum that was that of `before`."""
    if checksum.kind is Sum.CRC32C:
        return _correct_crc(before, after, checksum)
    where = slice(checksum.at, checksum.at + 2)
    old = int.from_bytes(before[where], "big")
    if checksum.kind is Sum.UDP and old == 0:
        return after
    total, changed = 0xFFFF - old, False
    for start, end in checksum.covers:
        for at in range(start, end, 2):
            was, now = _word(before, at, end), _word(after, at, end)
            if at != checksum.at and was != now:
                total, changed = total + (0xFFFF - was) + now, True
    if checksum.protocol is not None and before[checksum.protocol] != after[checksum.protocol]:
        total += 0xFFFF - before[checksum.protocol] + after[checksum.protocol]
        changed = True
    if not changed:
        return after
    new = 0xFFFF - _fold(total)
    if checksum.kind is Sum.UDP and new == 0:
        new = 0xFFFF
    return after[: where.start] + new.to_bytes(2, "big") + after[where.stop :]


def _word(data: bytes, at: int, end: int) -> int:
    """16 bits; the last byte of an odd number is the left half of one."""
    return int.from_bytes(data[at : min(at + 2, end)].ljust(2, b"\0"), "big")


def _fold(total: int) -> int:
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return total


def _correct_crc(before: bytes, after: bytes, checksum: Checksum) -> bytes:
    ((start, end),) = checksum.covers
    if before[start:end] == after[start:end]:
        return after
    where = slice(checksum.at, checksum.at + 4)
    blank = [data[start : where.start] + bytes(4) + data[where.stop : end] for data in (before, after)]
    old = int.from_bytes(before[where], "little")
    new = old ^ crc32c(blank[0]) ^ crc32c(blank[1])
    return after[: where.start] + new.to_bytes(4, "little") + after[where.stop :]


def crc32c(data: bytes) -> int:
    """The Castagnoli CRC bit by bit (RFC 9260, appendix A); sent with the lowest byte first."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


# -- tags and labels ------------------------------------------------------------------------------


def push_vlan(frame: bytes, tpid: int = ETH_VLAN) -> bytes:
    """Insert a tag as the outermost.

    VID and priority are those of the tag before; nothing else is copied (OpenFlow 1.3.5, section 5.12.1).
    """
    tci = int.from_bytes(frame[14:16], "big") & ~DROP_ELIGIBLE if is_tagged(frame) else 0
    return frame[:12] + struct.pack("!HH", tpid, tci) + frame[12:]


def pop_vlan(frame: bytes) -> bytes:
    """Remove the outermost tag; an untagged frame is returned as it is."""
    return frame[:12] + frame[16:] if is_tagged(frame) else frame


def is_tagged(frame: bytes) -> bool:
    """Whether the outermost EtherType is that of a VLAN tag."""
    return ethertype(frame) in VLAN_TYPES


def ethertype(frame: bytes) -> int:
    """What follows the two addresses."""
    return int.from_bytes(frame[12:14], "big")


def push_mpls(frame: bytes, label_type: int) -> bytes:
    """Insert a label behind the outermost VLAN tag, where a label may stand (as Open vSwitch).

    Label, TC and TTL are those of the label that could be matched before, else the TTL is that of IP, or 0.
    """
    fields = parse(frame).fields
    ttl = fields.get("mpls_ttl", fields.get("nw_ttl", 0))
    at = 16 if is_tagged(frame) else 12
    bottom = int.from_bytes(frame[at : at + 2], "big") not in MPLS_TYPES
    entry = fields.get("mpls_label", 0) << 12 | fields.get("mpls_tc", 0) << 9 | bottom << 8 | ttl
    return frame[:at] + struct.pack("!HI", label_type, entry) + frame[at + 2 :]


def pop_mpls(frame: bytes, payload_type: int) -> bytes:
    """Remove the outermost label, behind a VLAN tag too; without one the frame is returned as it is.

    A frame that is long enough for Ethernet is padded when it no longer is.
    """
    place = parse(frame).places.get("mpls_label")
    if place is None:
        return frame
    rest = frame[: place.start - 2] + payload_type.to_bytes(2, "big") + frame[place.start + 4 :]
    return rest.ljust(MIN_FRAME_BYTES, b"\0") if len(frame) >= MIN_FRAME_BYTES else rest


# -- TTL ------------------------------------------------------------------------------------------


def copy_ttl_out(frame: bytes) -> bytes:
    """From the header below the outermost label to that label; without both nothing changes."""
    packet = _with_inner_ttl(parse(frame))
    return write(packet, {"mpls_ttl": packet.fields["inner_ttl"]}) if packet else frame


def copy_ttl_in(frame: bytes) -> bytes:
    """From the outermost label to the header below it; without both nothing changes."""
    packet = _with_inner_ttl(parse(frame))
    return write(packet, {"inner_ttl": packet.fields["mpls_ttl"]}) if packet else frame


def _with_inner_ttl(packet: Packet) -> Packet | None:
    """The packet with the TTL of what its outermost label carries as a further field."""
    label = packet.places.get("mpls_label")
    if label is None:
        return None
    start = label.start + label.size
    found = _ip_ttl(packet.frame, start) if packet.fields["mpls_bos"] else _label_ttl(packet.frame, start)
    if found is None:
        return None
    place, checksums = found
    return replace(
        packet,
        fields={**packet.fields, "inner_ttl": packet.frame[place.start]},
        places={**packet.places, "inner_ttl": place},
        checksums=checksums,
    )


_Ttl = tuple[Place, tuple[Checksum, ...]]


def _label_ttl(frame: bytes, start: int) -> _Ttl | None:
    return (Place(start + 3, 1, 0, 8), ()) if len(frame) >= start + 4 else None


def _ip_ttl(frame: bytes, start: int) -> _Ttl | None:
    """A label does not say what it carries: IPv4 or IPv6 are told by their version (RFC 4928, section 2)."""
    version, left = frame[start] >> 4 if start < len(frame) else 0, len(frame) - start
    if version == 6 and left >= 40:
        return Place(start + 7, 1, 0, 8), ()
    if version == 4 and left >= (length := (frame[start] & 0xF) * 4) >= 20:
        return Place(start + 8, 1, 0, 8), (Checksum(Sum.INTERNET, start + 10, ((start, start + length),)),)
    return None


# -- meters ---------------------------------------------------------------------------------------

AF_CLASSES, WORST_PRECEDENCE = range(1, 5), 3


def raise_drop_precedence(frame: bytes, by: int) -> bytes:
    """Of an assured-forwarding class (RFC 2597, section 6), at most to the worst; others are left alone."""
    dscp = parse(frame).fields.get("ip_dscp")
    if dscp is None or dscp & 1 or dscp >> 3 not in AF_CLASSES or not dscp >> 1 & 3:
        return frame
    precedence = min(WORST_PRECEDENCE, (dscp >> 1 & 3) + by)
    return set_field(frame, "ip_dscp", dscp & ~6 | precedence << 1)
