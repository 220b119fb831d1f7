"""Frames of all protocols made of a seed and a tail, fast: a million of them are wanted.

The same seed gives the same headers, so that a frame can be repeated with another tail: then it is the flow
cache that decides. The tail is the last four bytes; no action changes them, so they tell which frame an
output came from. Only a frame that was cut off (`Frame.marked` False) has none.
"""

from __future__ import annotations

import ipaddress
import random
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from tests.net.twin_generator import (
    FLOW_LABELS,
    L4,
    LABEL_V4,
    LABEL_V6,
    LABELS,
    MACS,
    MULTICAST,
    PORTS,
    TTLS,
    V4,
    V6,
    VIDS,
    WRONG,
)

TAIL_BYTES = 4
BROADCAST = "ff:ff:ff:ff:ff:ff"
MAC_BYTES = tuple(bytes.fromhex(mac.replace(":", "")) for mac in MACS)
TARGETS = (*MAC_BYTES, *(bytes.fromhex(mac.replace(":", "")) for mac in (MULTICAST, BROADCAST)))
V4_BYTES = tuple(ipaddress.ip_address(address).packed for address in V4)
V6_BYTES = tuple(ipaddress.ip_address(address).packed for address in V6)
OTHER_PROTOCOLS = (2, 47, 50, 51, 89, 112)
ECHO4, ECHO6 = (8, 0), (128, 129)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that comes in by a port. `marked`: its last four bytes are its own."""

    port: int
    data: bytes
    marked: bool = True


def frames(dice: random.Random, count: int) -> Iterator[Frame]:
    """Runs of frames by one port; a third repeat one before."""
    seen, port, left = [dice.getrandbits(40)], 1, 0
    for number in range(count):
        if not left:
            port, left = dice.choice(PORTS), dice.randrange(1, 17)
        left -= 1
        if dice.randrange(3):
            seen.append(dice.getrandbits(40))
        seed, tail = dice.choice(seen[-40:]), struct.pack("!HH", dice.getrandbits(16), number & 0xFFFF)
        yield frame(port, seed, tail)


def frame(port: int, seed: int, tail: bytes) -> Frame:
    """The frame of a seed."""
    dice = random.Random(seed)
    data = _ethernet(dice, tail)
    odd = dice.randrange(60)
    if odd == 0:
        return Frame(port, data[: dice.randrange(14, len(data))], marked=False)
    if odd == 1:  # one header byte is anything
        at = dice.randrange(12, min(len(data) - TAIL_BYTES, 74))
        data = data[:at] + dice.randbytes(1) + data[at + 1 :]
    elif odd < 8:  # less than the headers say, and maybe within one
        return Frame(port, data[: -TAIL_BYTES - odd] + tail, marked=False)
    elif odd < 16:
        data += dice.randbytes(odd - 8) + tail
    return Frame(port, data)


def _ethernet(dice: random.Random, tail: bytes) -> bytes:
    addresses = dice.choice(TARGETS) + dice.choice(MAC_BYTES)
    tags = b""
    for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2))):
        tci = dice.choice((0, 0, 3, 7)) << 13 | dice.choice((*VIDS, *VIDS, 0))
        tags += struct.pack("!HH", dice.choice((0x8100, 0x8100, 0x88A8)), tci)
    kind = dice.choice((_arp, _ipv4, _ipv4, _ipv4, _ipv6, _ipv6, _ipv6, _mpls, _unknown))
    ethertype, body = kind(dice, tail)
    return addresses + tags + ethertype.to_bytes(2, "big") + body


def _unknown(dice: random.Random, tail: bytes) -> tuple[int, bytes]:
    ethertype = dice.choice((0x9000, 0x88B5, 0x0600, 46))
    return ethertype, dice.randbytes(30) + tail


def _arp(dice: random.Random, tail: bytes) -> tuple[int, bytes]:
    kind = (1, 0x0800, 6, 4) if dice.randrange(20) else dice.choice(((6, 0x0800, 6, 4), (1, 0x86DD, 6, 16)))
    addresses = (dice.choice(MAC_BYTES) + dice.choice(V4_BYTES) for _ in range(2))
    return 0x0806, struct.pack("!HHBBH", *kind, dice.choice((1, 2, 2, 3))) + b"".join(addresses) + tail


def _mpls(dice: random.Random, tail: bytes) -> tuple[int, bytes]:
    """One or two labels; the inner one says which IP follows."""
    label, inner = (LABEL_V4, _ipv4) if dice.randrange(2) else (LABEL_V6, _ipv6)
    stack = _label(dice, label, bottom=1) + inner(dice, tail)[1]
    if not dice.randrange(3):
        stack = _label(dice, dice.choice(LABELS), bottom=0) + stack
    return dice.choice((0x8847, 0x8847, 0x8847, 0x8848)), stack


def _label(dice: random.Random, label: int, bottom: int) -> bytes:
    return (label << 12 | dice.choice((0, 3, 7)) << 9 | bottom << 8 | dice.choice(TTLS)).to_bytes(4, "big")


# -- layer 3 --------------------------------------------------------------------------------------


def ipv4_header(
    source: bytes, target: bytes, protocol: int, length: int, *, tos: int = 0, ttl: int = 64,
    fragment: int = 0, identification: int = 0, options: bytes = b"",
) -> bytes:  # fmt: skip
    """An IPv4 header in front of `length` bytes, its checksum right; `fragment` holds flags and offset."""
    words = 5 + len(options) // 4
    total = min(words * 4 + length, 0xFFFF)
    start = struct.pack("!BBHHHBB", 0x40 | words, tos, total, identification, fragment, ttl, protocol)
    checksum = internet(start + source + target + options)
    return start + checksum.to_bytes(2, "big") + source + target + options


def _ipv4(dice: random.Random, tail: bytes) -> tuple[int, bytes]:
    source, target = dice.choice(V4_BYTES), dice.choice(V4_BYTES)
    fragment = dice.choice((0, 0, 0, 0, 0, 0, 0x4000, 0x2000, 1, 185, 0x2001))
    protocol, body = _layer4(dice, tail, source + target, ECHO4, later=bool(fragment & 0x1FFF))
    header = ipv4_header(
        source,
        target,
        protocol,
        len(body),
        tos=dice.choice((0, 3, 184)),
        ttl=dice.choice(TTLS),
        fragment=fragment,
        identification=dice.getrandbits(16),
        options=b"" if dice.randrange(5) else b"\x94\x04\x00\x00" * dice.choice((1, 1, 10)),
    )
    if not dice.randrange(12):
        header = header[:10] + dice.choice(WRONG).to_bytes(2, "big") + header[12:]
    return 0x0800, header + body


def _ipv6(dice: random.Random, tail: bytes) -> tuple[int, bytes]:
    source, target = dice.choice(V6_BYTES), dice.choice(V6_BYTES)
    headers, later = _extension_headers(dice)
    protocol, body = _layer4(dice, tail, source + target, ECHO6, later)
    kinds = [kind for kind, _ in headers]
    chain = b"".join(
        following.to_bytes(1, "big") + header
        for (_, header), following in zip(headers, [*kinds, protocol][1:], strict=True)
    )
    word = 6 << 28 | dice.choice((0, 3, 184)) << 20 | dice.choice(FLOW_LABELS)
    first, length = kinds[0] if kinds else protocol, len(chain) + len(body)
    start = struct.pack("!IHBB", word, length, first, dice.choice(TTLS))
    return 0x86DD, start + source + target + chain + body


def _extension_headers(dice: random.Random) -> tuple[list[tuple[int, bytes]], bool]:
    """(kind, bytes but the first) of each, and whether the last one is that of a later fragment."""
    headers, later = [], False
    for _ in range(dice.choice((0, 0, 0, 0, 1, 1, 2, 3))):
        kind = dice.choice((0, 60, 60, 43, 51))
        if kind == 43:
            waypoint = struct.pack("!BBBI", 2, 0, dice.randrange(2), 0) + dice.choice(V6_BYTES)
            headers.append((kind, waypoint))
        elif kind == 51:
            headers.append((kind, struct.pack("!BHII", 4, 0, 1, 1) + bytes(12)))
        else:
            headers.append((kind, b"\x00\x01\x04\x00\x00\x00\x00"))
    if not dice.randrange(7):
        offset = dice.choice((0, 0, 1, 24, 25))
        later = offset > 7
        headers.append((44, struct.pack("!BHI", 0, offset, dice.getrandbits(32))))
    return headers, later


# -- layer 4 --------------------------------------------------------------------------------------


def _layer4(
    dice: random.Random, tail: bytes, addresses: bytes, echo: tuple[int, int], later: bool
) -> tuple[int, bytes]:
    if later:
        return dice.choice((6, 17, 132, echo == ECHO4 or 58)), dice.randbytes(24) + tail
    kind = dice.choice((_tcp, _tcp, _udp, _udp, _sctp, _icmp, _icmp, _other))
    return kind(dice, tail, addresses, echo)


def _payload(dice: random.Random, tail: bytes) -> bytes:
    return dice.randbytes(dice.choice((0, 0, 3, 4, 60))) + tail


def _ports(dice: random.Random) -> bytes:
    return struct.pack("!HH", dice.choice(L4), dice.choice(L4))


def _tcp(dice: random.Random, tail: bytes, addresses: bytes, _echo: tuple[int, int]) -> tuple[int, bytes]:
    options = dice.choice((b"", b"", b"\x02\x04\x05\xb4", b"\x01" * 20))
    words = 5 + len(options) // 4 if dice.randrange(40) else dice.choice((4, 15))
    flags = words << 12 | dice.choice((2, 2, 0x12, 0x10, 0xC2, 0x19, 0x14, 0x102))
    header = _ports(dice) + struct.pack("!IIHHHH", 1000, 2000, flags, 8192, 0, 0) + options
    return 6, _sealed(dice, 6, header + _payload(dice, tail), addresses, 16)


def _udp(dice: random.Random, tail: bytes, addresses: bytes, _echo: tuple[int, int]) -> tuple[int, bytes]:
    payload = _payload(dice, tail)
    length = 8 + len(payload) if dice.randrange(30) else dice.choice((0, 7, 9, 2000))
    return 17, _sealed(dice, 17, _ports(dice) + struct.pack("!HH", length, 0) + payload, addresses, 6)


def _sctp(dice: random.Random, tail: bytes, _addresses: bytes, _echo: tuple[int, int]) -> tuple[int, bytes]:
    return 132, _ports(dice) + dice.randbytes(8) + _payload(dice, tail)


def _other(dice: random.Random, tail: bytes, _addresses: bytes, _echo: tuple[int, int]) -> tuple[int, bytes]:
    return dice.choice(OTHER_PROTOCOLS), dice.randbytes(20) + tail


def _icmp(dice: random.Random, tail: bytes, addresses: bytes, echo: tuple[int, int]) -> tuple[int, bytes]:
    if echo == ECHO4:
        kind = dice.choice((0, 8, 8, 3, 11, 13))
        return 1, _sealed(dice, 1, bytes((kind, dice.choice((0, 1)))) + b"\0\0\0\7\0\1" + tail, b"", 2)
    kind = dice.choice((128, 129, 135, 135, 136, 136, 1, 133))
    message = bytes((kind, 0)) + b"\0\0\0\7\0\1"
    if kind in (135, 136):
        options: list[bytes] = [
            bytes((dice.choice((1, 2)), dice.choice((1, 1, 1, 1, 2, 0)))) + dice.choice(MAC_BYTES)
            for _ in range(dice.choice((0, 1, 1, 2)))
        ]
        options.append(b"\x0e\x01\0\0" + tail)  # a nonce (RFC 3971, section 5.3.2)
        return 58, _sealed(dice, 58, message + dice.choice(V6_BYTES) + b"".join(options), addresses, 2)
    return 58, _sealed(dice, 58, message + tail, addresses, 2)


def _sealed(dice: random.Random, protocol: int, segment: bytes, addresses: bytes, at: int) -> bytes:
    """With its checksum, rarely a wrong one."""
    wrong = dice.choice(WRONG) if not dice.randrange(8) else None
    return sealed(protocol, segment, addresses, at, wrong)


def sealed(protocol: int, segment: bytes, addresses: bytes, at: int, checksum: int | None = None) -> bytes:
    """A segment with the checksum at `at` filled in; `addresses` are those of the pseudo header, if any."""
    if checksum is None:
        pseudo = addresses + struct.pack("!II", len(segment), protocol) if addresses else b""
        checksum = internet(pseudo + segment) or (0xFFFF if protocol == 17 else 0)
    return segment[:at] + checksum.to_bytes(2, "big") + segment[at + 2 :]


def internet(data: bytes) -> int:
    """The checksum of RFC 1071; its own field must be zero."""
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total
