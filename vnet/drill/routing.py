"""What routers tell each other and hosts tell routers, from a NIC that is no router's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import Layer, ether, group_mac, wire
from vnet.drill.scene import Scene

ADJACENT = "RFC 5082; Scapy, Loki"
BY_PROTOCOL: Mapping[str, tuple[str, int, bytes, str]] = {
    "IGMP report": ("224.0.0.22", 2, bytes.fromhex("2200f9020000000104000000e00000fb"), "RFC 9776, 4.2"),
    "IGMP query": ("224.0.0.1", 2, bytes.fromhex("1164ee9b00000000"), "RFC 9776, 9"),
    "OSPF hello": ("224.0.0.5", 89, bytes.fromhex("0201002c") + bytes(40), ADJACENT),
    "EIGRP hello": ("224.0.0.10", 88, bytes.fromhex("0205") + bytes(38), ADJACENT),
    "PIM hello": ("224.0.0.13", 103, bytes.fromhex("2000df93") + bytes(14), "RFC 7761"),
    "VRRP, as master": ("224.0.0.18", 112, bytes.fromhex("2101ff0100010000") + bytes(12), "RFC 9568"),
}
"""Group, protocol, message, source."""
BY_PORT: Mapping[str, tuple[str, int, bytes, str]] = {
    "HSRP, as active": (
        "224.0.0.2",
        1985,
        bytes.fromhex("00011003 0affff00") + bytes(12),
        "Yersinia; RFC 2281",
    ),
    "RIP response": ("224.0.0.9", 520, bytes.fromhex("02020000") + bytes(20), "RFC 4822"),
    "LLMNR": ("224.0.0.252", 5355, bytes(16), "Responder; RFC 4795"),
    "SSDP": ("239.255.255.250", 1900, b"M-SEARCH * HTTP/1.1\r\n\r\n", "CVE-2020-12695"),
}
"""Group, UDP port, message, source."""


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Each to its group, and to one neighbour's MAC."""
    make = Maker("routing", scene.twin.name)
    for what, (group, protocol, message, source) in BY_PROTOCOL.items():
        yield make.attack(
            what, source, *_both(scene, IP(src=scene.twin.v4, dst=group, ttl=1, proto=protocol), Raw(message))
        )
    for what, (group, port, message, source) in BY_PORT.items():
        udp = UDP(sport=port, dport=port) / Raw(message)
        yield make.attack(what, source, *_both(scene, IP(src=scene.twin.v4, dst=group, ttl=1), udp))
    outer = IPv6(src=scene.twin.local, dst="ff02::9", hlim=255)
    next_generation = UDP(sport=521, dport=521) / Raw(bytes.fromhex("02010000") + bytes(20))
    yield make.attack("RIPng response", "RFC 2080", *_both(scene, outer, next_generation))


def _both(scene: Scene, outer: Layer, message: Layer) -> Iterator[bytes]:
    for mac in (group_mac(outer.dst), scene.victim.mac):
        yield wire(ether(scene.twin.mac, mac), outer, message)
