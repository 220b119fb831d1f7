"""The order of things in a column, and how high each stands: near what lines join it to, and over nothing
else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from vnet.picture.geometry import Card

NEAR, APART = 7.0, 13.0
"""The least distance of two lines, and of anything else."""
_SWEEPS, _SETTLING = 10, 30


@dataclass(slots=True, eq=False)
class Item:
    """A box, a gate, or, without a card, a slot in which the lines of a gate pass a column."""

    column: int
    lane: int
    width: float
    height: float
    card: Card | None = None
    near: list[Item] = field(default_factory=list)
    top: float = 0.0
    left: float = 0.0

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    @property
    def is_slot(self) -> bool:
        return self.card is None


Columns = Mapping[int, list[Item]]
Interval = tuple[float, float]


def room(items: Sequence[Item]) -> float:
    """How high things are one below the other."""
    return sum(item.height for item in items) + sum(map(gap, items, items[1:]))


def gap(one: Item, other: Item) -> float:
    """The distance that two neighbours in a column keep."""
    return NEAR if one.is_slot and other.is_slot else APART


def order(columns: Columns, lanes: int) -> None:
    """Sort each column, lane by lane, so that lines are short and cross seldom.

    Things move to the mean of what they are joined to, column by column to the right and back; the best
    order wins.
    """
    for items in columns.values():
        items.sort(key=lambda item: item.lane)
    _stack(columns, lanes)
    best = _length(columns), {column: list(items) for column, items in columns.items()}
    for sweep in range(_SWEEPS):
        forward = sweep % 2 == 0
        for column in sorted(columns, reverse=not forward):
            _sort(columns[column], -1 if forward else 1)
            _stack(columns, lanes)
        if (length := _length(columns)) < best[0]:
            best = length, {column: list(items) for column, items in columns.items()}
    for column, items in best[1].items():
        columns[column][:] = items


def _sort(items: list[Item], side: int) -> None:
    """By the mean of what is on one side; what has nothing there stays about where it is."""

    def wanted(item: Item) -> float:
        those = [other.middle for other in item.near if (other.column - item.column) * side > 0]
        return sum(those) / len(those) if those else item.middle

    items.sort(key=lambda item: (item.lane, wanted(item)))


def _stack(columns: Columns, lanes: int) -> None:
    """Give things heights that suit their order."""
    tall = [0.0] * lanes
    cells = {column: by_lane(items, lanes) for column, items in columns.items()}
    for rows in cells.values():
        for lane, items in enumerate(rows):
            tall[lane] = max(tall[lane], room(items))
    for rows in cells.values():
        start = 0.0
        for lane, items in enumerate(rows):
            top = start + (tall[lane] - room(items)) / 2
            for number, item in enumerate(items):
                item.top = top
                top += item.height + (gap(item, items[number + 1]) if number + 1 < len(items) else 0)
            start += tall[lane] + APART


def _length(columns: Columns) -> float:
    return sum(
        abs(item.middle - other.middle) for items in columns.values() for item in items for other in item.near
    )


def by_lane(items: Iterable[Item], lanes: int) -> list[list[Item]]:
    """The things of a column by their lane, in their order."""
    found: list[list[Item]] = [[] for _ in range(lanes)]
    for item in items:
        found[item.lane].append(item)
    return found


def spread(columns: Columns, intervals: Sequence[Interval]) -> None:
    """Give each thing the height that makes its lines straightest, within its lane and in its order."""
    cells = {column: by_lane(items, len(intervals)) for column, items in columns.items()}
    for rows in cells.values():
        for items, interval in zip(rows, intervals, strict=True):
            _settle(items, interval, lambda item: item.middle)
    for sweep in range(_SETTLING):
        for column in sorted(cells, reverse=sweep % 2 == 1):
            for items, interval in zip(cells[column], intervals, strict=True):
                _settle(items, interval, _pull)


def _pull(item: Item) -> float:
    return sum(other.middle for other in item.near) / len(item.near) if item.near else item.middle


def _settle(items: Sequence[Item], interval: Interval, wanted: Callable[[Item], float]) -> None:
    """Heights nearest to those wanted that keep order, distances and interval: isotonic regression.

    Source: Barlow et al., "Statistical Inference under Order Restrictions" (1972): pool adjacent violators.
    """
    offsets, offset = [], 0.0
    for number, item in enumerate(items):
        offset += gap(items[number - 1], item) if number else 0
        offsets.append(offset)
        offset += item.height
    pools: list[tuple[float, int]] = []
    for item, its in zip(items, offsets, strict=True):
        mean, count = wanted(item) - item.height / 2 - its, 1
        while pools and pools[-1][0] > mean:
            before, many = pools.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        pools.append((mean, count))
    low, high = interval[0], interval[1] - offset
    tops = [min(max(mean, low), high) for mean, count in pools for _ in range(count)]
    for item, its, top in zip(items, offsets, tops, strict=True):
        item.top = top + its
