"""Frames, made with Scapy. Every address is given: what Scapy fills in by itself depends on the host."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from typing import Any

logging.getLogger("scapy.runtime").setLevel(logging.ERROR)  # of the host's routes, which nobody asks

from scapy.layers.inet import ICMP, IP, TCP, UDP  # noqa: E402
from scapy.layers.inet6 import ICMPv6EchoRequest, IPv6  # noqa: E402
from scapy.layers.l2 import Ether  # noqa: E402
from scapy.packet import Raw  # noqa: E402

from vnet.drill.scene import Service, Station  # noqa: E402

BROADCAST = "ff:ff:ff:ff:ff:ff"
CLIENT_PORT = 40_000
Layer = Any
"""A Scapy packet; Scapy tells no types."""


def wire(*layers: Layer) -> bytes:
    """The bytes of layers put into each other."""
    packet = layers[0]
    for layer in layers[1:]:
        packet = packet / layer
    return bytes(packet)


def ether(source: str, target: str, kind: int | None = None) -> Layer:
    """An Ethernet header; without `kind` the type is that of what follows."""
    return Ether(src=source, dst=target) if kind is None else Ether(src=source, dst=target, type=kind)


def ip(family: int, source: str, target: str, **fields: Any) -> Layer:
    """An IPv4 or IPv6 header; `fields` are Scapy's."""
    return (IP if family == 4 else IPv6)(src=source, dst=target, **fields)


def hop(sender: Station, service: Service, **fields: Any) -> Layer:
    """Ethernet and IP from one NIC's own addresses to a service."""
    version = service.version
    own = sender.address(version)
    return ether(sender.mac, service.station.mac) / ip(version, own, service.address, **fields)


def layer4(service: Service, source_port: int = CLIENT_PORT, flags: str = "S") -> Layer:
    """What opens a connection to a service."""
    if service.protocol == 6:
        return TCP(sport=source_port, dport=service.port, flags=flags)
    if service.protocol == 17:
        return UDP(sport=source_port, dport=service.port) / Raw(b"drill")
    return echo(service.version, source_port)


def echo(version: int, identifier: int = 7) -> Layer:
    """An echo request."""
    return ICMP(id=identifier) if version == 4 else ICMPv6EchoRequest(id=identifier)


def group_mac(address: str) -> str:
    """The MAC of a multicast address (RFC 1112, section 6.4; RFC 2464, section 7)."""
    parsed = ip_address(address)
    number = int(parsed)
    mac = 0x3333 << 32 | number & 0xFFFFFFFF if parsed.version == 6 else 0x01005E << 24 | number & 0x7FFFFF
    return ":".join(f"{octet:02x}" for octet in mac.to_bytes(6, "big"))
