"""Fragments: too small to judge, overlapping, without a beginning, without an end."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import ICMP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, PadN
from scapy.packet import Raw

from vnet.drill.attack import NO_CLOSED_PORT, Exercise, Maker, Step
from vnet.drill.frames import CLIENT_PORT, Layer, ether, hop, layer4, wire
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import Scene, Service

TINY, OVERLAP = "RFC 1858, 3", "RFC 3128; fragroute"
IDENTIFICATION = 0x1234


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Fragments of both IP versions on the way to a service that may be used."""
    make = Maker("fragment", scene.twin.name)
    for version in (4, 6):
        path = scene.toward(TCP_NUMBER, version)
        yield from _of(scene, make, path)
    yield from _of_version4(scene, make)
    yield from _of_version6(scene, make)


def _segment(path: Service, flags: str = "S", port: int | None = None, size: int = 20) -> bytes:
    """A TCP segment as bytes, so that any part of it can be a fragment."""
    return bytes(TCP(sport=CLIENT_PORT, dport=port or path.port, flags=flags) / Raw(bytes(size)))


def piece(scene: Scene, path: Service, start: int, data: bytes, more: bool) -> bytes:
    """One fragment of a TCP segment: `data` are its bytes from `start` on."""
    if path.version == 4:
        flags = "MF" if more else 0
        return wire(
            hop(scene.twin, path, proto=6, flags=flags, frag=start // 8, id=IDENTIFICATION), Raw(data)
        )
    header = IPv6ExtHdrFragment(nh=6, offset=start // 8, m=int(more), id=IDENTIFICATION)
    return wire(hop(scene.twin, path), header, Raw(data))


def _of(scene: Scene, make: Maker, path: Service) -> Iterator[Exercise]:
    name = f"IPv{path.version}"
    whole, forbidden = _segment(path), _segment(path, "A", 22)
    tiny = piece(scene, path, 0, whole[:8], True), piece(scene, path, 8, whole[8:], False)
    yield make.attack(f"{name}: first of 8 bytes, no TCP flags", TINY, *tiny)
    yield make.attack(f"{name}: first of 16 bytes", TINY, piece(scene, path, 0, whole[:16], True))
    first = Step(scene.twin.name, (piece(scene, path, 0, whole[:24], True),), harmless=True)
    second = piece(scene, path, 8, forbidden[8:24], False)
    yield make.after(first, f"{name}: second that rewrites the flags", OVERLAP, second)
    again = piece(scene, path, 0, _segment(path, "A")[:24], True)
    yield make.after(first, f"{name}: another first one", "RFC 5722", again)
    inside = piece(scene, path, 16, whole[16:], False)
    yield make.after(
        first, f"{name}: overlapping by a header's end", "teardrop (CVE-1999-0015); RFC 5722", inside
    )
    later = piece(scene, path, 24, whole[24:], False)
    yield make.attack(f"{name}: later ones without a first", "RFC 8900, 3.4", later)
    end = piece(scene, path, 65_528, bytes(32), False)
    yield make.attack(f"{name}: beyond 65,535 bytes", "ping of death (CVE-1999-0128)", end)


def _of_version4(scene: Scene, make: Maker) -> Iterator[Exercise]:
    twin, path = scene.twin, scene.toward(TCP_NUMBER, 4)
    empty = wire(hop(twin, path, proto=6, flags="MF", id=IDENTIFICATION))
    yield make.attack("IPv4: first without any data", "ISIC", empty)
    echo = hop(twin, path, proto=1, flags="MF", id=IDENTIFICATION)
    yield make.attack("IPv4: first of 4 bytes of ICMP", TINY, wire(echo, Raw(bytes(ICMP(id=7))[:4])))


def _of_version6(scene: Scene, make: Maker) -> Iterator[Exercise]:
    twin, path = scene.twin, scene.toward(TCP_NUMBER, 6)
    padding: Layer = IPv6ExtHdrDestOpt(nh=6, options=[PadN(optdata=bytes(4))])
    start = IPv6ExtHdrFragment(nh=60, m=1, id=IDENTIFICATION)
    alone = wire(hop(twin, path), start, padding)
    yield make.attack("IPv6: first without its upper layer", "RFC 7112", alone)
    nested = IPv6ExtHdrFragment(nh=44, m=1, id=1) / IPv6ExtHdrFragment(nh=6, offset=3, id=2) / Raw(bytes(16))
    yield make.attack(
        "IPv6: a fragment in a fragment", "RFC 8200, 4.5; frag6 (IPv6 toolkit)", wire(hop(twin, path), nested)
    )
    forged = ether(twin.mac, path.station.mac) / IPv6(src=scene.bystander.v6, dst=path.address)
    atomic = wire(forged, IPv6ExtHdrFragment(id=IDENTIFICATION), layer4(path))
    yield make.attack("IPv6: atomic, as a neighbour", "RFC 6946", atomic)
    closed = scene.unreachable(TCP_NUMBER, 6)
    what, source = "IPv6: atomic, to a closed port", "RFC 6946; RFC 8021"
    if closed is None:
        yield make.missing(what, source, NO_CLOSED_PORT)
        return
    atomic = wire(hop(twin, closed), IPv6ExtHdrFragment(id=IDENTIFICATION), layer4(closed))
    yield make.attack(what, source, atomic)
