"""What is written in boxes, gates and signs, and how large that makes them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from vnet.picture.geometry import Card, Mark, Rect, Row
from vnet.picture.palette import INK, MUTED
from vnet.picture.scene import Box, Gate, Scene, Sign, State
from vnet.picture.text import broken, clean, elided, listed, width
from vnet.picture.views import View

SMALL, NORMAL = 11.0, 13.0
PAD = 9.0
MARKED = 15.0
"""How far a mark moves the words behind it."""
BOX_MIN, BOX_MAX, GATE_MAX, SIGN_MAX = 92.0, 270.0, 168.0, 190.0
_STEP = 1.38
"""From one baseline to the next, as a part of the font's size."""


def box_card(box: Box, scene: Scene) -> Card:
    """A VM: its name, how many, state, NICs, groups."""
    networks = {sign.name: sign.number for sign in scene.signs}
    return _card(box.key, box, tuple(_box_rows(box, scene, networks)), BOX_MIN)


def _box_rows(box: Box, scene: Scene, networks: Mapping[str, int]) -> Iterator[Row]:
    room = BOX_MAX - 2 * PAD
    for words in broken(clean(box.name), NORMAL, room, bold=True, lines=3):
        yield Row(words, 0, 0, NORMAL, bold=True)
    if box.count > 1:
        yield Row(f"× {box.count} alike", 0, 0, SMALL, bold=True, colour=INK)
    for told in box.about:
        for words in broken(clean(told), SMALL, room, lines=2):
            yield Row(words, 0, 0, SMALL, colour=MUTED)
    for state, count in box.states.items():
        words = state.value if box.count == 1 else f"{count} {state.value}"
        yield Row(words, MARKED, 0, SMALL, mark=Mark(state=state))
    if scene.view is not View.POLICY:
        for line in box.lines:
            yield from _line_rows(line.nic, line.network, line.addresses, networks, room)
        for copied in box.copies:
            for words in broken(clean(copied), SMALL, room, lines=2):
                yield Row(words, 0, 0, SMALL, colour=MUTED)
    if box.groups:
        told = f"group{'s' if len(box.groups) > 1 else ''}: {', '.join(box.groups)}"
        for words in listed(clean(told), SMALL, room, lines=3):
            yield Row(words, 0, 0, SMALL, colour=MUTED)


def _line_rows(
    nic: str, network: str, addresses: Sequence[str], networks: Mapping[str, int], room: float
) -> Iterator[Row]:
    """A NIC: mark, name and network, then its addresses; the first on the same line where it fits."""
    head = f"{clean(nic)} {elided(clean(network), SMALL, room * 0.55)}".strip()
    mark = Mark(network=networks.get(network))
    first = f"{head}  {addresses[0]}" if addresses else head
    rest = addresses[1:]
    if width(first, SMALL) > room - MARKED:
        first, rest = elided(head, SMALL, room - MARKED), addresses
    yield Row(first, MARKED, 0, SMALL, mark=mark)
    for address in rest:
        for words in broken(address, SMALL, room - MARKED, lines=2):
            yield Row(words, MARKED, 0, SMALL, colour=MUTED)


def gate_card(gate: Gate) -> Card:
    """What may be opened."""
    lines = listed(clean(gate.ports), SMALL, GATE_MAX - 2 * PAD, bold=gate.is_all, lines=4)
    return _card(gate.key, gate, tuple(Row(words, 0, 0, SMALL, bold=gate.is_all) for words in lines), 0)


def sign_card(sign: Sign) -> Card:
    """A network's name, VLAN and subnets."""
    room = SIGN_MAX - 2 * PAD
    names = broken(clean(sign.name), NORMAL, room - MARKED, bold=True, lines=3)
    rows = [Row(words, MARKED, 0, NORMAL, bold=True) for words in names]
    rows[0] = replace(rows[0], mark=Mark(network=sign.number))
    for line in sign.lines:
        rows += [
            Row(words, MARKED, 0, SMALL, colour=MUTED)
            for words in broken(clean(line), SMALL, room - MARKED, lines=2)
        ]
    return _card(f"n{sign.number + 1}", sign, tuple(rows), 0)


def heading_card(key: str, words: str) -> Card:
    """What a band is called that is no network: several of them, or a group."""
    lines = broken(clean(words), SMALL, SIGN_MAX - 2 * PAD, bold=True, lines=4)
    return _card(key, None, tuple(Row(line, 0, 0, SMALL, bold=True, colour=MUTED) for line in lines), 0)


def _card(key: str, of: Box | Gate | Sign | None, rows: Sequence[Row], least: float) -> Card:
    """Rows one below the other."""
    base, placed = PAD, list[Row]()
    for row in rows:
        base += row.size if not placed else row.size * _STEP
        placed.append(replace(row, left=PAD + row.left, base=base))
    wide = max((row.left + width(row.words, row.size, row.bold) for row in rows), default=0) + 2 * PAD
    return Card(key, of, Rect(0, 0, max(wide, least), base + PAD), tuple(placed))


def legend(scene: Scene) -> Iterator[State]:
    """The states that occur."""
    shown = {state for box in scene.boxes for state in box.states}
    return (state for state in State if state in shown)
