"""What covers what in a layout, worked out from the metrics of its texts."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from vnet.picture.geometry import Card, Layout, Point, Rect, Row, Wire
from vnet.picture.text import width

SLACK = 0.3
"""Pixels by which two things may be over each other: what rounding makes."""
SAMPLES = 24


def text_area(row: Row, left: float = 0.0, top: float = 0.0) -> Rect:
    """Where a row is seen, its mark included."""
    start = row.left - (14 if row.mark else 0)
    long = width(row.words, row.size, row.bold) + row.left - start
    return Rect(left + start, top + row.base - 0.8 * row.size, long, row.size)


def meet(one: Rect, other: Rect) -> bool:
    """Whether two areas have more in common than slack."""
    across = min(one.right, other.right) - max(one.left, other.left)
    return across > SLACK and min(one.bottom, other.bottom) - max(one.top, other.top) > SLACK


def holds(outer: Rect, inner: Rect) -> bool:
    """Whether an area lies within another."""
    across = outer.left - SLACK <= inner.left and inner.right <= outer.right + SLACK
    return across and outer.top - SLACK <= inner.top and inner.bottom <= outer.bottom + SLACK


def along(wire: Wire) -> Iterator[Point]:
    """Points of a wire as it is drawn: bends are cubic curves with level ends."""
    for (x, y), (right, below) in pairwise(wire.points):
        half = (x + right) / 2
        for step in range(SAMPLES + 1):
            t = step / SAMPLES
            a, b, c, d = (1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t * t * (1 - t), t**3
            yield a * x + (b + c) * half + d * right, (a + b) * y + (c + d) * below


def faults(layout: Layout) -> Iterator[str]:
    """Everything that covers something else, is cut, or lies outside."""
    yield from _cards(layout)
    yield from _texts(layout)
    yield from _wires(layout)


def _cards(layout: Layout) -> Iterator[str]:
    whole = Rect(0, 0, layout.width, layout.height)
    by_left = sorted(layout.cards, key=lambda card: card.rect.left)
    for number, card in enumerate(by_left):
        if not holds(whole, card.rect):
            yield f"{card.key} is outside"
        for other in by_left[number + 1 :]:
            if other.rect.left >= card.rect.right:
                break
            if meet(card.rect, other.rect):
                yield f"{card.key} meets {other.key}"


def _texts(layout: Layout) -> Iterator[str]:
    whole = Rect(0, 0, layout.width, layout.height)
    notes = [text_area(row) for row in layout.notes]
    for note in notes:
        if not holds(whole, note):
            yield f"a note is outside: {note}"
        yield from (f"a note meets {card.key}" for card in layout.cards if meet(note, card.rect))
    yield from _each_other(notes, "notes")
    for card in layout.cards:
        areas = [text_area(row, card.rect.left, card.rect.top) for row in card.rows]
        yield from (f"{card.key}: cut text" for area in areas if not holds(card.rect, area))
        yield from _each_other(areas, card.key)


def _each_other(areas: list[Rect], what: str) -> Iterator[str]:
    for number, one in enumerate(areas):
        yield from (f"{what}: texts meet" for other in areas[number + 1 :] if meet(one, other))


def _wires(layout: Layout) -> Iterator[str]:
    by_left = sorted(layout.cards, key=lambda card: card.rect.left)
    for wire in layout.wires:
        points = list(along(wire))
        least, most = min(x for x, _ in points), max(x for x, _ in points)
        near = [card for card in by_left if card.rect.left < most and card.rect.right > least]
        for card in near:
            if any(_within(card, point) for point in points):
                yield f"a line of {wire.gate} runs over {card.key}"


def _within(card: Card, point: Point) -> bool:
    rect, (x, y) = card.rect, point
    across = rect.left + SLACK < x < rect.right - SLACK
    return across and rect.top + SLACK < y < rect.bottom - SLACK
