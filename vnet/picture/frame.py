"""Puts the blocks of a picture side by side below its title, and the legend below them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil

from vnet.picture.cards import MARKED, NORMAL, SMALL, legend
from vnet.picture.geometry import Band, Bus, Card, Layout, Mark, Point, Row, Wire
from vnet.picture.palette import MUTED
from vnet.picture.scene import Scene
from vnet.picture.text import broken, clean, elided, width
from vnet.picture.views import GroupBy

MARGIN, APART = 22.0, 16.0
TITLE = 19.0
ASPECT = 1.5
"""The shape that is aimed at: width to height."""
WIDTH_MIN, SIGN_WIDTH = 420.0, 300.0
MOST_ACROSS = 12


@dataclass(frozen=True, slots=True)
class Part:
    """A block that has its places, from its own corner."""

    width: float
    height: float
    bands: tuple[Band, ...]
    buses: tuple[Bus, ...]
    wires: tuple[Wire, ...]
    cards: tuple[Card, ...]

    def moved(self, right: float, down: float) -> Part:
        """The same elsewhere."""

        def point(each: Point) -> Point:
            return each[0] + right, each[1] + down

        return Part(
            self.width,
            self.height,
            tuple(Band(band.rect.moved(right, down)) for band in self.bands),
            tuple(replace(bus, x=bus.x + right, stubs=tuple(map(point, bus.stubs))) for bus in self.buses),
            tuple(replace(wire, points=tuple(map(point, wire.points))) for wire in self.wires),
            tuple(replace(card, rect=card.rect.moved(right, down)) for card in self.cards),
        )


def packed(parts: Sequence[Part], scene: Scene) -> Layout:
    """The whole picture."""
    least = max((part.width for part in parts), default=WIDTH_MIN)
    tries = [_skyline(parts, least * step / 4) for step in range(4, 4 * MOST_ACROSS + 1)]
    places, wide, high = min(tries, key=lambda each: max(each[1] / ASPECT, each[2]))
    wide = max(wide, WIDTH_MIN)
    notes = list(_title(scene, wide))
    down = max(row.base for row in notes) + APART
    moved = [part.moved(MARGIN + x, down + y) for part, (x, y) in zip(parts, places, strict=True)]
    notes += _legend(scene, wide, down + high + 26)
    return Layout(
        wide + 2 * MARGIN,
        max(*(row.base for row in notes), down + high) + MARGIN,
        clean(scene.title),
        tuple(band for part in moved for band in part.bands),
        tuple(bus for part in moved for bus in part.buses),
        tuple(wire for part in moved for wire in part.wires),
        tuple(card for part in moved for card in part.cards),
        tuple(notes),
    )


def _skyline(parts: Sequence[Part], wide: float) -> tuple[list[Point], float, float]:
    """Where parts stand that each take the highest place that is left; how wide and high that is."""
    places: list[Point] = []
    taken: list[tuple[float, float, float]] = []
    """Left and right end, and how far down."""
    for part in parts:
        starts = {0.0, *(right for _, right, _ in taken)}
        found = [
            (max((low for a, b, low in taken if a < x + part.width and x < b), default=0.0), x)
            for x in sorted(starts)
            if not x or x + part.width <= wide
        ]
        top, left = min(found)
        places.append((left, top))
        taken.append((left, left + part.width + APART, top + part.height + APART))
    return (
        places,
        max((b for _, b, _ in taken), default=0) - APART,
        max((c for *_, c in taken), default=0) - APART,
    )


def _title(scene: Scene, wide: float) -> Iterator[Row]:
    base = MARGIN + TITLE
    for words in broken(clean(scene.title), TITLE, wide, bold=True, lines=2):
        yield Row(words, MARGIN, base, TITLE, bold=True)
        base += TITLE * 1.3
    base += SMALL - TITLE
    for words in broken(clean(scene.subtitle), SMALL, wide, lines=3):
        yield Row(words, MARGIN, base, SMALL, colour=MUTED)
        base += SMALL * 1.5
    if scene.grouping is not GroupBy.NETWORK and scene.signs:
        yield from _signs(scene, wide, base + 4)


def _signs(scene: Scene, wide: float, base: float) -> Iterator[Row]:
    """The networks, where no band tells about them: as many side by side as there is room for."""
    across = max(1, int(wide // SIGN_WIDTH))
    rows = ceil(len(scene.signs) / across)
    for place, sign in enumerate(scene.signs):
        column, row = divmod(place, rows)
        words = elided(clean(f"{sign.name}: {', '.join(sign.lines)}"), SMALL, wide / across - MARKED - NORMAL)
        left = MARGIN + column * wide / across + MARKED
        yield Row(words, left, base + row * SMALL * 1.5, SMALL, mark=Mark(network=sign.number))


def _legend(scene: Scene, wide: float, base: float) -> Iterator[Row]:
    """The states that occur, with their marks."""
    x = MARGIN
    for state in legend(scene):
        needed = MARKED + width(state.value, SMALL) + NORMAL
        if x > MARGIN and x + needed > MARGIN + wide:
            x, base = MARGIN, base + SMALL * 1.6
        yield Row(state.value, x + MARKED, base, SMALL, mark=Mark(state=state))
        x += needed
