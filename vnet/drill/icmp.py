"""ICMP that nobody asked for: answers without a question, errors about other people's connections."""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import ICMP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
)
from scapy.packet import Raw

from vnet.drill.attack import Attack, Exercise, Maker, Step
from vnet.drill.frames import CLIENT_PORT, Layer, ether, hop, ip, layer4, wire
from vnet.drill.scene import ICMP as ICMP_NUMBER
from vnet.drill.scene import TCP as TCP_NUMBER
from vnet.drill.scene import Conversation, Scene

BLIND = "RFC 5927; CVE-2004-0790"
ERRORS4 = {
    "host unreachable": {"type": 3, "code": 1},
    "port unreachable": {"type": 3, "code": 3},
    "fragmentation needed": {"type": 3, "code": 4, "nexthopmtu": 68},
    "source quench": {"type": 4},
    "time exceeded": {"type": 11},
    "parameter problem": {"type": 12},
}
ERRORS6 = {
    "unreachable": ICMPv6DestUnreach(code=1),
    "port unreachable": ICMPv6DestUnreach(code=4),
    "packet too big": ICMPv6PacketTooBig(mtu=1280),
    "time exceeded": ICMPv6TimeExceeded(),
    "parameter problem": ICMPv6ParamProblem(code=1),
}
QUOTED = {4: 28, 6: 1000}
"""How many bytes of the packet an error quotes (RFC 792; RFC 4443, 2.4)."""
UNASKED4 = {
    0: ("echo reply", "Loki, ptunnel"),
    13: ("timestamp request", "CVE-1999-0524"),
    14: ("timestamp reply", "CVE-1999-0524"),
    15: ("information request", "RFC 6918"),
    17: ("address mask request", "CVE-1999-0524"),
    18: ("address mask reply", "RFC 6918"),
    30: ("traceroute", "RFC 6918"),
    37: ("domain name request", "RFC 6918"),
    42: ("extended echo request", "RFC 8335"),
}

STAMPS = {"ts_ori": 1, "ts_rx": 1, "ts_tx": 1}
"""Scapy would take the time of day."""


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Errors and answers of both IP versions."""
    make = Maker("icmp", scene.twin.name)
    for version in (4, 6):
        yield from _errors(scene, make, version)
    path = scene.toward(ICMP_NUMBER, 4)
    for kind, (what, source) in UNASKED4.items():
        message = wire(hop(scene.twin, path), ICMP(type=kind, id=7, **STAMPS), Raw(bytes(12)))
        yield make.attack(f"{what} that nobody asked for", source, message)
    path = scene.toward(ICMP_NUMBER, 6)
    reply = wire(hop(scene.twin, path), ICMPv6EchoReply(id=7))
    yield make.attack("ICMPv6 echo reply that nobody asked for", "ptunnel; RFC 4443, 4.2", reply)


def _messages(version: int) -> dict[str, Layer]:
    if version == 4:
        return {what: ICMP(**fields) for what, fields in ERRORS4.items()}
    return {what: message.copy() for what, message in ERRORS6.items()}


def _errors(scene: Scene, make: Maker, version: int) -> Iterator[Exercise]:
    talk = scene.conversation(version)
    for what, message in _messages(version).items():
        about = f"{what} about neighbours' connection, IPv{version}"
        if talk is None:
            yield make.missing(about, BLIND, "the rules let no two neighbours talk")
        else:
            yield _about(scene, make, talk, about, message)
    nobody = ip(version, scene.victim.address(version), scene.twin.address(version)) / TCP(sport=80, dport=80)
    yield make.attack(
        f"errors about no connection, IPv{version}",
        BLIND,
        *(_error(scene, version, message, bytes(nobody)) for message in _messages(version).values()),
    )
    garbled = bytes(nobody)[: 20 if version == 4 else 40]
    yield make.attack(
        f"errors that quote too little, IPv{version}",
        "RFC 1122, 3.2.2",
        *(_error(scene, version, message, garbled) for message in _messages(version).values()),
    )


def _error(scene: Scene, version: int, message: Layer, quoted: bytes) -> bytes:
    victim, twin = scene.victim, scene.twin
    outer = ip(version, twin.address(version), victim.address(version))
    return wire(ether(twin.mac, victim.mac), outer, message, Raw(quoted))


def _about(scene: Scene, make: Maker, talk: Conversation, what: str, message: Layer) -> Attack:
    """To either end of a connection that two neighbours have just opened, quoting what it sent."""
    twin, client, service = scene.twin, talk.client, talk.service
    version = service.version
    opening = hop(client, service) / layer4(service)
    request = opening.payload
    back = {"sport": service.port, "dport": CLIENT_PORT}
    answered = TCP(**back, flags="SA") if service.protocol == TCP_NUMBER else UDP(**back)
    answer = ip(version, service.address, client.address(version)) / answered
    frames = []
    for end, quoted in ((client, request), (service.station, answer)):
        outer = ip(version, twin.address(version), end.address(version))
        frames.append(wire(ether(twin.mac, end.mac), outer, message, Raw(bytes(quoted)[: QUOTED[version]])))
    first = Step(client.name, (bytes(opening),), harmless=True)
    return make.after(first, what, BLIND, *frames)
