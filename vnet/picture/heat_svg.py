"""The heat map as SVG: light to dark for how much is open, and a mark or the ports in every cell."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from html import escape

from vnet.picture.geometry import Rect
from vnet.picture.heat import Heat, Level, told
from vnet.picture.heat_layout import (
    KEY,
    LINE,
    MARGIN,
    NORMAL,
    SMALL,
    TITLE,
    HeatLayout,
    Name,
    Tile,
)
from vnet.picture.palette import BAND, BLUE, GROUND, INK, MUTED, PAPER, RULE
from vnet.picture.svg import attributes, number, rect
from vnet.picture.text import FONT, clean

SOME, HATCH = "#a9d8f5", "#d6d6cd"
FILLS: Mapping[Level, str] = {
    Level.NOTHING: PAPER,
    Level.SOME: SOME,
    Level.ALL: BLUE,
    Level.APART: "url(#apart)",
    Level.SELF: RULE,
}
INKS: Mapping[Level, str] = {**dict.fromkeys(Level, INK), Level.ALL: PAPER}


def lines(layout: HeatLayout) -> Iterator[str]:
    """The file line by line; the same layout gives the same bytes."""
    wide, high = (number(round(each)) for each in (layout.width, layout.height))
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" width="{wide}" height="{high}" '
        f'font-family="{FONT}" role="img" aria-labelledby="title">'
    )
    title = clean(layout.heat.title)
    yield f'<title id="title">Who may open what in {escape(title)}</title>'
    yield (
        '<defs><pattern id="apart" width="6" height="6" patternUnits="userSpaceOnUse">'
        f'<rect width="6" height="6" fill="{BAND}"/><path d="M0,6 L6,0" stroke="{HATCH}" stroke-width="1"/>'
        "</pattern></defs>"
    )
    yield rect(Rect(0.5, 0.5, layout.width - 1, layout.height - 1), fill=GROUND, stroke=RULE)
    yield _text(MARGIN, MARGIN + TITLE * 0.8, title, TITLE, INK, font_weight="bold")
    yield _text(MARGIN, MARGIN + TITLE + NORMAL * 1.2, layout.note, NORMAL, MUTED)
    grid = layout.grid
    yield rect(Rect(grid.left - 1, grid.top - 1, grid.width + 1, grid.height + 1), fill=RULE)
    for name in (*layout.rows, *layout.columns):
        yield from _name(name, layout.heat)
    for tile in layout.tiles:
        yield from _tile(tile, layout)
    yield from _legend(layout)
    yield "</svg>"


def svg(layout: HeatLayout) -> str:
    """The whole file."""
    return "\n".join(lines(layout)) + "\n"


def _text(x: float, y: float, words: str, size: float, colour: str, **style: str) -> str:
    named = attributes({"font_size": f"{size:g}", "fill": colour} | style)
    return f'<text x="{number(x)}" y="{number(y)}"{named}>{escape(words)}</text>'


def _name(name: Name, heat: Heat) -> Iterator[str]:
    head = heat.heads[name.place]
    axis = "column" if name.is_upright or name.anchor == "middle" else "row"
    members = escape(clean(", ".join(head.members)))
    yield f'<g class="head" data-{axis}="{name.place}"><title>{members}</title>'
    if name.is_upright:
        turned = f"rotate(-90 {number(name.x)} {number(name.y)})"
        yield _text(name.x, name.y, name.words[0], NORMAL, INK, transform=turned)
    else:
        for x, y, words in baselines(name):
            yield _text(x, y, words, NORMAL, INK, text_anchor=name.anchor)
    yield "</g>"


def baselines(name: Name) -> Iterator[tuple[float, float, str]]:
    """Where the lines of a level name stand: rows around their middle, columns above their cells."""
    step, count = NORMAL * LINE, len(name.words)
    first = (
        name.y - step * (count - 1)
        if name.anchor == "middle"
        else name.y - step * (count - 1) / 2 + NORMAL * 0.36
    )
    for place, words in enumerate(name.words):
        yield name.x, first + place * step, words


def _tile(tile: Tile, layout: HeatLayout) -> Iterator[str]:
    heat, level = layout.heat, tile.cell.level
    if tile.span > 1:
        yield rect(tile.rect, fill=FILLS[level])
        return
    yield f'<g class="cell" data-row="{tile.row}" data-column="{tile.column}">'
    sentence = told(heat.heads[tile.row], heat.heads[tile.column], tile.cell)
    yield f"<title>{escape(clean(sentence))}</title>{rect(tile.rect, fill=FILLS[level])}"
    if tile.words and not layout.is_marked:
        for x, y, words in inside(tile):
            yield _text(x, y, words, SMALL, INKS[level], text_anchor="middle")
    else:
        yield from mark(level, tile.rect.centre, tile.rect.middle)
    yield "</g>"


def inside(tile: Tile) -> Iterator[tuple[float, float, str]]:
    """Where the words of a cell stand."""
    step = SMALL * LINE
    first = tile.rect.middle - step * (len(tile.words) - 1) / 2 + SMALL * 0.36
    for place, words in enumerate(tile.words):
        yield tile.rect.centre, first + place * step, words


def mark(level: Level, x: float, y: float) -> Iterator[str]:
    """What says the same as the colour: a half and a whole square, a stroke; nothing for nothing."""
    place = f'transform="translate({number(x)} {number(y)})"'
    match level:
        case Level.SOME:
            yield f'<path d="M-4,4 L4,4 L4,-4 z" fill="{BLUE}" {place}/>'
        case Level.ALL:
            yield f'<path d="M-4,-4 H4 V4 H-4 z" fill="{PAPER}" {place}/>'
        case Level.SELF:
            yield f'<path d="M-4,-4 L4,4" stroke="{MUTED}" stroke-width="1.4" {place}/>'
        case Level.NOTHING | Level.APART:
            return


def _legend(layout: HeatLayout) -> Iterator[str]:
    for entry in layout.legend:
        x, y = entry.x - KEY, entry.y
        yield rect(Rect(x, y - 12, 16, 16), fill=FILLS[entry.level], stroke=RULE)
        yield from mark(entry.level, x + 8, y - 4)
        yield _text(entry.x, y, entry.level.value, NORMAL, INK)
