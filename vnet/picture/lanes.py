"""Which VMs stand side by side: a band for each network and each set of networks that VMs are on, or of
groups.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vnet.picture.beyond import Kind
from vnet.picture.cards import heading_card, sign_card
from vnet.picture.geometry import Card
from vnet.picture.scene import MANY_BANDS, Box, Gate, Scene, Sign, bands
from vnet.picture.text import clean
from vnet.picture.views import GroupBy
from vnet.policy.identity import told


@dataclass(frozen=True, slots=True)
class Lane:
    """One band: the names of its networks or groups, what is written at its left, its VMs."""

    of: tuple[str, ...]
    heading: Card | None
    boxes: tuple[Box, ...]

    @property
    def name(self) -> str:
        """What it is called where no sign of a network says so."""
        return " + ".join(map(clean, self.of)) or ("outside" if _is_outside(self.boxes) else "others")


@dataclass(frozen=True, slots=True)
class Block:
    """Lanes that networks or openings join: what can be drawn without looking at the rest."""

    lanes: tuple[Lane, ...]
    gates: tuple[Gate, ...]


def blocks(scene: Scene) -> tuple[Block, ...]:
    """The parts of a scene, in the order of the file."""
    lanes = lanes_of(scene)
    lane_of = {box.key: number for number, lane in enumerate(lanes) for box in lane.boxes}
    joined = _Joined(len(lanes))
    homes = {lane.of: number for number, lane in enumerate(lanes)}
    for number, lane in enumerate(lanes):
        if is_joined(scene):
            joined.join([number, *(homes[name,] for name in lane.of if (name,) in homes)])
    for gate in scene.gates:
        joined.join([lane_of[key] for key in (*gate.sources, *gate.targets)])
    return tuple(
        Block(
            tuple(lanes[number] for number in members),
            tuple(gate for gate in scene.gates if lane_of[gate.sources[0]] in members),
        )
        for members in joined.sets()
    )


def is_joined(scene: Scene) -> bool:
    """Whether lines at the left join the bands of a network."""
    return scene.grouping is GroupBy.NETWORK and bands(scene.signs, scene.boxes) <= MANY_BANDS


def lanes_of(scene: Scene) -> list[Lane]:
    """The bands, as the scene's grouping wants them."""
    match scene.grouping:
        case GroupBy.NETWORK:
            return _by_network(scene)
        case GroupBy.GROUP:
            sets = _sets((box.groups, box) for box in scene.boxes)
            return [
                Lane(of, heading_card(f"l{number}", " + ".join(of) or "in no group"), tuple(sets[of]))
                for number, of in enumerate(sorted(sets, key=lambda of: not of))
            ]
        case GroupBy.NONE:
            return _by_opening(scene)


def _by_opening(scene: Scene) -> list[Lane]:
    """Those whom openings join, each such set by itself; those who have none together."""
    places = {box.key: number for number, box in enumerate(scene.boxes)}
    joined = _Joined(len(scene.boxes))
    for gate in scene.gates:
        joined.join([places[key] for key in (*gate.sources, *gate.targets)])
    met = {key for gate in scene.gates for key in (*gate.sources, *gate.targets)}
    sets = [tuple(scene.boxes[number] for number in numbers) for numbers in joined.sets()]
    lanes = [Lane((), None, boxes) for boxes in sets if boxes[0].key in met]
    rest = tuple(box for box in scene.boxes if box.key not in met)
    return [*lanes, Lane((), None, rest)] if rest else lanes


def _by_network(scene: Scene) -> list[Lane]:
    """Each network in file order, below it the VMs on it and others.

    Where networks are many these stand in the band of their first one, and the signs of the others say so.
    """
    sets = _sets((_in_order(box.networks, scene), box) for box in scene.boxes)
    if not is_joined(scene):
        return [*_crowded(scene, sets)]
    lanes = []
    for sign in scene.signs:
        lanes.append(Lane((sign.name,), sign_card(sign), tuple(sets.pop((sign.name,), ()))))
        for of in [each for each in sets if each and each[0] == sign.name]:
            lanes.append(Lane(of, heading_card(f"l{len(lanes)}", _together(of)), tuple(sets.pop(of))))
    for of, boxes in sets.items():
        lanes.append(Lane(of, heading_card(f"l{len(lanes)}", _together(of) or _nowhere(boxes)), tuple(boxes)))
    return lanes


def _crowded(scene: Scene, sets: Mapping[tuple[str, ...], Sequence[Box]]) -> Iterator[Lane]:
    signs = {sign.name: sign for sign in scene.signs}
    for number, name in enumerate(dict.fromkeys((*signs, *(of[0] for of in sets if of)))):
        here = tuple(box for of, boxes in sets.items() for box in boxes if of[:1] == (name,))
        guests = [box.name for of, boxes in sets.items() for box in boxes if name in of[1:]]
        heading = _sign(signs[name], guests) if name in signs else heading_card(f"l{number}", name)
        yield Lane((name,), heading, here)
    nowhere = tuple(box for of, boxes in sets.items() for box in boxes if not of)
    if nowhere:
        yield Lane((), heading_card("nowhere", _nowhere(nowhere)), nowhere)


def _nowhere(boxes: Sequence[Box]) -> str:
    return "outside" if _is_outside(boxes) else "on no network"


def _is_outside(boxes: Sequence[Box]) -> bool:
    return all(box.kind is Kind.OUTSIDE for box in boxes)


def _sign(sign: Sign, guests: Sequence[str]) -> Card:
    """A network's sign that also names those who stand elsewhere."""
    return sign_card(replace(sign, lines=(*sign.lines, f"also {told(guests)}")) if guests else sign)


def _in_order(networks: Iterable[str], scene: Scene) -> tuple[str, ...]:
    places = {sign.name: sign.number for sign in scene.signs}
    return tuple(sorted(set(networks), key=lambda name: (places.get(name, len(places)), name)))


def _together(of: Sequence[str]) -> str:
    return " + ".join(of) if len(of) <= 3 else told(of)


def _sets(boxes: Iterable[tuple[tuple[str, ...], Box]]) -> dict[tuple[str, ...], list[Box]]:
    found: dict[tuple[str, ...], list[Box]] = {}
    for of, box in boxes:
        found.setdefault(of, []).append(box)
    return found


class _Joined:
    """Numbers in disjoint sets."""

    def __init__(self, count: int) -> None:
        self._first = list(range(count))

    def join(self, numbers: Sequence[int]) -> None:
        """Put the sets of these numbers together."""
        roots = {self._root(number) for number in numbers}
        for root in roots:
            self._first[root] = min(roots)

    def _root(self, number: int) -> int:
        while self._first[number] != number:
            number = self._first[number]
        return number

    def sets(self) -> list[list[int]]:
        """All sets, by their lowest number."""
        found: dict[int, list[int]] = {}
        for number in range(len(self._first)):
            found.setdefault(self._root(number), []).append(number)
        return list(found.values())
