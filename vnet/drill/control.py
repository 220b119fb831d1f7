"""What an honest NIC sends: it must arrive, or else the drill says nothing about the guards."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.l2 import ARP

from vnet.drill.attack import Control, Step
from vnet.drill.frames import BROADCAST, ether, hop, layer4, wire
from vnet.drill.nd import solicited
from vnet.drill.scene import Scene, Service

NAMES = {6: "TCP", 17: "UDP", 1: "echo request"}


def controls(scene: Scene) -> Iterator[Control]:
    """Requests for a neighbour's address, and one packet to a service of each protocol that may be used."""
    twin = scene.twin
    for peer in scene.peers[:1]:
        if twin.ipv4 and peer.ipv4:
            asks = ARP(op=1, hwsrc=twin.mac, psrc=twin.v4, pdst=peer.v4)
            yield _control("ARP request", twin.name, wire(ether(twin.mac, BROADCAST), asks), peer.name)
        if twin.ipv6 and peer.ipv6:
            asks = wire(ether(twin.mac, peer.mac), *solicited(twin.v6, peer.v6, peer.v6, twin.mac))
            yield _control("neighbour solicitation", twin.name, asks, peer.name)
    for service in scene.open:
        if service.protocol in NAMES:
            yield _request(scene, service)


def _control(what: str, sender: str, frame: bytes, receiver: str) -> Control:
    return Control(what, Step(sender, (frame,)), receiver)


def _request(scene: Scene, service: Service) -> Control:
    name = f"{NAMES[service.protocol]} over IPv{service.version}"
    where = f" to port {service.port}" if service.port else ""
    frame = wire(hop(scene.twin, service), layer4(service))
    return _control(name + where, scene.twin.name, frame, service.station.name)
