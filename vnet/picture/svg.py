"""A layout as SVG: light ground of its own, texts as texts, the full words of what is shortened as hover
titles.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import pairwise

from vnet.picture.geometry import Bus, Card, Layout, Mark, Point, Rect, Role, Row, Wire
from vnet.picture.palette import (
    BAND,
    FILLS,
    GROUND,
    INK,
    MUTED,
    PAPER,
    RULE,
    STATE_COLOURS,
    edge_colour,
    network_colour,
)
from vnet.picture.scene import Box, Gate, Sign, State
from vnet.picture.text import FONT, clean
from vnet.picture.words import full_words

SHAPES = {
    State.CRASHED: "M-4,-4 L4,4 M-4,4 L4,-4",
    State.NOT_ENFORCED: "M0,-5 L5,4 L-5,4 z",
    State.DROPPING: "M0,5 L5,-4 L-5,-4 z",
    State.STARTING: "M-4,-5 L5,0 L-4,5 z",
    State.STOPPING: "M4,-5 L-5,0 L4,5 z",
    State.STOPPED: "M-4,-4 H4 V4 H-4 z",
    State.RUNNING: "M0,-4.5 A4.5,4.5 0 1 0 0.01,-4.5 z",
    State.READY: "M0,-4.5 A4.5,4.5 0 1 0 0.01,-4.5 z",
}
_CROSSED = {State.CRASHED}
_HOLLOW = {State.RUNNING}


def svg(layout: Layout) -> str:
    """The whole file."""
    return "\n".join(lines(layout)) + "\n"


def lines(layout: Layout) -> Iterator[str]:
    """The file line by line; the same layout gives the same bytes."""
    wide, high = (number(round(each)) for each in (layout.width, layout.height))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'font-family="{FONT}" role="img" aria-labelledby="title">'
    )
    yield f'<title id="title">{escape(layout.title)}</title>'
    gates = [card.key for card in layout.cards if isinstance(card.of, Gate)]
    colours = {key: edge_colour(key) for key in gates}
    yield f"<defs>{''.join(_head(colour) for colour in dict.fromkeys(colours.values()))}</defs>"
    yield rect(Rect(0.5, 0.5, layout.width - 1, layout.height - 1), fill=GROUND, stroke=RULE)
    yield from (rect(band.rect, rx="8", fill=BAND) for band in layout.bands)
    for bus in layout.buses:
        yield from _bus(bus)
    for wire in layout.wires:
        yield _wire(wire, colours[wire.gate])
    for card in layout.cards:
        yield from _card(card, colours)
    for row in layout.notes:
        yield from _row(row, 0, 0)
    yield "</svg>"


def number(value: float) -> str:
    """A length without needless digits."""
    return f"{round(value, 1):g}" if value < 1e5 else f"{value:.0f}"


def rect(of: Rect, **style: str) -> str:
    """A rectangle."""
    place = (
        f'x="{number(of.left)}" y="{number(of.top)}" width="{number(of.width)}" height="{number(of.height)}"'
    )
    return f"<rect {place}{attributes(style)}/>"


def attributes(style: dict[str, str]) -> str:
    """Named values as XML attributes; `_` stands for `-`."""
    return "".join(f' {name.replace("_", "-")}="{escape(value)}"' for name, value in style.items())


def _head(colour: str) -> str:
    return (
        f'<marker id="head-{colour[1:]}" viewBox="0 0 8 8" refX="7.4" refY="4" markerWidth="9" '
        'markerHeight="9" markerUnits="userSpaceOnUse" orient="auto-start-reverse">'
        f'<path d="M0,0.6 L8,4 L0,7.4 z" fill="{colour}"/></marker>'
    )


def _bus(bus: Bus) -> Iterator[str]:
    """The line of a network, with a dot wherever a band is on it."""
    colour, x = network_colour(bus.network), number(bus.x)
    ys = [y for _, y in bus.stubs]
    path = f"M{x},{number(min(ys))} V{number(max(ys))} "
    path += " ".join(f"M{x},{number(y)} H{number(right)}" for right, y in bus.stubs)
    yield f'<path d="{path}" fill="none" stroke="{colour}" stroke-width="3" stroke-linecap="round">'
    yield f"<title>{escape(clean(bus.name))}</title></path>"
    for right, y in bus.stubs:
        yield f'<circle cx="{number(right)}" cy="{number(y)}" r="3.5" fill="{colour}"/>'


def _wire(wire: Wire, colour: str) -> str:
    heads = {"marker_start": f"url(#head-{colour[1:]})"} if wire.box and wire.role is not Role.SOURCE else {}
    if wire.at_gate and wire.role is Role.BOTH:
        heads["marker_end"] = f"url(#head-{colour[1:]})"
    named = {"data_gate": wire.gate} | ({"data_box": wire.box} if wire.box else {})
    style = {"fill": "none", "stroke": colour, "stroke_width": "1.5"} | heads | {"class": "wire"} | named
    return f'<path d="{curve(wire.points)}"{attributes(style)}/>'


def curve(points: Sequence[Point]) -> str:
    """A path through points: straight where they are level, else a bend that is level at both ends."""
    path = f"M{number(points[0][0])},{number(points[0][1])}"
    for (x, y), (right, below) in pairwise(points):
        if abs(y - below) < 0.05:
            path += f" H{number(right)}"
        else:
            half = number((x + right) / 2)
            path += f" C{half},{number(y)} {half},{number(below)} {number(right)},{number(below)}"
    return path


def _card(card: Card, colours: dict[str, str]) -> Iterator[str]:
    match card.of:
        case Box() as box:
            yield f'<g class="box" data-box="{box.key}" data-name="{escape(clean(box.name))}">'
            yield f"<title>{escape(full_words(box))}</title>"
            yield from _behind(card, box)
            yield rect(
                card.rect,
                rx="5",
                fill=FILLS[box.kind],
                stroke=INK if box.state is None else _stroke(box),
                stroke_width="1.4",
            )
        case Gate() as gate:
            yield (
                f'<g class="gate" data-gate="{gate.key}" data-sources="{" ".join(gate.sources)}" '
                f'data-targets="{" ".join(gate.targets)}">'
            )
            yield f"<title>{escape(clean(gate.ports))}</title>"
            thick = "2.6" if gate.is_all else "1.4"
            yield rect(card.rect, rx="13", fill=PAPER, stroke=colours[gate.key], stroke_width=thick)
        case Sign() as sign:
            yield f'<g class="sign"><title>{escape(clean(", ".join((sign.name, *sign.lines))))}</title>'
        case None:
            yield '<g class="sign">'
    for row in card.rows:
        colour = colours[card.key] if isinstance(card.of, Gate) else row.colour
        yield from _row(row, card.rect.left, card.rect.top, colour)
    yield "</g>"


def _stroke(box: Box) -> str:
    assert box.state is not None
    return STATE_COLOURS[box.state]


def _behind(card: Card, box: Box) -> Iterable[str]:
    """A second edge for a box that stands for several."""
    if box.count > 1:
        yield rect(card.rect.moved(3.5, 3.5), rx="5", fill=PAPER, stroke=MUTED)


def _row(row: Row, left: float, top: float, colour: str = "") -> Iterator[str]:
    x, y = left + row.left, top + row.base
    if row.mark is not None:
        yield mark(row.mark, x - 8, y - row.size * 0.36)
    style = {"font_size": f"{row.size:g}", "fill": colour or row.colour} | (
        {"font_weight": "bold"} if row.bold else {}
    )
    yield f'<text x="{number(x)}" y="{number(y)}"{attributes(style)}>{escape(row.words)}</text>'


def mark(of: Mark, x: float, y: float) -> str:
    """A mark with its middle at a place."""
    if of.state is None:
        colour = MUTED if of.network is None else network_colour(of.network)
        return rect(Rect(x - 4, y - 4, 8, 8), rx="1.5", fill=colour)
    colour = STATE_COLOURS[of.state]
    hollow = of.state in _CROSSED | _HOLLOW
    style = {"fill": "none" if hollow else colour, "stroke": colour, "stroke_width": "2" if hollow else "0"}
    return f'<path d="{SHAPES[of.state]}" transform="translate({number(x)} {number(y)})"{attributes(style)}/>'
