"""A scene as a Mermaid flowchart, for Markdown pages. Source: mermaid.js.org/syntax/flowchart.html."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from vnet.picture.beyond import Kind
from vnet.picture.lanes import Lane, lanes_of
from vnet.picture.palette import FILLS, INK, PAPER, STATE_COLOURS
from vnet.picture.scene import Gate, Scene
from vnet.picture.text import clean
from vnet.picture.words import box_words, sign_words

_PLAIN = frozenset(" .,:/+-_…×()")


def mermaid(scene: Scene) -> str:
    """The whole file."""
    return "\n".join(_lines(scene)) + "\n"


def _lines(scene: Scene) -> Iterator[str]:
    yield "flowchart LR"
    for number, lane in enumerate(lanes_of(scene)):
        yield from _lane(number, lane, scene)
    for gate in scene.gates:
        yield from _gate(gate)
    for kind in dict.fromkeys(box.kind for box in scene.boxes if box.kind is not Kind.VM):
        keys = ",".join(box.key for box in scene.boxes if box.kind is kind)
        yield f"  classDef {kind} fill:{FILLS[kind]},color:{INK},stroke:{INK}"
        yield f"  class {keys} {kind}"
    for state in dict.fromkeys(box.state for box in scene.boxes if box.state):
        keys = ",".join(box.key for box in scene.boxes if box.state is state)
        name = state.name.lower()
        yield f"  classDef {name} fill:{PAPER},color:{INK},stroke:{STATE_COLOURS[state]},stroke-width:2px"
        yield f"  class {keys} {name}"


def _lane(number: int, lane: Lane, scene: Scene) -> Iterator[str]:
    boxes = [f"{box.key}[{_text(box_words(box, scene))}]" for box in lane.boxes]
    if lane.heading is None or not boxes:
        yield from (f"  {line}" for line in boxes)
        return
    signs = [sign for sign in scene.signs if (sign.name,) == lane.of]
    told = sign_words(signs[0]) if signs else (lane.name,)
    yield f"  subgraph s{number}[{_text(told)}]"
    yield from (f"    {line}" for line in boxes)
    yield "  end"


def _gate(gate: Gate) -> Iterator[str]:
    words, thick = _text((clean(gate.ports),)), gate.is_all
    if len(gate.sources) == len(gate.targets) == 1:
        yield f"  {gate.sources[0]} {'==>' if thick else '-->'}|{words}| {gate.targets[0]}"
        return
    yield f"  {gate.key}([{words}])"
    for source in gate.sources:
        if source not in gate.targets:
            yield f"  {source} {'===' if thick else '---'} {gate.key}"
    for target in gate.targets:
        arrow = ("<==>" if thick else "<-->") if target in gate.sources else ("==>" if thick else "-->")
        yield f"  {gate.key} {arrow} {target}"


def _text(lines: Iterable[str]) -> str:
    """Lines as one quoted label; what Mermaid, HTML or Markdown could understand is written by number."""
    return '"' + "<br/>".join("".join(map(_character, line)) for line in lines) + '"'


def _character(letter: str) -> str:
    return letter if letter.isalnum() or letter in _PLAIN else f"#{ord(letter)};"
