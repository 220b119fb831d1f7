"""What a capture wants, in terms of the pipeline's stages, and the tap of the switch that gets it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vnet.base.errors import InputError
from vnet.capture.limits import WHOLE_PACKET_BYTES
from vnet.capture.record import AT_UPLINKS, SENT, PacketRecord, Point, Verdict
from vnet.policy.pipeline import Stage
from vnet.switch.abi import Point as SwitchPoint
from vnet.switch.taps import WHOLE, Tap

REACHED = {
    Point.GUEST: Stage.ADMIT,
    Point.AFTER_GUARDS: Stage.SOURCE_GUARD + 1,
    Point.AFTER_POLICY: Stage.DELIVER,
}
"""The first table behind each point: what is lost earlier has not come so far."""
UPLINK = "uplink"
"""Both points of uplinks."""
USUAL = (Point.GUEST, Point.DELIVERED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Packets of some ports, seen at some points, that match a filter (classic BPF; empty = all).

    `ports` are those of NICs, `uplinks` those of uplinks.
    """

    ports: frozenset[int]
    points: tuple[Point, ...] = USUAL
    program: bytes = b""
    snaplen_bytes: int = WHOLE_PACKET_BYTES
    only_dropped: bool = False
    uplinks: frozenset[int] = frozenset()

    def tap(self, to_port: int = 0) -> Tap:
        """What the switch is asked for."""
        sent = [REACHED[point] for point in self.points if point in SENT]
        sent += [Stage.ADMIT] if Point.UPLINK_IN in self.points else []
        points = {SwitchPoint.GUEST} if sent else set()
        if {Point.DELIVERED, Point.UPLINK_OUT} & {*self.points} and not self.only_dropped:
            points.add(SwitchPoint.DELIVERED)
        return Tap(
            ports=self.ports | self.uplinks,
            program=self.program,
            points=frozenset(points),
            snaplen_bytes=min(self.snaplen_bytes, WHOLE),
            dropped=self.only_dropped,
            from_table=min(sent, default=0),
            to_port=to_port,
        )

    def seen(self, record: PacketRecord) -> Iterator[PacketRecord]:
        """A packet that the switch reports, once for each wanted point that it came to."""
        for point in self._points_of(record):
            if point in self.points:
                yield replace(record, point=point)

    def _points_of(self, record: PacketRecord) -> Iterator[Point]:
        if record.port in self.uplinks:
            yield Point.UPLINK_OUT if record.point is Point.DELIVERED else Point.UPLINK_IN
        elif record.point is Point.DELIVERED:
            yield record.point
        else:
            yield from (point for point in SENT if came_to(record, point))


def came_to(record: PacketRecord, point: Point) -> bool:
    """Whether a packet that a NIC sent came to one of the points behind it."""
    return record.verdict is Verdict.PASS or record.table >= REACHED[point]


def points(names: Iterable[str]) -> tuple[Point, ...]:
    """The points that `--point` names, several with commas between them; the usual two for none.

    Raises: InputError for a word that is none.
    """
    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    known = {str(point): (point,) for point in Point} | {UPLINK: AT_UPLINKS}
    for word in words:
        if word not in known:
            raise InputError(f"point {word}: the observation points are {', '.join(known)}")
    return tuple(dict.fromkeys(point for word in words for point in known[word])) or USUAL
