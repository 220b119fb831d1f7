"""Neighbour discovery that speaks for others, plain and hidden; and its relatives that nobody needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from scapy.layers.inet6 import (
    ICMPv6ND_NA,
    ICMPv6ND_NS,
    ICMPv6NDOptDstLLAddr,
    ICMPv6NDOptSrcLLAddr,
    ICMPv6Unknown,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    PadN,
)
from scapy.packet import Raw

from vnet.drill.attack import Exercise, Maker
from vnet.drill.frames import Layer, ether, wire
from vnet.drill.ra import ALL_NODES, IDENTIFICATION, fragments
from vnet.drill.scene import Scene, Station

FORGED = "parasite6, fake_advertise6 (THC-IPv6); RFC 3756, 4.1.1"
DAD = "dos-new-ip6 (THC-IPv6); RFC 3756, 4.1.3"
HIDDEN = "RFC 6980, 2"
OTHERS = {
    130: "MLD query",
    131: "MLD report",
    132: "MLD done",
    138: "router renumbering",
    139: "node information query",
    141: "inverse neighbour solicitation",
    151: "multicast router advertisement",
    155: "RPL",
}


def advertised(source: str, target: str, address: str, mac: str, **flags: int) -> tuple[Layer, Layer]:
    """A neighbour advertisement: IPv6 header, message."""
    message = ICMPv6ND_NA(tgt=address, **{"R": 0, "S": 0, "O": 1, **flags}) / ICMPv6NDOptDstLLAddr(lladdr=mac)
    return IPv6(src=source, dst=target, hlim=255), message


def solicited(source: str, target: str, address: str, mac: str | None) -> tuple[Layer, Layer]:
    """A neighbour solicitation."""
    message = ICMPv6ND_NS(tgt=address)
    if mac is not None:
        message = message / ICMPv6NDOptSrcLLAddr(lladdr=mac)
    return IPv6(src=source, dst=target, hlim=255), message


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Solicitations and advertisements about addresses that are not the sender's."""
    make = Maker("nd", scene.twin.name)
    twin, victim, other = scene.twin, scene.victim, scene.bystander
    all_nodes, alone = ether(twin.mac, ALL_NODES), ether(twin.mac, victim.mac)
    for who, address in (
        ("a neighbour", other.v6),
        ("a neighbour's link-local", other.local),
        ("the gateway", "fe80::1"),
    ):
        yield make.attack(
            f"advertisement for {who}",
            FORGED,
            wire(alone, *advertised(address, victim.v6, address, twin.mac, S=1)),
            wire(alone, *advertised(twin.v6, victim.v6, address, twin.mac)),
            wire(all_nodes, *advertised(twin.local, "ff02::1", address, twin.mac)),
            wire(all_nodes, *advertised(twin.v6, "ff02::1", address, other.mac, R=1)),
        )
    own = wire(alone, *advertised(twin.v6, victim.v6, twin.v6, other.mac))
    yield make.attack("own address at a neighbour's MAC", FORGED, own)
    asks = wire(alone, *solicited(other.v6, victim.v6, victim.v6, twin.mac))
    yield make.attack("solicitation as a neighbour", FORGED, asks)
    asks = wire(alone, *solicited(twin.v6, victim.v6, victim.v6, other.mac))
    yield make.attack("solicitation with a neighbour's MAC", FORGED, asks)
    probe = wire(ether(twin.mac, "33:33:ff:00:00:01"), *solicited("::", "ff02::1:ff00:1", victim.v6, None))
    yield make.attack("duplicate address probe for a neighbour's", DAD, probe)
    answer = wire(all_nodes, *advertised(victim.v6, "ff02::1", victim.v6, twin.mac))
    yield make.attack("answer to a neighbour's probe", DAD, answer)
    away = ether(twin.mac, scene.stranger.mac)
    beyond = [
        wire(away, *solicited(twin.v6, scene.stranger.v6, scene.stranger.v6, twin.mac)),
        wire(away, *solicited(twin.local, scene.stranger.local, scene.stranger.local, twin.mac)),
        wire(away, *advertised(twin.local, scene.stranger.local, twin.local, twin.mac)),
    ]
    yield make.attack("to another network", "VLAN isolation; IEEE 802.1Q, 8.6.1", *beyond)
    yield from _hidden(scene, make, other)
    yield from _others(scene, make)


def _hidden(scene: Scene, make: Maker, claimed: Station) -> Iterator[Exercise]:
    """Behind extension headers, in fragments, with options that contradict themselves."""
    twin, victim = scene.twin, scene.victim
    link = ether(twin.mac, victim.mac)
    outer, message = advertised(twin.v6, victim.v6, claimed.v6, twin.mac)
    padding = IPv6ExtHdrDestOpt(options=[PadN(optdata=bytes(4))])
    yield make.attack("behind destination options", HIDDEN, wire(link, outer, padding, message))
    atomic = wire(link, outer, IPv6ExtHdrFragment(id=IDENTIFICATION), message)
    yield make.attack("behind an atomic fragment header", HIDDEN, atomic)
    yield make.attack(
        "in fragments", HIDDEN, *(wire(link, part) for part in fragments(outer, (message,), 24))
    )
    honest = advertised(twin.v6, victim.v6, twin.v6, twin.mac)
    first = wire(link, honest[0], IPv6ExtHdrFragment(m=1, id=IDENTIFICATION), honest[1])
    yield make.attack("true, in a first fragment", "RFC 6980, 5", first)
    header, bare = IPv6(src=twin.v6, dst=victim.v6, hlim=255), ICMPv6ND_NA(tgt=twin.v6)
    misshapen = {
        "an option of length 0": b"\x02\x00" + bytes(6),
        "an option that goes beyond the packet": b"\x02\x09" + bytes(6),
        "nine options": b"\x0e\x01" * 36,
    }
    for what, options in misshapen.items():
        yield make.attack(what, "RFC 4861, 7.1.2", wire(link, header, bare, Raw(options)))
    yield make.attack("cut off", "RFC 4861, 7.1.2", _cut(wire(link, header, bare), 12))


def _cut(frame: bytes, by: int) -> bytes:
    """A shorter IPv6 packet that says so."""
    return frame[:18] + (len(frame) - 54 - by).to_bytes(2, "big") + frame[20 : len(frame) - by]


def _others(scene: Scene, make: Maker) -> Iterator[Exercise]:
    """ICMPv6 that only routers, or nobody, may ask with."""
    twin, victim = scene.twin, scene.victim
    for kind, what in OTHERS.items():
        message = ICMPv6Unknown(type=kind, code=0, msgbody=bytes(20))
        frames: list[Any] = [(victim.mac, victim.v6), (ALL_NODES, "ff02::1")]
        sent = [wire(ether(twin.mac, mac), IPv6(src=twin.v6, dst=to, hlim=1), message) for mac, to in frames]
        yield make.attack(what, "RFC 4890, 4.4", *sent)
