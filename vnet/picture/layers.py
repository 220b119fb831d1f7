"""In which column each box and each gate of a picture stands: who opens connections to the left, servers
to the right.

Boxes stand in even columns, gates in odd ones. A cycle is broken where the fewest lines run backwards,
after Eades, Lin and Smyth, "A fast and effective heuristic for the feedback arc set problem" (1993).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from math import ceil, sqrt

from vnet.picture.scene import Gate

Columns = Mapping[str, int]
LONGEST, SPARSE = 7, 1.5
"""The most columns of boxes, where there are no more gates than so many for each box."""
TALLEST, TALLER = 16, 1.2
"""How many boxes stand one below the other: so many, or so many times the root of their number."""
_BACKWARDS = 1.5
"""How many columns of detour a line that runs backwards is worth."""


def columns(boxes: Sequence[str], gates: Sequence[Gate]) -> Columns:
    """The column of each box and each gate by its key."""
    follows = _follows(gates)
    order = {
        key: number for number, key in enumerate(_sequence([*boxes, *(gate.key for gate in gates)], follows))
    }
    forward = {key: [after for after in follows.get(key, ()) if order[after] > order[key]] for key in order}
    found = dict.fromkeys(boxes, 0) | {gate.key: 1 for gate in gates}
    for key in order:
        for after in forward[key]:
            found[after] = max(found[after], found[key] + 1)
    _pull(boxes, forward, found)
    found = _folded(boxes, gates, _close_up(found))
    found = _split(boxes, found)
    for gate in gates:
        found[gate.key] = _best(gate, found)
    return _close_up(found)


def _follows(gates: Iterable[Gate]) -> Mapping[str, list[str]]:
    """What should stand to the right of what. Those who reach each other alike have no order."""
    found: dict[str, list[str]] = defaultdict(list)
    for gate in gates:
        both = set(gate.sources) & set(gate.targets)
        for source in gate.sources:
            if source not in both:
                found[source].append(gate.key)
        found[gate.key] += [target for target in gate.targets if target not in both]
    return found


def _sequence(keys: Sequence[str], follows: Mapping[str, Sequence[str]]) -> list[str]:
    """All keys so that few edges run backwards: sinks last, sources first, else the most outward."""
    before: dict[str, list[str]] = defaultdict(list)
    for key, afters in follows.items():
        for after in afters:
            before[after].append(key)
    out = {key: len(follows.get(key, ())) for key in keys}
    into = {key: len(before[key]) for key in keys}
    left, first, last = dict.fromkeys(keys), list[str](), list[str]()

    def take(key: str) -> None:
        del left[key]
        for after in follows.get(key, ()):
            into[after] -= 1
        for one in before[key]:
            out[one] -= 1

    while left:
        while sinks := [key for key in left if not out[key]]:
            last += sinks
            for key in sinks:
                take(key)
        while sources := [key for key in left if not into[key]]:
            first += sources
            for key in sources:
                take(key)
        if left:
            key = max(left, key=lambda each: out[each] - into[each])
            first.append(key)
            take(key)
    return first + last[::-1]


def _pull(boxes: Iterable[str], forward: Mapping[str, Sequence[str]], found: dict[str, int]) -> None:
    """Who only opens connections stands next to whom he opens them to."""
    reached = {after for afters in forward.values() for after in afters}
    for box in boxes:
        if box not in reached and forward[box]:
            found[box] = min(found[gate] for gate in forward[box]) - 1


def _best(gate: Gate, found: Mapping[str, int]) -> int:
    """The odd column with the shortest lines to the gate's ends."""
    sources, targets = ([found[key] for key in keys] for keys in (gate.sources, gate.targets))
    low, high = min(*sources, *targets), max(*sources, *targets)

    def cost(column: int) -> float:
        backwards = sum(each > column for each in sources) + sum(each < column for each in targets)
        return sum(abs(column - each) for each in (*sources, *targets)) + _BACKWARDS * backwards

    return min(range(low + 1, max(low, high - 1) + 2, 2), key=cost)


def _folded(boxes: Sequence[str], gates: Sequence[Gate], found: Mapping[str, int]) -> dict[str, int]:
    """With fewer columns where many lines would pass most of them."""
    count = 1 + max((found[box] // 2 for box in boxes), default=0)
    most = LONGEST if len(gates) <= SPARSE * len(boxes) else max(3, round(sqrt(len(boxes))))
    if count <= most:
        return dict(found)
    return {key: column // 2 * most // count * 2 + column % 2 for key, column in found.items()}


def _split(boxes: Sequence[str], found: Mapping[str, int]) -> dict[str, int]:
    """With columns of more boxes than look well made several, side by side."""
    most = max(TALLEST, round(TALLER * sqrt(len(boxes))))
    by_column: dict[int, list[str]] = defaultdict(list)
    for box in boxes:
        by_column[found[box]].append(box)
    placed, starts, start = dict[str, int](), dict[int, int](), 0
    for column in sorted({each // 2 * 2 for each in found.values()}):
        those = by_column[column]
        parts = max(1, ceil(len(those) / most))
        placed |= {box: start + 2 * (place * parts // len(those)) for place, box in enumerate(those)}
        starts[column] = start + 2 * (parts - 1)
        start += 2 * parts
    return {key: placed[key] if key in placed else starts[at // 2 * 2] + at % 2 for key, at in found.items()}


def _close_up(found: Mapping[str, int]) -> dict[str, int]:
    """Without columns that stand empty, boxes in even and gates in odd ones."""
    used = sorted({column // 2 for column in found.values()})
    places = {column: place for place, column in enumerate(used)}
    return {key: 2 * places[column // 2] + column % 2 for key, column in found.items()}
