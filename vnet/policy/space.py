"""Sets of packets: a cube of fixed header bits, with holes cut out of it.

Enough arithmetic to ask what is left of a set of packets after higher flows took theirs, and to name
one packet of what is left. Based on header space analysis (Kazemian, Varghese, McKeown, NSDI 2012),
with subtraction kept lazy: holes are only resolved when a witness is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
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

    def meet(self, cube: Cube) -> Region | None:
        """The packets of the region that are in `cube` too; None when that is easily seen to be empty."""
        both = meet(self.cube, cube)
        return None if both is None else _region(both, self.holes)

    def minus(self, cube: Cube) -> Region | None:
        """The packets of the region that are not in `cube`; None when that is easily seen to be empty."""
        hole = beyond(cube, self.cube)
        if hole is None:
            return self
        return Region(self.cube, (*self.holes, hole)) if hole else None

    def some(self) -> Cube | None:
        """A cube that lies wholly within the region; None when the region is empty."""
        return _outside(self.cube, self.holes)

    def preferring(self, *wishes: Cube) -> Region:
        """The region narrowed by each wish that leaves something of it."""
        kept = self
        for wish in wishes:
            narrower = kept.meet(wish)
            if narrower is not None and narrower.some() is not None:
                kept = narrower
        return kept


def _region(cube: Cube, holes: Iterable[Cube]) -> Region | None:
    rest = [hole for hole in (beyond(each, cube) for each in holes) if hole is not None]
    return None if any(not hole for hole in rest) else Region(cube, tuple(rest))


def _outside(cube: Cube, holes: tuple[Cube, ...]) -> Cube | None:
    """Some part of the cube that meets no hole.

    Takes the hole that demands least, and leaves it through each of its bits in turn: the packets
    that differ in the first bit, those that agree there and differ in the second, and so on.
    """
    region = _region(cube, holes)
    if region is None or not region.holes:
        return None if region is None else region.cube
    hole, *others = sorted(region.holes, key=_bits)
    agreed = region.cube
    for name, bit, value in _each_bit(hole):
        out = meet(agreed, {name: (value ^ bit, bit)})
        found = None if out is None else _outside(out, tuple(others))
        if found is not None:
            return found
        agreed = meet(agreed, {name: (value, bit)}) or agreed
    return None


def _bits(cube: Cube) -> int:
    return sum(mask.bit_count() for _, mask in cube.values())


def _each_bit(cube: Cube) -> Iterable[tuple[str, int, int]]:
    """(field, bit, the bit's value in the cube), the highest bit of each field first."""
    for name, (value, mask) in sorted(cube.items()):
        while mask:
            bit = 1 << mask.bit_length() - 1
            yield name, bit, value & bit
            mask ^= bit
