"""IPv4: forged sources, destinations that mean many, headers that contradict themselves."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import BROADCAST, CLIENT_PORT, ether, group_mac, hop, layer4, wire
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import Scene

FORGED = "RFC 2827 (BCP 38); hping3 --spoof"
MARTIANS = {
    "0.0.0.0": "RFC 1122, 3.2.1.3",
    "127.0.0.1": "RFC 1122, 3.2.1.3",
    "224.0.0.1": "RFC 1122, 3.2.1.3",
    "255.255.255.255": "RFC 919, 7",
    "169.254.169.254": "cloud metadata; RFC 3927",
}
LAND = "land (CVE-1999-0016)"
MISDELIVERED = "RFC 1122, 3.3.6"


def attacks(scene: Scene) -> Iterator[Exercise]:
    """IPv4 spoofing and malformed IPv4."""
    make = Maker("ipv4", scene.twin.name)
    yield from _forged(scene, make)
    yield from _astray(scene, make)
    yield from _malformed(scene, make)


def _forged(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Sources that are not the NIC's, toward services that the one who is claimed to send may use."""
    twin, talk = scene.twin, scene.conversation(4)
    path = talk.service if talk else scene.toward(TCP_NUMBER, 4)
    claimed = {
        "a neighbour": (talk.client if talk else scene.bystander).v4,
        "the gateway": scene.gateway4,
        "another network": scene.stranger.v4,
        "outside": "198.51.100.7",
    }
    link = ether(twin.mac, path.station.mac)
    for who, address in claimed.items():
        outer = IP(src=address, dst=path.address)
        echo = wire(link, outer, ICMP(id=7))
        yield make.attack(f"as {who}", FORGED, wire(link, outer, layer4(path)), echo)
    for address, source in MARTIANS.items():
        yield make.attack(
            f"as {address}", source, wire(link, IP(src=address, dst=path.address), layer4(path))
        )
    victim = scene.victim
    itself = IP(src=victim.v4, dst=victim.v4) / TCP(sport=139, dport=139, flags="S")
    yield make.attack("a neighbour to itself", LAND, wire(ether(twin.mac, victim.mac), itself))
    reset = IP(src=path.address, dst=victim.v4) / TCP(sport=path.port, dport=CLIENT_PORT, flags="R")
    yield make.attack(
        "a reset as a neighbour's server", "RFC 5961, 3", wire(ether(twin.mac, victim.mac), reset)
    )


def _astray(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Own source, but a destination that is nobody's, everybody's, or somebody else's."""
    twin, victim, stranger = scene.twin, scene.victim, scene.stranger
    said = UDP(sport=CLIENT_PORT, dport=137) / Raw(b"drill")
    for address, what in (("255.255.255.255", "broadcast"), ("224.0.0.251", "multicast (mDNS)")):
        many = BROADCAST if address.startswith("255") else group_mac(address)
        outer = IP(src=twin.v4, dst=address)
        yield make.attack(what, "smurf; RFC 1122, 3.3.6", wire(ether(twin.mac, many), outer, said))
        alone = wire(ether(twin.mac, victim.mac), outer, said)
        yield make.attack(f"{what} to one MAC", "Hole 196; " + MISDELIVERED, alone)
    everyone = IP(src=twin.v4, dst=victim.v4) / ICMP(id=7)
    yield make.attack("one neighbour to all MACs", MISDELIVERED, wire(ether(twin.mac, BROADCAST), everyone))
    crossed = IP(src=twin.v4, dst=scene.bystander.v4) / ICMP(id=7)
    yield make.attack(
        "one neighbour to another's MAC", MISDELIVERED, wire(ether(twin.mac, victim.mac), crossed)
    )
    for what, mac in (("its MAC", stranger.mac), ("a neighbour's MAC", victim.mac)):
        beyond = IP(src=twin.v4, dst=stranger.v4) / TCP(sport=CLIENT_PORT, dport=80, flags="S")
        yield make.attack(
            f"another network, to {what}",
            "VLAN isolation; IEEE 802.1Q, 8.6.1",
            wire(ether(twin.mac, mac), beyond),
        )
    own = IP(src=twin.v4, dst=twin.v4) / TCP(sport=139, dport=139, flags="S")
    yield make.attack("to itself, at a neighbour's MAC", LAND, wire(ether(twin.mac, victim.mac), own))
    loop = IP(src=twin.v4, dst="127.0.0.1") / TCP(sport=CLIENT_PORT, dport=80, flags="S")
    yield make.attack("to a neighbour's loopback", "CVE-2020-8558", wire(ether(twin.mac, victim.mac), loop))


def _malformed(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Wrong header fields on the way to a service that may be used; other data would arrive there."""
    path = scene.toward(TCP_NUMBER, 4)
    good = wire(hop(scene.twin, path), layer4(path))
    fields: Mapping[str, Mapping[str, int]] = {
        "IHL 0": {"ihl": 0},
        "IHL 4": {"ihl": 4},
        "IHL 15, beyond the packet": {"ihl": 15},
        "version 6": {"version": 6},
        "version 0": {"version": 0},
        "total length 0": {"len": 0},
        "total length of a header too short": {"len": 19},
        "total length that cuts TCP off": {"len": 30},
        "total length beyond the frame": {"len": 1500},
    }
    for what, wrong in fields.items():
        yield make.attack(what, "RFC 791, 3.1; ISIC", wire(hop(scene.twin, path, **wrong), layer4(path)))
    for size in (14, 24, 33, 34, 41):
        yield make.attack(f"cut off after {size} bytes", "RFC 791, 3.1", good[:size])
    short = wire(hop(scene.twin, path), Raw(good[34:46]))
    yield make.attack("12 bytes of TCP", "RFC 9293, 3.1", short[:23] + b"\x06" + short[24:])
    offset = struct.pack("!B", 4 << 4)
    yield make.attack("TCP header of 4 words", "RFC 9293, 3.1", good[:46] + offset + good[47:])
    yield make.attack("TCP header beyond the packet", "RFC 9293, 3.1", good[:46] + b"\xf0" + good[47:])
