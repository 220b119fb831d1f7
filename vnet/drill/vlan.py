"""VLAN tags of a NIC that may send none: to hop to another network, or to hide from the guards."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import TCP
from scapy.layers.l2 import ARP

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import ether, ip, layer4, wire
from vnet.drill.ra import advertisement
from vnet.drill.scene import Scene, Station

CUSTOMER, SERVICE = 0x8100, 0x88A8
HIDING = "CVE-2021-27853"
"""Guards of many switches looked at what follows the Ethernet header only."""
HOPPING = "double tagging (Yersinia); IEEE 802.1Q, 6.9"


def tag(kind: int, vid: int, priority: int = 0) -> bytes:
    """A tag with its type."""
    return kind.to_bytes(2, "big") + (priority << 13 | vid).to_bytes(2, "big")


def tagged(frame: bytes, *tags: bytes) -> bytes:
    """The frame with tags in front of its EtherType, the outermost first."""
    return frame[:12] + b"".join(tags) + frame[12:]


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Tagged frames: each carries something that would arrive without its tags, or in the other network."""
    make = Maker("vlan", scene.twin.name)
    twin, stranger = scene.twin, scene.stranger
    honest = wire(ether(twin.mac, scene.toward(6, 4).station.mac), *_syn(scene))
    beyond = wire(
        ether(twin.mac, stranger.mac), ip(4, twin.v4, stranger.v4), TCP(sport=40_000, dport=80, flags="S")
    )
    own, other = twin.vlan or 1, stranger.vlan or 2
    yield make.attack("a tag of the own network", "IEEE 802.1Q, 6.9", tagged(honest, tag(CUSTOMER, own)))
    yield make.attack("a tag of another network", HOPPING, tagged(beyond, tag(CUSTOMER, other)))
    yield make.attack("a service tag of another network", HOPPING, tagged(beyond, tag(SERVICE, other)))
    for outer in (CUSTOMER, SERVICE):
        frame = tagged(beyond, tag(outer, own), tag(CUSTOMER, other))
        yield make.attack(f"another network's tag behind an own one ({outer:#x})", HOPPING, frame)
    both = tagged(beyond, tag(SERVICE, own), tag(CUSTOMER, own), tag(CUSTOMER, other))
    yield make.attack("three tags", HOPPING, both)
    yield make.attack("VID 4095", "IEEE 802.1Q, table 9-2", tagged(honest, tag(CUSTOMER, 4095)))
    for kind in (0x9100, 0x9200, 0x9300):
        frame = tagged(beyond, tag(kind, other))
        yield make.attack(f"a tag of the older type {kind:#x}", "QinQ before IEEE 802.1ad", frame)
    yield make.attack("a priority tag", "IEEE 802.1Q, 6.9; " + HIDING, tagged(honest, tag(CUSTOMER, 0, 7)))
    yield from _hidden(scene, make)
    yield make.attack("a tag that is cut off", "IEEE 802.1Q, 9.3", honest[:12] + tag(CUSTOMER, own)[:3])
    nothing = honest[:12] + tag(CUSTOMER, own)
    yield make.attack("a tag without a type behind it", "IEEE 802.1Q, 9.3", nothing)
    snap = b"\xaa\xaa\x03\x00\x00\x00" + tag(CUSTOMER, other) + beyond[12:]
    inside = beyond[:12] + len(snap).to_bytes(2, "big") + snap
    yield make.attack("a tag inside LLC/SNAP", "CVE-2021-27854; IEEE 802.1Q, 9.4", inside)


def _hidden(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """What the guards forbid, behind tags of VID 0, which many hosts take off."""
    twin, victim = scene.twin, scene.victim
    poison = wire(ether(twin.mac, victim.mac), ARP(op=2, hwsrc=twin.mac, psrc=scene.gateway4, pdst=victim.v4))
    routes = wire(ether(twin.mac, "33:33:00:00:00:01"), *advertisement(twin.local, "ff02::1"))
    forged = wire(ether(twin.mac, scene.toward(6, 4).station.mac), *_syn(scene, victim))
    for what, frame in (("forged ARP", poison), ("router advertisement", routes), ("forged IPv4", forged)):
        for count in (1, 2):
            behind = "a priority tag" if count == 1 else "two priority tags"
            yield make.attack(f"{what} behind {behind}", HIDING, tagged(frame, *[tag(CUSTOMER, 0)] * count))


def _syn(scene: Scene, claimed: Station | None = None) -> tuple[object, object]:
    path = scene.toward(6, 4)
    return ip(4, (claimed or scene.twin).v4, path.address), layer4(path)
