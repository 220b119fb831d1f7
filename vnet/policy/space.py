"""Sets of packets: a cube of fixed header bits, with holes cut out of it.

Enough arithmetic to ask what is left of a set of packets after higher flows took theirs, and to name
one packet of what is left. Based on header space analysis (Kazemian, Varghese, McKeown, NSDI 2012),
with subtraction kept lazy: holes are only resolved when a witness is asked for.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field

from vnet.openflow.fields import FIELDS

Cube = Mapping[str, tuple[int, int]]
"""Field to (value, mask): the packets whose bits under the masks have these values."""


def exactly(**values: int) -> Cube:
    """The cube of packets with these field values."""
    return {name: (value, FIELDS[name].full_mask) for name, value in values.items()}


def meet(one: Cube, other: Cube) -> Cube | None:
    """The packets in both cubes; None when there are none."""
    both = dict(one)
    for name, (value, mask) in other.items():
        known, fixed = both.get(name, (0, 0))
        if (value ^ known) & mask & fixed:
            return None
        both[name] = known | value & mask, fixed | mask
    return both


def beyond(cube: Cube, frame: Cube) -> Cube | None:
    """What `cube` demands of packets that are known to be in `frame`: {} nothing, None the impossible."""
    rest = {}
    for name, (value, mask) in cube.items():
        known, fixed = frame.get(name, (0, 0))
        if (value ^ known) & mask & fixed:
            return None
        if mask & ~fixed:
            rest[name] = value & ~fixed, mask & ~fixed
    return rest


@dataclass(frozen=True, slots=True)
class Region:
    """The packets of `cube` that are in none of the `holes`."""

    cube: Cube = field(default_factory=dict)
    holes: tuple[Cube, ...] = ()

    @property
    def key(self) -> Hashable:
        """Equal for equal cubes and holes."""
        return frozenset(self.cube.items()), frozenset(frozenset(hole.items()) for hole in self.holes)

    def meet(self, cube: Cube) -> Region | None:
        """The packets of the region that are in `cube` too; None when that is easily seen to be empty."""
        more = beyond(cube, self.cube)
        if more is None:
            return None
        if not more:
            return self
        holes = []
        for hole in self.holes:
            rest = hole if hole.keys().isdisjoint(more) else beyond(hole, more)
            if rest is not None:
                holes.append(rest)
                if not rest:
                    return None
        return Region(_with(self.cube, more), tuple(holes))

    def minus(self, cube: Cube) -> Region | None:
        """The packets of the region that are not in `cube`; None when that is easily seen to be empty."""
        hole = beyond(cube, self.cube)
        if hole is None:
            return self
        return Region(self.cube, (*self.holes, hole)) if hole else None

    def some(self) -> Cube | None:
        """A cube that lies wholly within the region; None when the region is empty."""
        return _outside(self.cube, [(_bits(hole), hole) for hole in self.holes])

    def preferring(self, *wishes: Cube) -> Region:
        """The region narrowed by each wish that leaves something of it."""
        kept = self
        for wish in wishes:
            narrower = kept.meet(wish)
            if narrower is not None and narrower.some() is not None:
                kept = narrower
        return kept


def _with(cube: Cube, more: Cube) -> Cube:
    """The packets of a cube that have these bits as well, of which it fixes none."""
    both = dict(cube)
    for name, (value, mask) in more.items():
        known, fixed = both.get(name, (0, 0))
        both[name] = known | value, fixed | mask
    return both


_Hole = tuple[int, Cube]
"""How many bits it demands, and which; none of them is fixed by the cube that it is in."""


def _outside(cube: Cube, holes: list[_Hole]) -> Cube | None:
    """Some part of the cube that meets no hole.

    Takes the hole that demands least, and leaves it through each of its bits in turn: the packets
    that differ in the first bit, those that agree there and differ in the second, and so on.
    """
    if not holes:
        return cube
    least = min(range(len(holes)), key=lambda place: holes[place][0])
    others: list[_Hole] | None = [*holes[:least], *holes[least + 1 :]]
    for name, bit, value in _each_bit(holes[least][1]):
        assert others is not None
        left = _where(others, name, bit, value ^ bit)
        found = None if left is None else _outside(_with(cube, {name: (value ^ bit, bit)}), left)
        if found is not None:
            return found
        others = _where(others, name, bit, value)
        if others is None:
            return None
        cube = _with(cube, {name: (value, bit)})
    return None


def _where(holes: list[_Hole], name: str, bit: int, value: int) -> list[_Hole] | None:
    """The holes as they are where a bit has a value; None when one of them is everywhere there."""
    left = []
    for bits, hole in holes:
        demanded, mask = hole.get(name, (0, 0))
        if not mask & bit:
            left.append((bits, hole))
        elif demanded & bit == value:
            if bits == 1:
                return None
            rest = {**hole, name: (demanded & ~bit, mask & ~bit)}
            if mask == bit:
                del rest[name]
            left.append((bits - 1, rest))
    return left


def _bits(cube: Cube) -> int:
    return sum(mask.bit_count() for _, mask in cube.values())


def _each_bit(cube: Cube) -> Iterable[tuple[str, int, int]]:
    """(field, bit, the bit's value in the cube), the highest bit of each field first."""
    for name, (value, mask) in sorted(cube.items()):
        while mask:
            bit = 1 << mask.bit_length() - 1
            yield name, bit, value & bit
            mask ^= bit
