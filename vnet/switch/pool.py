"""Numbers and ranges to give away and take back: slots of the dataplane's arrays."""

from __future__ import annotations


class Full(Exception):
    """Nothing is left to give away."""


class Numbers:
    """Numbers first…limit-1; one that was given back goes first, so arrays stay dense."""

    def __init__(self, first: int, limit: int) -> None:
        self._next, self._limit = first, limit
        self._free: list[int] = []

    def take(self) -> int:
        """A number nobody holds. Raises `Full`."""
        if self._free:
            return self._free.pop()
        if self._next >= self._limit:
            raise Full
        self._next += 1
        return self._next - 1

    def give_back(self, number: int) -> None:
        """Make a number available again."""
        self._free.append(number)

    def claim(self, numbers: set[int]) -> None:
        """Start with these numbers already taken (adoption). Raises ValueError if there are none such."""
        highest = max(numbers, default=self._next - 1)
        if highest >= self._limit or min(numbers, default=self._next) < self._next:
            raise ValueError(f"there is no number {highest} below {self._limit}")
        self._free = [number for number in range(self._next, highest) if number not in numbers]
        self._next = max(self._next, highest + 1)


class Ranges:
    """Runs of consecutive numbers 0…limit-1.

    A run that was given back serves the next one of its length at once; only when nothing else is left
    are neighbours put together again. Both take and give_back so cost the same however many runs there are.
    """

    def __init__(self, limit: int) -> None:
        self._next, self._limit = 0, limit
        self._free: dict[int, list[int]] = {}
        """Starts of free runs below `_next`, by length."""

    def take(self, length: int) -> int:
        """The start of a free run. Raises `Full`. A run of length 0 starts at 0 and holds nothing."""
        if not length:
            return 0
        if self._free.get(length):
            return self._free[length].pop()
        if self._next + length > self._limit:
            return self._split(length)
        self._next += length
        return self._next - length

    def give_back(self, start: int, length: int) -> None:
        """Make a run available again."""
        if length:
            self._free.setdefault(length, []).append(start)

    def claim(self, runs: list[tuple[int, int]]) -> None:
        """Start with these runs already taken (adoption). Raises ValueError if they cannot all be."""
        gaps, at = [], 0
        for start, length in sorted(run for run in runs if run[1]):
            if start < at or start + length > self._limit:
                raise ValueError(f"{length} from {start} on are not free below {self._limit}")
            gaps.append((at, start - at))
            at = start + length
        self._keep([*gaps, (at, self._limit - at)])

    def _split(self, length: int) -> int:
        """Join free neighbours and take from the first run that is long enough."""
        free = [(start, room) for room, starts in self._free.items() for start in starts]
        gaps: list[tuple[int, int]] = []
        for start, room in sorted([*free, (self._next, self._limit - self._next)]):
            if gaps and sum(gaps[-1]) == start:
                gaps[-1] = gaps[-1][0], gaps[-1][1] + room
            else:
                gaps.append((start, room))
        at = next((n for n, (_, room) in enumerate(gaps) if room >= length), None)
        if at is None:
            self._keep(gaps)
            raise Full
        start, room = gaps[at]
        gaps[at] = start + length, room - length
        self._keep(gaps)
        return start

    def _keep(self, gaps: list[tuple[int, int]]) -> None:
        """These runs are free, and the last of them has the rest."""
        self._free, self._next = {}, gaps[-1][0]
        for start, length in gaps[:-1]:
            self.give_back(start, length)
