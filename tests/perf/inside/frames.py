"""Frames as bytes, checksums included."""

from __future__ import annotations

import struct
from dataclasses import dataclass

UDP, TCP = 17, 6
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


@dataclass(frozen=True, slots=True)
class End:
    """One end of a conversation: where its VM is attached, and its addresses."""

    port: int
    mac: int
    ip: int


def udp(source: End, target: End, source_port: int = 1024, target_port: int = 1024, size: int = 60) -> bytes:
    """A UDP frame without a checksum, which IPv4 allows: ports may be changed on the way."""
    length = size - 34
    body = struct.pack("!HHHH", source_port, target_port, length, 0) + bytes(length - 8)
    return _ethernet(source, target) + _ip(source, target, UDP, body)


def tcp(
    source: End, target: End, ports: tuple[int, int], seq: int, ack: int, flags: int, data: bytes = b""
) -> bytes:
    """A TCP frame; at least 60 bytes, as an Ethernet card would hand it over."""
    options = bytes.fromhex("020405b4") if flags & SYN else b""
    offset = (20 + len(options)) // 4 << 12
    head = struct.pack("!HHIIHHHH", *ports, seq, ack, offset | flags, 65535, 0, 0) + options
    pseudo = struct.pack("!IIHH", source.ip, target.ip, TCP, len(head) + len(data))
    total = checksum(pseudo + head + data)
    body = head[:16] + struct.pack("!H", total) + head[18:] + data
    return (_ethernet(source, target) + _ip(source, target, TCP, body)).ljust(60, b"\0")


def handshake(client: End, server: End, ports: tuple[int, int]) -> list[tuple[int, bytes]]:
    """The three frames that open a connection, each with the port it comes in by."""
    back = ports[::-1]
    return [
        (client.port, tcp(client, server, ports, 1000, 0, SYN)),
        (server.port, tcp(server, client, back, 5000, 1001, SYN | ACK)),
        (client.port, tcp(client, server, ports, 1001, 5001, ACK)),
    ]


def data(client: End, server: End, ports: tuple[int, int]) -> bytes:
    """A segment of the open connection; sent again and again it is a retransmission, which is valid."""
    return tcp(client, server, ports, 1001, 5001, ACK | PSH, b"x" * 6)


def _ethernet(source: End, target: End) -> bytes:
    return target.mac.to_bytes(6, "big") + source.mac.to_bytes(6, "big") + b"\x08\x00"


def _ip(source: End, target: End, protocol: int, body: bytes) -> bytes:
    head = struct.pack(
        "!BBHHHBBHII", 0x45, 0, 20 + len(body), 0, 0x4000, 64, protocol, 0, source.ip, target.ip
    )
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    data += bytes(len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
