"""What flowed since the table of connections was looked at last: the difference of two looks.

An ended connection's slot keeps what it counted until another connection takes it, and free slots are taken
in the order in which they became free. So connections that live shorter than the time between two looks are
seen too, unless more of them come in that time than there are free slots; how many that were is told by
the slots' occupancy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from vnet.openflow.conntrack import OVER
from vnet.switch.connections import Tracked, tracked

_LIFE = 4
"""By so much a slot's occupancy goes up for a connection of a fabric: taken, marked (2), freed."""
TICK_NS = 10**7
"""By so much the dataplane's clock, the kernel's coarse one, may be late."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a connection did since the last look, from its client and back."""

    one: Tracked
    packets: tuple[int, int]
    octets: tuple[int, int]
    is_new: bool
    has_ended: bool


class Scanner:
    """The last look at one switch's table.

    Args:
        since_ns: what began before that (CLOCK_MONOTONIC) is not new when it is seen for the first time.
    """

    def __init__(self, since_ns: int = 0) -> None:
        self._since_ns = since_ns
        self._known: dict[int, tuple[int, int, bool, int, int, int, int]] = {}
        """By slot: occupancy, beginning, whether it has ended, packets and bytes each way."""
        self._is_first = True
        self.missed = 0
        """Connections, about, that came and went between two looks and left nothing."""

    def part(self, first: int, values: bytes) -> Iterator[Change]:
        """Look at a part of the table; only what changed is told."""
        for one in tracked(values, first):
            known = self._known.get(one.slot)
            ended = not one.is_there or one.state in OVER
            self._known[one.slot] = (
                one.occupancy,
                one.created_ns,
                ended,
                *one.packets,
                *one.octets,
            )
            change = self._change(one, known, ended)
            if change is not None:
                yield change

    def _change(
        self, one: Tracked, known: tuple[int, int, bool, int, int, int, int] | None, ended: bool
    ) -> Change | None:
        if known is not None and known[1] == one.created_ns:
            packets = one.packets[0] - known[3], one.packets[1] - known[4]
            octets = one.octets[0] - known[5], one.octets[1] - known[6]
            if not any(packets) and ended == known[2]:
                return None
            return Change(one, packets, octets, False, ended and not known[2])
        if known is None and self._is_first and one.created_ns < self._since_ns - TICK_NS:
            return None
        if not self._is_first:
            self._miss(one, known)
        return Change(one, one.packets, one.octets, True, ended)

    def _miss(self, one: Tracked, known: tuple[int, int, bool, int, int, int, int] | None) -> None:
        before = known[0] if known else 0
        least = (before & 1) + _LIFE - (one.occupancy & 1)
        self.missed += max(0, (one.occupancy - before - least) // _LIFE)

    def done(self) -> None:
        """The whole table was looked at."""
        self._is_first = False
