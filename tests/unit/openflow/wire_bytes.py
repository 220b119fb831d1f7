"""Messages made of bytes: what our own encoder would not write."""

from __future__ import annotations

import struct

from vnet.openflow.codec import HEADER

ANY = 0xFFFFFFFF


def flow_mod(fields: bytes, instructions: bytes = b"") -> bytes:
    """A flow_mod with the OXM bytes and instruction bytes given."""
    length = 4 + len(fields)
    match = struct.pack("!HH", 1, length) + fields + bytes(-length % 8)
    fixed = struct.pack("!QQBBHHHIIIHxx", 0, 0, 0, 0, 0, 0, 1, ANY, 0, 0, 0)
    return HEADER.pack(4, 14, 8 + len(fixed + match + instructions), 1) + fixed + match + instructions


def apply(actions: bytes) -> bytes:
    return struct.pack("!HHxxxx", 4, 8 + len(actions)) + actions


def write(actions: bytes) -> bytes:
    return struct.pack("!HHxxxx", 3, 8 + len(actions)) + actions


def oxm(number: int, value: str, mask: str = "", cls: int = 0x8000) -> bytes:
    body = bytes.fromhex(value + mask)
    return struct.pack("!HBB", cls, number << 1 | bool(mask), len(body)) + body


def set_field(field: bytes) -> bytes:
    length = 4 + len(field)
    return struct.pack("!HH", 25, length + -length % 8) + field + bytes(-length % 8)


def nicira(subtype: int, body: str, nested: bytes = b"") -> bytes:
    data = struct.pack("!IH", 0x2320, subtype) + bytes.fromhex(body) + nested
    length = 4 + len(data)
    return struct.pack("!HH", 0xFFFF, length + -length % 8) + data + bytes(-length % 8)


def ct(fixed: str, nested: bytes = b"") -> bytes:
    """`fixed`: flags, zone source, zone, table, padding, helper."""
    return nicira(35, fixed, nested)


def nat(body: str) -> bytes:
    """`ct(commit, nat)`; `body`: padding, flags, which ranges there are, the ranges."""
    return ct("0001 00000000 0005 ff 000000 0000", nicira(36, body))


def group_mod(command: int, kind: int, number: int, buckets: bytes = b"") -> bytes:
    return HEADER.pack(4, 15, 16 + len(buckets), 1) + struct.pack("!HBxI", command, kind, number) + buckets


def bucket(weight: int = 0, watch_port: int = ANY, watch_group: int = ANY, actions: bytes = b"") -> bytes:
    return struct.pack("!HHII4x", 16 + len(actions), weight, watch_port, watch_group) + actions


def meter_mod(command: int, flags: int, number: int, bands: bytes = b"") -> bytes:
    return HEADER.pack(4, 29, 16 + len(bands), 1) + struct.pack("!HHI", command, flags, number) + bands


def band(kind: int, rate: int, length: int = 16) -> bytes:
    return (struct.pack("!HHII", kind, length, rate, 0) + bytes(length))[:length]


IPV4, IPV6, MPLS = oxm(5, "0800"), oxm(5, "86dd"), oxm(5, "8847")
TCP = IPV4 + oxm(10, "06")
TAGGED = oxm(6, "1005")
OUTPUT = bytes.fromhex("0000001000000001ffff000000000000")
