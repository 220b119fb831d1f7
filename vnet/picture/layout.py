"""Gives everything in a picture its place. The same scene gives the same layout.

Bands lie below each other, one for each network or set of networks (`lanes`). Across them run columns
(`layers`): boxes in even ones, what they may open (gates) in odd ones, so that a label is a thing with
a place of its own. A line that has to pass a column gets a slot there as if it were a thing too. So
lines bend only between columns, where nothing else is, and run over no box and no label. VMs that no
line leads to stand to the right of all columns.

Source: the layered method of Sugiyama, Tagawa and Toda (1981), with slots that all lines of a gate
share.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil

from vnet.picture.cards import box_card, gate_card
from vnet.picture.frame import Part, packed
from vnet.picture.geometry import Band, Bus, Card, Layout, Point, Rect, Role, Wire
from vnet.picture.lanes import Block, Lane, blocks, is_joined
from vnet.picture.layers import columns
from vnet.picture.place import Interval, Item, by_lane, order, room, spread
from vnet.picture.scene import Gate, Scene

GAP, PAD, BAND_GAP = 14.0, 14.0, 10.0
TRACK, STUB, FIRST_STUB = 12.0, 9.0, 25.0
"""Between two lines of networks, and between two of their branches."""
SLOT = 2.0
BEND_MIN, BEND_MAX, BEND_LINE = 50.0, 150.0, 2.0
"""The room between two columns: at least, at most, and for each line that bends there."""
ASIDE = 22.0
ASPECT = 1.5
MOST_ACROSS = 40
ROLE_APART = 8.0
"""How far apart lines of different roles end at one side of a thing."""


def layout(scene: Scene) -> Layout:
    """The layout of a scene."""
    cards = {box.key: box_card(box, scene) for box in scene.boxes}
    wide = max((card.rect.width for card in cards.values()), default=0)
    cards = {key: replace(card, rect=replace(card.rect, width=wide)) for key, card in cards.items()}
    numbers = {sign.name: sign.number for sign in scene.signs} if is_joined(scene) else {}
    return packed([_Block(block, cards, numbers).part() for block in blocks(scene)], scene)


@dataclass(frozen=True, slots=True)
class _Link:
    """A line from a thing to one in the next column, nearer to the gate; `box` only if it ends at one."""

    gate: str
    box: str
    role: Role
    outer: Item
    inner: Item


class _Block:
    """One block on its way to a place."""

    def __init__(self, block: Block, cards: Mapping[str, Card], numbers: Mapping[str, int]) -> None:
        """`numbers` are those of the networks whose bands are to be joined."""
        self._lanes, self._gates, self._cards = block.lanes, block.gates, cards
        joined = {key for gate in block.gates for key in (*gate.sources, *gate.targets)}
        self._lane_of = {box.key: number for number, lane in enumerate(block.lanes) for box in lane.boxes}
        self._asides = [
            [cards[box.key] for box in lane.boxes if box.key not in joined] for lane in block.lanes
        ]
        uses = Counter(name for lane in block.lanes for name in lane.of)
        self._numbers = {name: number for name, number in numbers.items() if uses[name] > 1}
        self._items: dict[int, list[Item]] = defaultdict(list)
        self._links: list[_Link] = []
        self._roles: dict[tuple[int, bool], set[Role]] = defaultdict(set)
        """Which lines end at the right or left side of a thing."""
        self._place_in_columns([key for key in self._lane_of if key in joined])

    def part(self) -> Part:
        """The block with everything in its place, as many VMs without lines side by side as look best."""
        self._fill_up()
        order(self._items, len(self._lanes))
        most = max((len(cards) for cards in self._asides), default=0)
        tries = [self._grid(across) for across in range(1, max(1, min(most, MOST_ACROSS)) + 1)]
        grid = min(tries, key=lambda each: max(each.width / ASPECT, each.height))
        spread(self._items, [grid.interval(number) for number in range(len(self._lanes))])
        return Part(
            grid.width,
            grid.height,
            tuple(Band(rect) for rect, lane in zip(grid.bands, self._lanes, strict=True) if lane.heading),
            tuple(self._buses(grid)),
            tuple(self._wire(link, grid) for link in self._links),
            (*grid.cards(), *self._placed(grid)),
        )

    # things and lines

    def _place_in_columns(self, joined: Sequence[str]) -> None:
        found = {}
        place = columns(joined, self._gates)
        for key in joined:
            found[key] = _item(self._cards[key], place[key], self._lane_of[key])
        for gate in self._gates:
            lanes = [self._lane_of[key] for key in (*gate.sources, *gate.targets)]
            found[gate.key] = _item(gate_card(gate), place[gate.key], round(sum(lanes) / len(lanes)))
        for item in found.values():
            self._items[item.column].append(item)
        for gate in self._gates:
            self._join(gate, found)

    def _join(self, gate: Gate, found: Mapping[str, Item]) -> None:
        """Lead a line to each of a gate's boxes, through slots in the columns between that they share."""
        both, sources = set(gate.sources) & set(gate.targets), set(gate.sources)
        slots: dict[tuple[Role, int], Item] = {}
        for key in dict.fromkeys((*gate.sources, *gate.targets)):
            role = Role.BOTH if key in both else Role.SOURCE if key in sources else Role.TARGET
            outer, end, box = found[key], found[gate.key], key
            step = 1 if end.column > outer.column else -1
            for column in range(outer.column + step, end.column, step):
                shared = slots.get((role, column))
                slot = shared or self._slot(column, end.lane)
                slots[role, column] = slot
                self._link(_Link(gate.key, box, role, outer, slot))
                if shared:
                    break
                outer, box = slot, ""
            else:
                self._link(_Link(gate.key, box, role, outer, end))

    def _slot(self, column: int, lane: int) -> Item:
        slot = Item(column, lane, 0, SLOT)
        self._items[column].append(slot)
        return slot

    def _link(self, link: _Link) -> None:
        self._links.append(link)
        link.outer.near.append(link.inner)
        link.inner.near.append(link.outer)
        forward = link.inner.column > link.outer.column
        self._roles[id(link.outer), forward].add(link.role)
        self._roles[id(link.inner), not forward].add(link.role)

    def _fill_up(self) -> None:
        """Put VMs that no line leads to where columns of boxes have room left in their bands."""
        tall = self._tall()
        for number, cards in enumerate(self._asides):
            heading = self._lanes[number].heading
            limit = max(tall[number], heading.rect.height - PAD if heading else 0)
            while cards:
                filled = {
                    column: [i for i in items if i.lane == number] for column, items in self._items.items()
                }
                fitting = [
                    (room([*items, item]), column, item)
                    for column, items in filled.items()
                    if column % 2 == 0 and room([*items, item := _item(cards[0], column, number)]) <= limit
                ]
                if not fitting:
                    break
                _, column, item = min(fitting, key=lambda each: each[:2])
                self._items[column].append(item)
                del cards[0]

    def _tall(self) -> list[float]:
        """How high the things in each band are at most."""
        tall = [0.0] * len(self._lanes)
        for items in self._items.values():
            for number, those in enumerate(by_lane(items, len(self._lanes))):
                tall[number] = max(tall[number], room(those))
        return tall

    # shape

    def _grid(self, across: int) -> _Grid:
        bends = Counter(min(link.outer.column, link.inner.column) for link in self._links)
        widths = {column: max(item.width for item in items) for column, items in self._items.items()}
        lines = {
            number: [n for n in lane.of if n in self._numbers] for number, lane in enumerate(self._lanes)
        }
        tall = [
            max(high, (len(lines[number]) - 1) * STUB + FIRST_STUB - PAD)
            for number, high in enumerate(self._tall())
        ]
        return _Grid(self._lanes, self._asides, across, tall, widths, bends, self._tracks())

    def _tracks(self) -> Mapping[str, int]:
        """Which line each network has, counted from the bands; networks that do not meet share one."""
        spans: dict[str, tuple[int, int]] = {}
        for number, lane in enumerate(self._lanes):
            for name in lane.of:
                if name in self._numbers:
                    spans[name] = spans.get(name, (number, number))[0], number
        taken: list[list[tuple[int, int]]] = []
        found = {}
        for name, (first, last) in sorted(
            spans.items(), key=lambda each: (each[1][1] - each[1][0], each[1], each[0])
        ):
            free = (n for n, those in enumerate(taken) if all(last < a or b < first for a, b in those))
            track = next(free, len(taken))
            taken += [[]] * (track == len(taken))
            taken[track] = [*taken[track], (first, last)]
            found[name] = track
        return found

    # places

    def _placed(self, grid: _Grid) -> Iterator[Card]:
        for column, items in self._items.items():
            left, right = grid.columns[column]
            for item in items:
                item.left = (left + right - item.width) / 2
                if item.card:
                    yield replace(item.card, rect=Rect(item.left, item.top, item.width, item.height))

    def _wire(self, link: _Link, grid: _Grid) -> Wire:
        """From the outer thing straight to the edge of its column, then by a bend to the inner thing."""
        forward = link.inner.column > link.outer.column
        outer, inner = (grid.columns[item.column] for item in (link.outer, link.inner))
        here, there = (outer[1], inner[0]) if forward else (outer[0], inner[1])
        start = _side(link.outer, outer, forward)
        end = there if link.inner.is_slot else _side(link.inner, inner, not forward)
        if link.outer.is_slot:
            start = outer[0] if forward else outer[1]
        one = link.outer.middle + self._shift(link.outer, forward, link.role)
        other = link.inner.middle + self._shift(link.inner, not forward, link.role)
        points = ((start, one), (here, one), (there, other), (end, other))
        kept = [point for number, point in enumerate(points) if not number or point != points[number - 1]]
        return Wire(link.gate, link.box, link.role, tuple(kept), not link.inner.is_slot)

    def _shift(self, item: Item, right: bool, role: Role) -> float:
        """How far from a thing's middle lines of a role end: those of several roles keep apart."""
        roles = [each for each in Role if each in self._roles[id(item), right]]
        return 0 if item.is_slot else ROLE_APART * (roles.index(role) - (len(roles) - 1) / 2)

    def _buses(self, grid: _Grid) -> Iterator[Bus]:
        stubs: dict[str, list[Point]] = defaultdict(list)
        for rect, lane in zip(grid.bands, self._lanes, strict=True):
            named = [name for name in lane.of if name in self._numbers]
            start = rect.top + FIRST_STUB
            for place, name in enumerate(named):
                stubs[name].append((rect.left, start + place * STUB))
        tracks = self._tracks()
        for name, points in stubs.items():
            yield Bus(self._numbers[name], name, grid.left - (tracks[name] + 1) * TRACK, tuple(points))


