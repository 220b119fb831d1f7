"""Where things of a picture stand, in pixels, y downwards: what `layout` makes and all forms are written
from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vnet.picture.palette import INK
from vnet.picture.scene import Box, Gate, Sign, State

Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Rect:
    left: float
    top: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    @property
    def centre(self) -> float:
        return self.left + self.width / 2

    @property
    def middle(self) -> float:
        return self.top + self.height / 2

    def moved(self, right: float, down: float) -> Rect:
        return Rect(self.left + right, self.top + down, self.width, self.height)


@dataclass(frozen=True, slots=True)
class Mark:
    """A small shape before words: of a state, or the square of the network with that number in the file."""

    state: State | None = None
    network: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of words within something; `left` and `base` (the baseline) are from its corner."""

    words: str
    left: float
    base: float
    size: float
    bold: bool = False
    colour: str = INK
    mark: Mark | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """A box, a gate or a sign with its rows. `of` is None for the name of several networks or of a group."""

    key: str
    of: Box | Gate | Sign | None
    rect: Rect
    rows: tuple[Row, ...]


class Role(StrEnum):
    """What a line joins a gate to: who may open, to whom, or those who are both."""

    SOURCE = "source"
    TARGET = "target"
    BOTH = "both"


@dataclass(frozen=True, slots=True)
class Wire:
    """A part of a line between a gate and a box; empty `box` for a part that several boxes share.

    `points` are corners; two that differ in y are joined by a curve. The last one is at the gate's end.
    """

    gate: str
    box: str
    role: Role
    points: tuple[Point, ...]
    at_gate: bool


@dataclass(frozen=True, slots=True)
class Band:
    """The ground behind VMs that belong together."""

    rect: Rect


@dataclass(frozen=True, slots=True)
class Bus:
    """The line at the left that joins the bands of a network; `stubs` are where it ends at them."""

    network: int
    name: str
    x: float
    stubs: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Everything with its place. `bands` lie below all else."""

    width: float
    height: float
    title: str
    bands: tuple[Band, ...]
    buses: tuple[Bus, ...]
    wires: tuple[Wire, ...]
    cards: tuple[Card, ...]
    notes: tuple[Row, ...]
    """Words that stand for themselves: title, legend."""
