"""What a guest's driver tells the host about a frame beside it: where checksums go, how to cut it.

The host makes several frames of one, or writes into it, after the guards have seen the first form. So a
lie must not turn what they allow into something else.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import CLIENT_PORT, ether, wire
from vnet.drill.scene import Scene

NEEDS_CHECKSUM = 1
TCPV4, UDP_FRAGMENTS, TCPV6, UDP_SEGMENTS = 1, 3, 4, 5
SOURCE = "virtio 1.2, 5.1.6"


def _header(flags: int, kind: int, size: int, start: int = 0, offset: int = 0, length: int = 54) -> bytes:
    """A struct virtio_net_hdr (linux/virtio_net.h)."""
    return struct.pack("<BBHHHH", flags, kind, length, size, start, offset)


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Super packets with forged sources, and descriptions that do not fit."""
    make = Maker("offload", scene.twin.name)
    twin = scene.twin
    path = scene.toward(6, 4)
    link = ether(twin.mac, path.station.mac)
    outer = IP(src=scene.bystander.v4, dst=path.address)
    stream = wire(link, outer, TCP(sport=CLIENT_PORT, dport=path.port, flags="A"), Raw(bytes(4000)))
    cut = _header(NEEDS_CHECKSUM, TCPV4, 1000, 34, 16)
    yield make.attack("TCP to be segmented, as a neighbour", SOURCE + "; TSO", stream, offload=cut)
    datagram = wire(link, outer, UDP(sport=CLIENT_PORT, dport=53), Raw(bytes(4000)))
    for kind, what in ((UDP_FRAGMENTS, "fragmented"), (UDP_SEGMENTS, "segmented")):
        told = _header(NEEDS_CHECKSUM, kind, 1000, 34, 6, 42)
        yield make.attack(f"UDP to be {what}, as a neighbour", SOURCE + "; UFO, USO", datagram, offload=told)
    own = wire(link, IP(src=twin.v4, dst=path.address), TCP(sport=CLIENT_PORT, dport=path.port, flags="A"))
    lies = {
        "a checksum beyond the frame": _header(NEEDS_CHECKSUM, 0, 0, 60_000, 16),
        "segments of no size": _header(NEEDS_CHECKSUM, TCPV4, 0, 34, 16),
        "headers longer than the frame": _header(NEEDS_CHECKSUM, TCPV4, 1000, 34, 16, 60_000),
        "IPv6 segments of an IPv4 packet": _header(NEEDS_CHECKSUM, TCPV6, 1000, 34, 16),
        "a kind that there is not": _header(0, 0x7F, 1000),
    }
    for what, told in lies.items():
        yield make.attack(what, SOURCE, own, offload=told)
