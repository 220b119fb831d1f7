"""`docs/images/packet.svg`: how a packet is decided, drawn from the tables of `vnet.policy.pipeline`.

Written by `make docs`. It brings its own light ground, so that it reads the same on a dark page. The colours
are Okabe and Ito's, which the colour-blind tell apart; what is dropped also bears a cross and a broken line.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from textwrap import wrap
from xml.sax.saxutils import escape

from vnet.base.drop import DropReason
from vnet.policy.pipeline import TABLES, TIERED, Stage, Table
from vnet.topology.model import TIERS

WIDTH = 1000
INK, MUTED, GROUND, PAPER = "#1a1a1a", "#555555", "#fbfbf8", "#ffffff"
BLUE, GREEN, RED, PURPLE, SKY = "#0072b2", "#00795c", "#c04a00", "#9a4f85", "#e3f1f9"
FONT = "Verdana, 'DejaVu Sans', Arial, sans-serif"
LINE = 17
"""From one line of text to the next."""
CENTRE_LEFT, CENTRE_RIGHT = 330, 690
DROPS_LEFT, DROPS_RIGHT = 730, 975
SIDE_LEFT, SIDE_RIGHT = 114, 286
CACHE, RELATED, REPLY = 80, 315, 30
"""Where the lines go down, and one up, that pass tables by."""
GAP = 26
WRITTEN_CENTRE, WRITTEN_SIDE, WRITTEN_DROPS = 46, 22, 26
"""How many characters fit a box of the column."""


def _text(x: float, y: float, words: str, **style: str) -> str:
    named = {name.replace("_", "-"): value for name, value in style.items()}
    given = "".join(
        f' {name}="{value}"' for name, value in ({"font-size": "12", "fill": INK} | named).items()
    )
    return f'<text x="{x:g}" y="{y:g}"{given}>{escape(words)}</text>'


def _rect(left: float, top: float, right: float, bottom: float, **style: str) -> str:
    given = "".join(f' {name.replace("_", "-")}="{value}"' for name, value in style.items())
    size = f'width="{right - left:g}" height="{bottom - top:g}"'
    return f'<rect x="{left:g}" y="{top:g}" {size} rx="6"{given}/>'


def _arrow(colour: str, *points: tuple[float, float], broken: bool = False) -> str:
    way = " ".join(f"{x:g},{y:g}" for x, y in points)
    dashes = ' stroke-dasharray="5 4"' if broken else ""
    head = f'marker-end="url(#head-{colour[1:]})"'
    return f'<polyline points="{way}" fill="none" stroke="{colour}" stroke-width="2"{dashes} {head}/>'


@dataclass(frozen=True, slots=True)
class Box:
    """A box with its lines: a heading, then what it does."""

    left: float
    top: float
    right: float
    heading: str
    lines: tuple[str, ...]
    colour: str = BLUE
    number: str = ""

    @property
    def bottom(self) -> float:
        return self.top + 2 * 10 + LINE * (1 + len(self.lines)) - 4

    @property
    def middle(self) -> float:
        return (self.top + self.bottom) / 2

    @property
    def centre(self) -> float:
        return (self.left + self.right) / 2

    def drawn(self) -> Iterator[str]:
        yield _rect(
            self.left, self.top, self.right, self.bottom, fill=PAPER, stroke=self.colour, stroke_width="2"
        )
        y = self.top + 10 + 12
        yield _text(self.left + 12, y, self.heading, font_size="14", font_weight="bold", fill=self.colour)
        if self.number:
            name = f"table {self.number}"
            yield _text(self.right - 12, y, name, text_anchor="end", fill=MUTED)
        for number, words in enumerate(self.lines, 1):
            yield _text(self.left + 12, y + number * LINE, words)


def _drops(top: float, reasons: Iterable[DropReason]) -> tuple[list[str], float]:
    """What leaves a box to the right: the reasons, and where they end."""
    told = wrap(", ".join(reason.name for reason in reasons), WRITTEN_DROPS)
    bottom = top + 2 * 8 + LINE * len(told) - 4
    drawn = [_rect(DROPS_LEFT, top, DROPS_RIGHT, bottom, fill=PAPER, stroke=RED, stroke_dasharray="5 4")]
    drawn += [
        _text(DROPS_LEFT + 28, top + 8 + 12 + number * LINE, words, fill=RED)
        for number, words in enumerate(told)
    ]
    drawn.append(_text(DROPS_LEFT + 9, top + 8 + 12, "✕", font_weight="bold", fill=RED))
    return drawn, bottom


class Picture:
    """The picture as it grows downwards."""

    def __init__(self) -> None:
        self._drawn: list[str] = []
        self._top = 84.0
        self._last: Box | None = None

    def step(self, heading: str, lines: Iterable[str], drops: Iterable[DropReason] = (), **how: str) -> Box:
        """The next box of the middle column, with an arrow from the one above and its drops beside it."""
        box = Box(CENTRE_LEFT, self._top, CENTRE_RIGHT, heading, tuple(lines), **how)
        self._drawn += box.drawn()
        below = box.bottom
        if reasons := tuple(drops):
            drawn, end = _drops(box.top, reasons)
            below = max(below, end)
            middle = min(box.middle, (box.top + end) / 2)
            self._drawn += [
                *drawn,
                _arrow(RED, (CENTRE_RIGHT, middle), (DROPS_LEFT - 3, middle), broken=True),
            ]
        if self._last is not None:
            self.arrow(BLUE, (box.centre, self._last.bottom), (box.centre, box.top - 3))
        self._top, self._last = below + GAP, box
        return box

    def table(self, table: Table, *more: str) -> Box:
        """The box of a table, with what is to be said besides its question."""
        number = f"{int(table.number)}…" if table.number in TIERED else f"{int(table.number)}"
        lines = [*wrap(table.question, WRITTEN_CENTRE), *more]
        return self.step(table.name, lines, table.drops, number=number)

    def beside(self, top: float, table: Table) -> Box:
        """The box of a table to the left of the middle column, with its drops in it."""
        lines = (*wrap(table.question, WRITTEN_SIDE), "")
        box = Box(SIDE_LEFT, top, SIDE_RIGHT, table.name, lines, number=f"{int(table.number)}")
        self._drawn += box.drawn()
        words = "✕ " + ", ".join(reason.name for reason in table.drops)
        self.say(box.left + 12, box.bottom - 10, words, fill=RED)
        return box

    def arrow(self, colour: str, *points: tuple[float, float], broken: bool = False) -> None:
        self._drawn.append(_arrow(colour, *points, broken=broken))

    def say(self, x: float, y: float, words: str, **style: str) -> None:
        self._drawn.append(_text(x, y, words, **style))

    def lines(self, x: float, y: float, lines: Iterable[str], colour: str, **style: str) -> None:
        """Several lines of text, the first at `y`."""
        for number, words in enumerate(lines):
            self.say(x, y + number * LINE, words, fill=colour, **style)

    def tiers(self, box: Box) -> None:
        """The tiers from left to right, in the place of two lines below the question."""
        top, width, gap = box.top + 10 + 12 + LINE + 9, 82, 38
        for number, tier in enumerate(TIERS):
            left = box.left + 12 + number * (width + gap)
            self._drawn.append(_rect(left, top, left + width, top + 24, fill=SKY, stroke=BLUE))
            self.say(left + width / 2, top + 16, tier, text_anchor="middle")
            if number:
                self.arrow(BLUE, (left - gap, top + 15), (left - 2, top + 15))
                self.say(left - gap / 2, top + 9, "pass", text_anchor="middle", font_size="10", fill=MUTED)

    def upwards(self, x: float, y: float, words: str, colour: str) -> None:
        """A text along a line that goes up."""
        self._drawn.append(_text(x, y, words, fill=colour, transform=f"rotate(-90 {x:g} {y:g})"))

    def finished(self) -> str:
        """The whole file."""
        height = self._top + 14
        colours = (BLUE, GREEN, RED, PURPLE)
        heads = "".join(
            f'<marker id="head-{colour[1:]}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="9" '
            'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto">'
            f'<path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
            for colour in colours
        )
        opening = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height:g}" width="{WIDTH}" '
            f'height="{height:g}" font-family="{FONT}" role="img" aria-labelledby="title">'
        )
        lines = [
            opening,
            '<title id="title">How a packet is decided</title>',
            f"<defs>{heads}</defs>",
            _rect(1, 1, WIDTH - 1, height - 1, fill=GROUND, stroke="#bbbbbb"),
            *self._drawn,
            "</svg>",
        ]
        return "\n".join(lines) + "\n"


def svg() -> str:
    """The picture."""
    tables = {table.number: table for table in TABLES}
    picture = Picture()
    picture.say(CENTRE_LEFT, 36, "How a packet is decided", font_size="20", font_weight="bold")
    picture.say(
        CENTRE_LEFT, 58, "Top to bottom; what is dropped leaves to the right, with its reason.", fill=MUTED
    )
    guest = picture.step("guest", ["writes a frame to its TAP"], colour=GREEN)
    picture.step("parse", ["Do the headers agree with each other?"], [DropReason.MALFORMED], colour=MUTED)
    cache = picture.step(
        "cache",
        ["Was a packet like it decided under these rules,", "and is its connection as it was?"],
        [DropReason.REFUSAL_QUOTA],
        colour=PURPLE,
    )
    picture.table(tables[Stage.ADMIT])
    guard = picture.table(tables[Stage.SOURCE_GUARD])
    route = picture.table(tables[Stage.ROUTE], "What is for a gateway goes into another one.")
    picture.table(tables[Stage.DESTINATION], "The connection tracker is asked.")
    neighbour = picture.beside(route.top, tables[Stage.NEIGHBOUR])
    connection = picture.table(
        tables[Stage.CONNECTION],
        "Request: the sender. Reply: the receiver, so both",
        "are judged as client → server, by the same rules.",
    )
    for stage, otherwise in (
        (Stage.EGRESS, "open, or closed once a policy lists egress"),
        (Stage.INGRESS, "closed"),
    ):
        picture.tiers(picture.table(tables[stage], "", "", *_judged(otherwise)))
    deliver = picture.table(tables[Stage.DELIVER])
    receiver = picture.step("guest", ["reads it from its TAP"], colour=GREEN)
    _short_cuts(picture, cache, guard, neighbour, receiver)
    _errors(picture, connection, deliver)
    _replies(picture, guest, receiver)
    _legend(picture)
    return picture.finished()


def _judged(otherwise: str) -> tuple[str, ...]:
    return (
        "The first match decides: allow ↓  deny, reject ✕",
        f"No rule: {otherwise}",
        "audit: what would be dropped is noted, and passes.",
        "established: live ones pass (keep) or end (reset).",
    )


def _short_cuts(picture: Picture, cache: Box, guard: Box, neighbour: Box, receiver: Box) -> None:
    """What the cache knows, and what is neither IPv4 nor IPv6 traffic."""
    down = receiver.middle + 9
    way = (cache.left, cache.middle), (CACHE, cache.middle), (CACHE, down), (receiver.left - 3, down)
    picture.arrow(PURPLE, *way)
    known = ("known: done with it", "what was done with", "the one before,", "drops as well")
    picture.lines(CACHE + 12, cache.middle + 20, known, PURPLE)
    x, down = neighbour.centre, receiver.middle - 9
    picture.arrow(BLUE, (guard.left, guard.middle), (x, guard.middle), (x, neighbour.top - 3))
    picture.arrow(BLUE, (x, neighbour.bottom), (x, down), (receiver.left - 3, down))
    picture.lines(x + 8, guard.middle + 17, ("ARP and", "neighbour", "discovery"), MUTED)


def _errors(picture: Picture, connection: Box, deliver: Box) -> None:
    way = (connection.left, connection.middle), (RELATED, connection.middle)
    picture.arrow(BLUE, *way, (RELATED, deliver.middle), (deliver.left - 3, deliver.middle))
    told = ("ICMP errors", "about a known", "connection")
    picture.lines(RELATED - 6, connection.middle + 17, told, MUTED, text_anchor="end")


def _replies(picture: Picture, guest: Box, receiver: Box) -> None:
    way = (
        (receiver.centre, receiver.bottom),
        (receiver.centre, receiver.bottom + 16),
        (REPLY, receiver.bottom + 16),
    )
    picture.arrow(GREEN, *way, (REPLY, guest.middle), (guest.left - 3, guest.middle), broken=True)
    picture.upwards(
        REPLY + 17, receiver.middle - 40, "the reply comes the same way; its client stays the client", GREEN
    )


def _legend(picture: Picture) -> None:
    rows = (
        (BLUE, "from table to table", False),
        (PURPLE, "known to the cache", False),
        (GREEN, "the reply", True),
        (RED, "dropped", True),
    )
    for number, (colour, words, broken) in enumerate(rows):
        y = 128 + number * 20
        picture.arrow(colour, (CACHE, y - 4), (CACHE + 36, y - 4), broken=broken)
        picture.say(CACHE + 46, y, words, fill=colour)
