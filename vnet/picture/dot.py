"""A scene as a Graphviz graph: `dot -Tsvg`. Graphviz lays it out; the bands are its clusters.

Source: the DOT language, graphviz.org/doc/info/lang.html.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vnet.picture.beyond import Kind
from vnet.picture.lanes import Lane, lanes_of
from vnet.picture.palette import BAND, FILLS, GROUND, INK, MUTED, PAPER, STATE_COLOURS, edge_colour
from vnet.picture.scene import Box, Gate, Scene
from vnet.picture.text import clean
from vnet.picture.words import box_words, full_words, sign_words


def dot(scene: Scene) -> str:
    """The whole file."""
    return "\n".join(_lines(scene)) + "\n"


def _lines(scene: Scene) -> Iterator[str]:
    yield "digraph vnet {"
    title = _text((clean(scene.title), clean(scene.subtitle)), r"\l")
    yield f'  graph [rankdir=LR, label={title}, labelloc=t, labeljust=l, bgcolor="{GROUND}"]'
    yield f'  node [shape=box, style="filled,rounded", fillcolor="{PAPER}", fontname="Verdana", fontsize=10]'
    yield '  edge [fontname="Verdana", fontsize=9]'
    for number, lane in enumerate(lanes_of(scene)):
        yield from _lane(number, lane, scene)
    for gate in scene.gates:
        yield from _gate(gate)
    yield "}"


def _lane(number: int, lane: Lane, scene: Scene) -> Iterator[str]:
    boxes = [_box(box, scene) for box in lane.boxes]
    if lane.heading is None:
        yield from (f"  {line}" for line in boxes)
        return
    signs = [sign for sign in scene.signs if (sign.name,) == lane.of]
    told = sign_words(signs[0]) if signs else (lane.name,)
    yield f"  subgraph cluster_{number} {{"
    yield f'    label={_text(told, chr(92) + "l")}; style="filled,rounded"; color="{BAND}"; labeljust=l'
    yield from (f"    {line}" for line in boxes)
    if not boxes:
        yield f'    empty_{number} [label="", shape=point, style=invis]'
    yield "  }"


def _box(box: Box, scene: Scene) -> str:
    colour = INK if box.state is None else STATE_COLOURS[box.state]
    more = ", peripheries=2" if box.count > 1 else ""
    more += f', fillcolor="{FILLS[box.kind]}"' if box.kind is not Kind.VM else ""
    words, all_words = _text(box_words(box, scene), r"\l"), _text(full_words(box).splitlines(), "; ")
    return f'{box.key} [label={words}, tooltip={all_words}, color="{colour}"{more}]'


def _gate(gate: Gate) -> Iterator[str]:
    colour, words = f'color="{edge_colour(gate.key)}"', _text((clean(gate.ports),), "")
    thick = ", penwidth=2" if gate.is_all else ""
    if len(gate.sources) == len(gate.targets) == 1:
        yield f"  {gate.sources[0]} -> {gate.targets[0]} [label={words}, {colour}{thick}]"
        return
    yield f'  {gate.key} [label={words}, {colour}, fontcolor="{MUTED}", shape=box, margin="0.08,0.02"{thick}]'
    for source in gate.sources:
        if source not in gate.targets:
            yield f"  {source} -> {gate.key} [{colour}, dir=none{thick}]"
    for target in gate.targets:
        both = ", dir=both" if target in gate.sources else ""
        yield f"  {gate.key} -> {target} [{colour}{both}{thick}]"


def _text(lines: Iterable[str], end: str) -> str:
    """Lines as one quoted text, each with the end that justifies it."""
    escaped = (line.replace("\\", "\\\\").replace('"', '\\"') for line in lines)
    return '"' + "".join(line + end for line in escaped) + '"'
