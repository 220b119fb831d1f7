"""Packets in packets, so that a forged one is not seen: toward a neighbour that may not get the outer one."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import CLIENT_PORT, Layer, hop, wire
from vnet.drill.scene import GRE as GRE_NUMBER
from vnet.drill.scene import UDP as UDP_NUMBER
from vnet.drill.scene import Scene

EVERYTHING = "the rules let this NIC send its neighbours every protocol"


def attacks(scene: Scene) -> Iterator[Exercise]:
    """IP, GRE and VXLAN around a packet that claims to be a neighbour's."""
    make = Maker("tunnel", scene.twin.name)
    twin, victim, other = scene.twin, scene.victim, scene.bystander
    inner4: Layer = IP(src=victim.v4, dst=other.v4) / TCP(sport=CLIENT_PORT, dport=80, flags="S")
    inner6: Layer = IPv6(src=victim.v6, dst=other.v6) / TCP(sport=CLIENT_PORT, dport=80, flags="S")
    for version in (4, 6):
        target = scene.unreachable(GRE_NUMBER, version)
        carriers: dict[str, tuple[Layer, str]] = {
            "IPv4": (inner4, "CVE-2020-10136; RFC 2003" if version == 4 else "CVE-2025-23018; RFC 2473"),
            "IPv6": (inner6, "CVE-2025-23019; RFC 4213" if version == 4 else "CVE-2025-23018; RFC 2473"),
            "GRE and IPv4": (GRE() / inner4, "CVE-2024-7595; RFC 2784"),
            "GRE and Ethernet": (
                GRE(proto=0x6558) / Ether(src=victim.mac, dst=other.mac) / inner4,
                "RFC 1701",
            ),
        }
        for what, (inside, source) in carriers.items():
            said = f"{what} in IPv{version}"
            if target is None:
                yield make.missing(said, source, EVERYTHING)
            else:
                yield make.attack(said, source, wire(hop(twin, target), inside))
        yield _datagrams(scene, make, version, inner4)


def _datagrams(scene: Scene, make: Maker, version: int, inner: Layer) -> Exercise:
    """Tunnels over UDP: VXLAN, GENEVE, Teredo."""
    target = scene.unreachable(UDP_NUMBER, version)
    what, source = f"VXLAN, GENEVE and Teredo in IPv{version}", "RFC 7348, 7; RFC 8926; RFC 4380"
    if target is None:
        return make.missing(what, source, EVERYTHING)
    frame = Ether(src=scene.victim.mac, dst=scene.bystander.mac) / inner
    inside = {
        4789: VXLAN(vni=1, flags=8) / frame,
        6081: Raw(bytes.fromhex("0000655800000100")) / frame,
        3544: inner,
    }
    sent = (
        wire(hop(scene.twin, target), UDP(sport=CLIENT_PORT, dport=port), each)
        for port, each in inside.items()
    )
    return make.attack(what, source, *sent)
