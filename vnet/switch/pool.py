"""Numbers and ranges to give away and take back: slots of the dataplane's arrays."""

from __future__ import annotations

from bisect import insort


class Full(Exception):
    """Nothing is left to give away."""


class Numbers:
    """Numbers first…limit-1; the lowest free one is given, so arrays stay dense."""

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
        """Start with these numbers already taken (adoption)."""
        highest = max(numbers, default=self._next - 1)
        self._free = [number for number in range(self._next, highest) if number not in numbers]
        self._next = max(self._next, highest + 1)


class Ranges:
    """Runs of consecutive numbers 0…limit-1, first fit."""

    def __init__(self, limit: int) -> None:
        self._gaps: list[tuple[int, int]] = [(0, limit)]
        """(start, length), sorted, never adjacent."""

    def take(self, length: int) -> int:
        """The start of a free run. Raises `Full`. A run of length 0 starts at 0 and holds nothing."""
        if not length:
            return 0
        for index, (start, room) in enumerate(self._gaps):
            if room >= length:
                self._gaps[index : index + 1] = [(start + length, room - length)] if room > length else []
                return start
        raise Full

    def give_back(self, start: int, length: int) -> None:
        """Make a run available again, merged with its neighbours."""
        if not length:
            return
        insort(self._gaps, (start, length))
        index = self._gaps.index((start, length))
        for left in (index, index - 1):
            if 0 <= left < len(self._gaps) - 1:
                (a, m), (b, n) = self._gaps[left], self._gaps[left + 1]
                if a + m == b:
                    self._gaps[left : left + 2] = [(a, m + n)]

    def claim(self, runs: list[tuple[int, int]]) -> None:
        """Start with these runs already taken (adoption)."""
        limit = self._gaps[-1][0] + self._gaps[-1][1]
        gaps, at = [], 0
        for start, length in sorted(run for run in runs if run[1]):
            if start > at:
                gaps.append((at, start - at))
            at = max(at, start + length)
        if at < limit:
            gaps.append((at, limit - at))
        self._gaps = gaps