def _item(card: Card, column: int, lane: int) -> Item:
    return Item(column, lane, card.rect.width, card.rect.height, card)


def _side(item: Item, column: tuple[float, float], right: bool) -> float:
    """The x of one side of a thing in the middle of its column."""
    return (sum(column) + (item.width if right else -item.width)) / 2


class _Grid:
    """Bands and columns of a block, once it is decided how many VMs without lines stand side by side."""

    def __init__(
        self,
        lanes: Sequence[Lane],
        asides: Sequence[Sequence[Card]],
        across: int,
        tall: Sequence[float],
        widths: Mapping[int, float],
        bends: Mapping[int, int],
        tracks: Mapping[str, int],
    ) -> None:
        self._lanes, self._asides, self._across = lanes, asides, across
        self.left = (max(tracks.values()) + 1) * TRACK + TRACK / 2 if tracks else 0.0
        """Where bands begin."""
        headings = [lane.heading.rect.width for lane in lanes if lane.heading]
        x = self.left + (PAD + max(headings) if headings else 0)
        self.columns: dict[int, tuple[float, float]] = {}
        for column in range(max(widths, default=-1) + 1):
            x += min(BEND_MAX, BEND_MIN + BEND_LINE * bends.get(column - 1, 0)) if column else PAD
            self.columns[column] = x, x + widths.get(column, 0)
            x = self.columns[column][1]
        self._aside = x + (ASIDE if widths else PAD)
        wide = max((card.rect.width for cards in asides for card in cards), default=0)
        most = min(across, max(map(len, asides), default=0))
        self._step = wide + GAP
        self.width = (self._aside + most * self._step - GAP if most else x) + PAD
        self.bands = tuple(self._bands(tall))
        self.height = self.bands[-1].bottom if self.bands else 0.0

    def _bands(self, tall: Sequence[float]) -> Iterator[Rect]:
        top = 0.0
        for lane, cards, high in zip(self._lanes, self._asides, tall, strict=True):
            heading = lane.heading.rect.height if lane.heading else 0
            inside = max(high, self._aside_height(cards), heading - PAD)
            yield Rect(self.left, top, self.width - self.left, inside + 2 * PAD)
            top += inside + 2 * PAD + BAND_GAP

    def _rows(self, cards: Sequence[Card]) -> Iterator[Sequence[Card]]:
        """VMs without lines, row by row, as even as can be."""
        if cards:
            across = ceil(len(cards) / ceil(len(cards) / self._across))
            yield from (cards[start : start + across] for start in range(0, len(cards), across))

    def _aside_height(self, cards: Sequence[Card]) -> float:
        rows = list(self._rows(cards))
        return sum(max(card.rect.height for card in row) for row in rows) + GAP * max(0, len(rows) - 1)

    def interval(self, number: int) -> Interval:
        """Between which heights the things of a lane stand."""
        band = self.bands[number]
        return band.top + PAD, band.bottom - PAD

    def cards(self) -> Iterator[Card]:
        """The headings, and the VMs that no line leads to."""
        for band, lane, cards in zip(self.bands, self._lanes, self._asides, strict=True):
            if lane.heading:
                yield replace(
                    lane.heading, rect=lane.heading.rect.moved(band.left + PAD / 2, band.top + PAD / 2)
                )
            top = band.top + PAD
            for row in self._rows(cards):
                for place, card in enumerate(row):
                    yield replace(card, rect=card.rect.moved(self._aside + place * self._step, top))
                top += max(card.rect.height for card in row) + GAP
