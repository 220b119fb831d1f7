"""Source addresses of Ethernet that are not the NIC's own, and frames of a size that no wire carries."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import UDP
from scapy.layers.l2 import ARP
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import BROADCAST, ether, hop, ip, layer4, wire
from vnet.drill.scene import UDP as UDP_NUMBER
from vnet.drill.scene import Scene

STRANGE = {
    "a group": "01:00:5e:00:00:01",
    "broadcast": BROADCAST,
    "all zero": "00:00:00:00:00:00",
    "a router's (VRRP)": "00:00:5e:00:01:01",
}


def attacks(scene: Scene) -> Iterator[Exercise]:
    """MAC spoofing."""
    make = Maker("mac", scene.twin.name)
    twin, victim, other = scene.twin, scene.victim, scene.bystander
    for version in (4, 6):
        path = scene.toward(6, version)
        stolen = ether(victim.mac, path.station.mac) / ip(version, twin.address(version), path.address)
        yield make.attack(
            f"a neighbour's MAC, own IPv{version}",
            "port stealing (Ettercap; IEEE 802.1Q, 8.7)",
            wire(stolen, layer4(path)),
        )
    request = ARP(op=1, hwsrc=twin.mac, psrc=twin.v4, pdst=victim.v4)
    yield make.attack(
        "a neighbour's MAC, own ARP", "arpspoof (dsniff)", wire(ether(other.mac, BROADCAST), request)
    )
    path = scene.toward(6, 4)
    for what, mac in STRANGE.items():
        header = ether(mac, path.station.mac) / ip(4, twin.v4, path.address)
        yield make.attack(f"source MAC: {what}", "IEEE 802.3, 3.2.3", wire(header, layer4(path)))
    itself = ether(twin.mac, twin.mac) / ip(4, twin.v4, twin.v4)
    yield make.attack("a frame to itself", "IEEE 802.1Q, 8.6.1", wire(itself, layer4(path)))


def sizes(scene: Scene) -> Iterator[Exercise]:
    """Frames too large and too small."""
    make = Maker("size", scene.twin.name)
    path = scene.toward(UDP_NUMBER, 4)
    datagram = UDP(sport=40_000, dport=path.port)
    for size in (1515, 9014, 16_000):
        frame = wire(hop(scene.twin, path), datagram, Raw(bytes(size - 42)))
        yield make.attack(f"a frame of {size} bytes", "jumbo frames; IEEE 802.3, 3.2.7", frame)
    request = wire(
        ether(scene.twin.mac, BROADCAST),
        ARP(op=1, hwsrc=scene.twin.mac, psrc=scene.twin.v4, pdst=scene.victim.v4),
        Raw(bytes(9000)),
    )
    yield make.attack("ARP with 9,000 bytes behind it", "IEEE 802.3, 3.2.7", request)
    whole = wire(hop(scene.twin, path), datagram)
    for size in (13, 14, 15, 33):
        yield make.attack(f"a frame of {size} bytes", "runts; IEEE 802.3, 3.2.8", whole[:size])
