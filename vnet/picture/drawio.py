"""A layout as a draw.io file: every box, label and line can be moved there, and lines follow.

Source: the mxGraph model as diagrams.net writes it, uncompressed (drawio.com/doc/faq/diagram-source-edit).
"""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from vnet.picture.geometry import Card, Layout, Mark, Rect, Role
from vnet.picture.palette import (
    BAND,
    FILLS,
    GROUND,
    INK,
    MUTED,
    PAPER,
    STATE_COLOURS,
    edge_colour,
    network_colour,
)
from vnet.picture.scene import Box, Gate
from vnet.picture.svg import attributes, number
from vnet.picture.text import clean
from vnet.picture.words import full_words

_BASE = "html=1;whiteSpace=wrap;fontFamily=Verdana;align=left;verticalAlign=top;spacing=6;"

_HEADS = {
    Role.SOURCE: "endArrow=none;",
    Role.TARGET: "endArrow=block;",
    Role.BOTH: "endArrow=block;startArrow=block;",
}


def drawio(layout: Layout) -> str:
    """The whole file."""
    return "\n".join(_lines(layout)) + "\n"


def _lines(layout: Layout) -> Iterator[str]:
    yield '<mxfile host="vnet">'
    yield f'<diagram id="vnet" name="{escape(layout.title)}">'
    size = f'pageWidth="{number(layout.width)}" pageHeight="{number(layout.height)}"'
    yield f'<mxGraphModel grid="1" gridSize="10" page="1" {size} background="{GROUND}"><root>'
    yield '<mxCell id="0"/><mxCell id="1" parent="0"/>'
    for place, band in enumerate(layout.bands):
        yield _vertex(
            f"band{place}", "", f"rounded=1;arcSize=4;fillColor={BAND};strokeColor=none;", band.rect
        )
    for place, row in enumerate(layout.notes):
        rect = Rect(row.left - 6, row.base - row.size - 4, layout.width - row.left, row.size * 1.8)
        yield _vertex(f"note{place}", _words(row.words, row.size, row.bold, row.colour), "text;", rect)
    for card in layout.cards:
        yield _card(card)
    for place, wire in enumerate(_joined(layout)):
        yield _edge(f"wire{place}", wire)
    yield "</root></mxGraphModel></diagram></mxfile>"


def _card(card: Card) -> str:
    rows = "<br>".join(_row(row.words, row.size, row.bold, row.colour, row.mark) for row in card.rows)
    match card.of:
        case Box() as box:
            colour = INK if box.state is None else STATE_COLOURS[box.state]
            style = f"rounded=1;arcSize=6;fillColor={FILLS[box.kind]};strokeColor={colour};"
            return _vertex(
                card.key, rows, style + ("shadow=1;" if box.count > 1 else ""), card.rect, full_words(box)
            )
        case Gate() as gate:
            width = 2.5 if gate.is_all else 1.4
            style = f"rounded=1;arcSize=50;fillColor={PAPER};strokeColor={edge_colour(gate.key)};"
            style += f"strokeWidth={width};align=center;verticalAlign=middle;spacing=0;"
            return _vertex(card.key, rows, style, card.rect, clean(gate.ports))
        case _:
            return _vertex(card.key, rows, "text;", card.rect)


def _row(words: str, size: float, bold: bool, colour: str, mark: Mark | None) -> str:
    text = _words(words, size, bold, colour)
    if mark is None:
        return text
    its = (
        STATE_COLOURS[mark.state]
        if mark.state
        else MUTED
        if mark.network is None
        else network_colour(mark.network)
    )
    return f'<font color="{its}">■</font> {text}'


def _words(words: str, size: float, bold: bool, colour: str) -> str:
    text = f'<font style="font-size:{size:g}px" color="{colour}">{escape(words)}</font>'
    return f"<b>{text}</b>" if bold else text


def _vertex(key: str, value: str, style: str, rect: Rect, tip: str = "") -> str:
    place = {"x": rect.left, "y": rect.top, "width": rect.width, "height": rect.height}
    geometry = attributes({name: number(value) for name, value in place.items()})
    inner = f'<mxGeometry{geometry} as="geometry"/>'
    if tip:
        named = attributes({"label": value, "tooltip": tip, "id": key})
        cell = f'<mxCell style="{_BASE}{style}" vertex="1" parent="1">{inner}</mxCell>'
        return f"<UserObject{named}>{cell}</UserObject>"
    named = attributes({"id": key, "value": value, "style": _BASE + style})
    return f'<mxCell{named} vertex="1" parent="1">{inner}</mxCell>'


def _joined(layout: Layout) -> Iterator[tuple[str, str, Role]]:
    """Each box and gate that a line joins; draw.io leads the line itself."""
    for card in layout.cards:
        if isinstance(card.of, Gate):
            both = set(card.of.sources) & set(card.of.targets)
            for box in dict.fromkeys((*card.of.sources, *card.of.targets)):
                is_source = box in card.of.sources
                yield card.key, box, Role.BOTH if box in both else Role.SOURCE if is_source else Role.TARGET


def _edge(key: str, joined: tuple[str, str, Role]) -> str:
    gate, box, role = joined
    ends = (box, gate) if role is Role.SOURCE else (gate, box)
    style = f"html=1;curved=1;strokeColor={edge_colour(gate)};strokeWidth=1.5;{_HEADS[role]}"
    named = attributes({"id": key, "style": style, "source": ends[0], "target": ends[1]})
    return f'<mxCell{named} edge="1" parent="1"><mxGeometry relative="1" as="geometry"/></mxCell>'
