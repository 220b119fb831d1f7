"""Packets larger than the wire takes: how the host will cut what a guest left whole."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.openflow import fields

_TAGS = (fields.ETH_VLAN, fields.ETH_SVLAN)
_UDP_HEADER = 8


@dataclass(frozen=True, slots=True)
class Segments:
    """So many packets, each with at most so many bytes of payload; `count` is 0 when it cannot be told."""

    count: int
    size_bytes: int

    def __str__(self) -> str:
        many = f"{self.count} segments" if self.count else "segments"
        return f"{many} of {self.size_bytes:,} bytes"


def segments(data: bytes, length: int, gso_size: int, gso_segs: int = 0) -> Segments | None:
    """What becomes of a packet; None for one that is sent as it is.

    Args:
        data: its beginning, from the first Ethernet byte.
        length: its whole length.
        gso_size: bytes of payload of each segment (`skb_shinfo(skb)->gso_size`), 0 = not to be cut.
        gso_segs: how many, where the kernel has counted them already; of a guest's packet it has not.
    """
    if not gso_size:
        return None
    headers = _headers(data)
    counted = -(-(length - headers) // gso_size) if headers and length > headers else 0
    return Segments(gso_segs or counted, gso_size)


def _headers(data: bytes) -> int:
    """Bytes before the payload of TCP or UDP; 0 when they are not there."""
    at = 12
    while int.from_bytes(data[at : at + 2], "big") in _TAGS:
        at += 4
    ethertype, at = int.from_bytes(data[at : at + 2], "big"), at + 2
    ip = data[at : at + 40]
    if ethertype == fields.ETH_IPV4 and len(ip) >= 20:
        return _with_layer4(data, at + (ip[0] & 0xF) * 4, ip[9])
    if ethertype == fields.ETH_IPV6 and len(ip) == 40:
        return _with_layer4(data, at + 40, ip[6])
    return 0


def _with_layer4(data: bytes, at: int, protocol: int) -> int:
    if protocol == fields.UDP:
        return at + _UDP_HEADER
    if protocol == fields.TCP and len(data) > at + 12:
        return at + (data[at + 12] >> 4) * 4
    return 0
