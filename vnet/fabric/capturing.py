"""What a capture wants, in terms of the pipeline's stages, and the tap of the switch that gets it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from vnet.base.errors import InputError
from vnet.capture.limits import WHOLE_PACKET_BYTES
from vnet.capture.record import SENT, PacketRecord, Point, Verdict
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
USUAL = (Point.GUEST, Point.DELIVERED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """Packets of some ports, seen at some points, that match a filter (classic BPF; empty = all)."""

    ports: frozenset[int]
    points: tuple[Point, ...] = USUAL
    program: bytes = b""
    snaplen_bytes: int = WHOLE_PACKET_BYTES
    only_dropped: bool = False

    def tap(self, to_port: int = 0) -> Tap:
        """What the switch is asked for."""
        sent = [REACHED[point] for point in self.points if point in SENT]
        points = {SwitchPoint.GUEST} if sent else set()
        if Point.DELIVERED in self.points and not self.only_dropped:
            points.add(SwitchPoint.DELIVERED)
        return Tap(
            ports=self.ports,
            program=self.program,
            points=frozenset(points),
            snaplen_bytes=min(self.snaplen_bytes, WHOLE),
            dropped=self.only_dropped,
            from_table=min(sent, default=0),
            to_port=to_port,
        )

    def seen(self, record: PacketRecord) -> Iterator[PacketRecord]:
        """A packet that the switch reports, once for each wanted point that it came to."""
        if record.point is Point.DELIVERED:
            yield record
            return
        for point in SENT:
            if point in self.points and came_to(record, point):
                yield replace(record, point=point)


def came_to(record: PacketRecord, point: Point) -> bool:
    """Whether a packet that a NIC sent came to one of the points behind it."""
    return record.verdict is Verdict.PASS or record.table >= REACHED[point]


def points(names: Iterable[str]) -> tuple[Point, ...]:
    """The points that `--point` names, several with commas between them; the usual two for none.

    Raises: InputError for a word that is none, and for uplinks, which no fabric has yet.
    """
    words = [word.strip() for name in names for word in name.split(",") if word.strip()]
    if UPLINK in words:
        raise InputError("point uplink: this fabric has no uplink, since `uplinks` are not supported yet")
    known = {str(point): point for point in Point}
    for word in words:
        if word not in known:
            raise InputError(f"point {word}: the observation points are {', '.join((*known, UPLINK))}")
    return tuple(known[word] for word in dict.fromkeys(words)) or USUAL
