"""Floods, bounded: so many frames as it takes to see that something bounds them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP

from vnet.drill.attack import NO_CLOSED_PORT, Attack, Exercise, Maker, Step
from vnet.drill.frames import BROADCAST, ether, hop, layer4, wire
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import UDP as UDP_NUMBER
from vnet.drill.scene import Scene, Service

STORM = 600
"""Frames of a storm: more than a port may have refused in 134 ms."""
ANNOUNCED = 5000
"""A drill tries no more announcements than twice as many."""
BEYOND = 256
"""Connections opened beyond the quota."""
FIRST_PORT = 1024
SOURCE_PORT_AT = {4: 34, 6: 54}
"""Where an untagged frame has it, by IP version."""


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Storms of what nobody may get, and connections without number."""
    make = Maker("flood", scene.twin.name)
    twin, path = scene.twin, scene.toward(TCP_NUMBER, 4)
    syn = wire(hop(twin, path), layer4(path))
    macs = (b"\x02" + number.to_bytes(5, "big") for number in range(STORM))
    yield make.attack("MAC addresses", "macof (dsniff)", *(syn[:6] + mac + syn[12:] for mac in macs))
    nobody = (b"\x02" + number.to_bytes(5, "big") for number in range(STORM))
    yield make.attack("unknown destinations", "IEEE 802.1Q, 8.6.1", *(mac + syn[6:] for mac in nobody))
    yield make.attack("IPv4 broadcasts", "smurf, fraggle; RFC 2644", *_numbered(_broadcast(scene), 4, STORM))
    yield make.attack("IPv6 multicasts", "flood_mld6 (THC-IPv6)", *_numbered(_multicast(scene), 6, STORM))
    yield make.attack("ARP for addresses that nobody has", "arp-scan", *_scan(scene))
    forged = syn[:26] + bytes.fromhex("c6336407") + syn[30:]
    yield make.attack("SYNs with forged sources", "hping3 --flood; RFC 4987", *_numbered(forged, 4, STORM))
    yield _announcements(scene, make)
    yield from _connections(scene, make)


def _announcements(scene: Scene, make: Maker) -> Exercise:
    """True ones, which each reach the whole network: more than may come at once and in the time it takes."""
    what, source = "announcements of the own address", "RFC 5227, 2.3"
    if not scene.announcement_limit:
        return make.missing(what, source, "nothing limits how often this NIC may announce its address")
    if scene.announcement_limit > ANNOUNCED:
        return make.missing(what, source, f"this NIC may send more than {ANNOUNCED:,} a second")
    true = ARP(op=1, hwsrc=scene.twin.mac, psrc=scene.twin.v4, pdst=scene.twin.v4)
    frames = (wire(ether(scene.twin.mac, BROADCAST), true),) * (2 * scene.announcement_limit)
    may_pass = scene.announcement_limit * 3 // 2
    return Attack(make.group, what, source, (Step(make.sender, frames),), may_pass=may_pass)


def _numbered(frame: bytes, version: int, count: int) -> Iterator[bytes]:
    """The frame with one source port after the other."""
    at = SOURCE_PORT_AT[version]
    for number in range(count):
        yield frame[:at] + struct.pack("!H", FIRST_PORT + number) + frame[at + 2 :]


def _broadcast(scene: Scene) -> bytes:
    outer = IP(src=scene.twin.v4, dst="255.255.255.255")
    return wire(ether(scene.twin.mac, BROADCAST), outer, UDP(sport=7, dport=19))


def _multicast(scene: Scene) -> bytes:
    outer = IPv6(src=scene.twin.v6, dst="ff02::1")
    return wire(ether(scene.twin.mac, "33:33:00:00:00:01"), outer, UDP(sport=7, dport=19))


def _scan(scene: Scene) -> Iterator[bytes]:
    asked = wire(
        ether(scene.twin.mac, BROADCAST),
        ARP(op=1, hwsrc=scene.twin.mac, psrc=scene.twin.v4, pdst="198.18.0.0"),
    )
    for number in range(STORM):
        yield asked[:40] + struct.pack("!H", number)


def _connections(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """One more connection than a NIC may have, and many that the rules refuse."""
    what, source = "connections beyond the quota", "RFC 4987; slowloris"
    services = (
        scene.reachable(protocol, version) for protocol in (TCP_NUMBER, UDP_NUMBER) for version in (4, 6)
    )
    service = next((each for each in services if each), None)
    if service is None:
        yield make.missing(what, source, "the rules let this NIC open no connection")
    elif not scene.connection_quota:
        yield make.missing(what, source, "this NIC may have any number of connections")
    else:
        yield _beyond_quota(scene, make, service, what, source)
    what, source = "SYNs to a closed port", "nmap -sS"
    closed = scene.unreachable(TCP_NUMBER, 4)
    if closed is None:
        yield make.missing(what, source, NO_CLOSED_PORT)
    else:
        refused = wire(hop(scene.twin, closed), TCP(sport=1, dport=closed.port, flags="S"))
        yield make.attack(what, source, *_numbered(refused, 4, STORM))


def _beyond_quota(scene: Scene, make: Maker, service: Service, what: str, source: str) -> Attack:
    frame = wire(hop(scene.twin, service), layer4(service))
    frames = tuple(_numbered(frame, service.version, scene.connection_quota + BEYOND))
    return Attack(make.group, what, source, (Step(make.sender, frames),), may_pass=scene.connection_quota)
