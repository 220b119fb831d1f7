"""Source routing: a waypoint that would carry the packet on to somebody else.

What the waypoint itself gets is what the rules let it get. Here it does what the sender asks for, though
no good host would, and sends the packet on: that must go nowhere, because its source is not the waypoint's.
"""

from __future__ import annotations

from collections.abc import Iterator

from scapy.layers.inet import IP, IPOption_LSRR, IPOption_SSRR
from scapy.layers.inet6 import IPv6, IPv6ExtHdrRouting, IPv6ExtHdrSegmentRouting

from vnet.drill.attack import Attack, Exercise, Maker, Step
from vnet.drill.frames import Layer, ether, layer4, wire
from vnet.drill.scene import TCP, Scene, Station

ALONE = "this NIC has no neighbour"
BY_OPTION = {
    "loose source route": (IPOption_LSRR, "RFC 7126, 4.3; CVE-1999-0510"),
    "strict source route": (IPOption_SSRR, "RFC 7126, 4.4"),
}
SEGMENTS = 4
BY_HEADER = {
    "routing header type 0": (0, "RFC 5095, CVE-2007-2242"),
    "segment routing": (SEGMENTS, "RFC 8754, 5"),
}


def attacks(scene: Scene) -> Iterator[Exercise]:
    """Source routes of both IP versions, over a neighbour."""
    make = Maker("route", scene.twin.name)
    for name, (option, source) in BY_OPTION.items():
        yield _over4(scene, make, name, option, source) if scene.peers else make.missing(name, source, ALONE)
    for name, (kind, source) in BY_HEADER.items():
        yield _over6(scene, make, kind, name, source) if scene.peers else make.missing(name, source, ALONE)


def _over4(scene: Scene, make: Maker, name: str, option: Layer, source: str) -> Attack:
    twin, path = scene.twin, scene.toward(TCP, 4)
    waypoint, goal = path.station, _goal(scene, path.station)
    out = IP(src=twin.v4, dst=waypoint.v4, options=[option(pointer=4, routers=[goal.v4])])
    on = IP(src=twin.v4, dst=goal.v4, options=[option(pointer=8, routers=[waypoint.v4])])
    return _over(make, twin, waypoint, goal, name, source, out / layer4(path), on / layer4(path))


def _over6(scene: Scene, make: Maker, kind: int, name: str, source: str) -> Attack:
    twin, path = scene.twin, scene.toward(TCP, 6)
    waypoint, goal = path.station, _goal(scene, path.station)

    def route(address: str, left: int) -> Layer:
        if kind == SEGMENTS:
            return IPv6ExtHdrSegmentRouting(addresses=[address], segleft=left, lastentry=0)
        return IPv6ExtHdrRouting(type=kind, addresses=[address], segleft=left)

    out = IPv6(src=twin.v6, dst=waypoint.v6) / route(goal.v6, 1)
    on = IPv6(src=twin.v6, dst=goal.v6) / route(waypoint.v6, 0)
    return _over(make, twin, waypoint, goal, name, source, out / layer4(path), on / layer4(path))


def _goal(scene: Scene, waypoint: Station) -> Station:
    """Whom the waypoint is to reach: another neighbour, else one of another network."""
    return next((peer for peer in scene.peers if peer != waypoint), scene.stranger)


def _over(
    make: Maker,
    twin: Station,
    waypoint: Station,
    goal: Station,
    name: str,
    source: str,
    out: Layer,
    on: Layer,
) -> Attack:
    asked = Step(twin.name, (wire(ether(twin.mac, waypoint.mac), out),), harmless=True)
    carried = Step(waypoint.name, (wire(ether(waypoint.mac, goal.mac), on),))
    return Attack(make.group, name, source, (asked, carried))
