"""Frames of the exam, made by scapy so that lengths and checksums are right."""

from __future__ import annotations

import itertools

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    fragment6,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet

MAC_1, MAC_2 = "50:54:00:00:00:09", "50:54:00:00:00:0a"

_identification = itertools.count(0x1000)


def ether(source: str = MAC_1, destination: str = MAC_2) -> Packet:
    return Ether(src=source, dst=destination)


def udp(
    source: str = "10.1.1.1",
    destination: str = "10.1.1.2",
    source_port: int = 1,
    destination_port: int = 2,
    data: bytes = b"",
    link: Packet | None = None,
) -> bytes:
    """A UDP packet of either family."""
    inner = UDP(sport=source_port, dport=destination_port) / data
    return bytes((link or ether()) / _network(source, destination) / inner)


def tcp(
    flags: str,
    source: str = "10.1.1.1",
    destination: str = "10.1.1.2",
    source_port: int = 1,
    destination_port: int = 80,
    link: Packet | None = None,
) -> bytes:
    """A TCP segment without data."""
    inner = TCP(sport=source_port, dport=destination_port, flags=flags, seq=1000)
    return bytes((link or ether()) / _network(source, destination) / inner)


def echo(source: str = "10.1.1.1", destination: str = "10.1.1.2", identifier: int = 500) -> bytes:
    """An ICMP echo request."""
    return bytes(ether() / IP(src=source, dst=destination) / ICMP(type=8, id=identifier))


def unreachable(
    source: str, destination: str, about: bytes, code: int = 3, link: Packet | None = None
) -> bytes:
    """An ICMP error of either family about the packet in a frame."""
    quoted = Ether(about).payload
    if isinstance(quoted, IPv6):
        body = ICMPv6DestUnreach(code=4) / bytes(quoted)
        return bytes((link or ether()) / IPv6(src=source, dst=destination) / body)
    return bytes(
        (link or ether()) / IP(src=source, dst=destination) / ICMP(type=3, code=code) / bytes(quoted)
    )


def fragments(
    source: str = "10.1.1.1",
    destination: str = "10.1.1.2",
    data_bytes: int = 1600,
    size: int = 1400,
    extensions: Packet | None = None,
) -> list[bytes]:
    """A UDP packet from port 1 to port 2, in fragments; each call has an identification of its own."""
    identification = next(_identification)
    payload = UDP(sport=1, dport=2) / bytes(i % 251 for i in range(data_bytes))
    if ":" not in source:
        whole = IP(src=source, dst=destination, id=identification) / payload
        return [bytes(ether() / part) for part in fragment(whole, fragsize=size)]
    header = IPv6(src=source, dst=destination)
    if extensions is not None:
        header = header / extensions
    whole = IPv6(bytes(header / IPv6ExtHdrFragment(id=identification) / payload))
    return [bytes(ether() / part) for part in fragment6(whole, size)]


def moved_back(frame: bytes) -> bytes:
    """A later fragment, eight bytes (the smallest step) nearer to the first: it overlaps that."""
    packet = Ether(frame)
    if IP in packet:
        packet[IP].frag -= 1
        del packet[IP].chksum
    else:
        packet[IPv6ExtHdrFragment].offset -= 1
    return bytes(packet)


def hop_by_hop(*options: Packet) -> Packet:
    """A hop-by-hop header; without options it is filled up with padding."""
    return IPv6ExtHdrHopByHop(options=list(options))


def _network(source: str, destination: str) -> Packet:
    return IPv6(src=source, dst=destination) if ":" in source else IP(src=source, dst=destination)


def ip_of(frame: bytes) -> tuple[str, str]:
    """Source and destination address; empty when it is no IP packet."""
    packet = Ether(frame)
    layer = packet.getlayer(IP) or packet.getlayer(IPv6)
    return (layer.src, layer.dst) if layer else ("", "")


def is_sound(frame: bytes) -> bool:
    """Whether every checksum is what it should be: those of IP, TCP, UDP, ICMP, and IP within ICMP errors."""
    packet = Ether(frame)
    again = packet.copy()
    layer: Packet | None = again
    while layer:
        for name in ("chksum", "cksum"):
            if name in layer.fields:
                delattr(layer, name)
        layer = layer.payload or None
        if layer is not None and layer.name in ("IP in ICMP", "IPv6 in ICMPv6"):
            break  # what is quoted may be cut short: its transport checksum cannot be computed
    return bytes(again)[: len(frame)] == bytes(packet)[: len(frame)]
