"""How long a disk takes to answer, counted by time: of that percentiles and Prometheus' histograms are made.

Source: Prometheus, histogram_quantile(), for how a percentile lies within a bin.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

BOUNDS_S = (
    *(0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05),
    *(0.1, 0.2, 0.5, 1.0, 2.0, 5.0),
)
"""Where one bin ends and the next begins; the last one has no end."""
BOUNDS_NS = tuple(round(bound * 1e9) for bound in BOUNDS_S)


@dataclass(frozen=True, slots=True)
class Latencies:
    """Answers by how long they took: bin n has those below `BOUNDS_S[n]`, the last one the rest.

    `total_s` is how long all of them took together.
    """

    bins: tuple[int, ...] = (0,) * (len(BOUNDS_S) + 1)
    total_s: float = 0.0

    def __add__(self, other: Latencies) -> Latencies:
        bins = tuple(mine + theirs for mine, theirs in zip(self.bins, other.bins, strict=True))
        return Latencies(bins, self.total_s + other.total_s)

    @property
    def count(self) -> int:
        """How many answers there were."""
        return sum(self.bins)

    def since(self, before: Latencies) -> Latencies:
        """Those that came after `before`; all, if they were counted anew meanwhile."""
        if any(now < then for now, then in zip(self.bins, before.bins, strict=True)):
            return self
        bins = tuple(now - then for now, then in zip(self.bins, before.bins, strict=True))
        return Latencies(bins, max(0.0, self.total_s - before.total_s))

    def percentile_s(self, percent: float) -> float:
        """Within which time so many of a hundred were answered; 0 without any.

        Answers are taken to lie evenly in their bin. Of those in the last one it is only known that they took
        `BOUNDS_S[-1]` or longer.
        """
        if not self.count:
            return 0.0
        rank = self.count * percent / 100
        sums = tuple(accumulate(self.bins))
        at = bisect_left(sums, rank)
        if at == len(BOUNDS_S):
            return BOUNDS_S[-1]
        begin = BOUNDS_S[at - 1] if at else 0.0
        below = sums[at] - self.bins[at]
        return begin + (BOUNDS_S[at] - begin) * (rank - below) / max(1, self.bins[at])

    def share_from(self, bound_s: float) -> float:
        """The part of the answers that took at least so long: one of `BOUNDS_S`."""
        at = BOUNDS_S.index(bound_s)
        return sum(self.bins[at + 1 :]) / self.count if self.count else 0.0


NONE = Latencies()


def together(parts: Iterable[Latencies]) -> Latencies:
    """All of them as one."""
    return sum(parts, start=Latencies())
