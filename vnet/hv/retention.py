"""Which backups are kept: the words of restic and borg as a function of times and parents."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime


@dataclass(frozen=True, slots=True)
class Point:
    """A backup of one VM. `taken_at` is in the time zone in which days and weeks are told apart.

    `parent` is the backup without which an increment is of no use.
    """

    id: str
    taken_at: datetime
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Keep:
    """How many to keep: the last ones, and the last one of each of so many days, weeks, months with any."""

    last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0

    @property
    def is_anything(self) -> bool:
        """Whether anything at all is kept."""
        return any((self.last, self.daily, self.weekly, self.monthly))


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a backup: it goes unless there are reasons to keep it."""

    id: str
    reasons: tuple[str, ...] = ()

    @property
    def is_kept(self) -> bool:
        """Whether it stays."""
        return bool(self.reasons)


@dataclass(slots=True)
class _Rule:
    """One of `Keep`'s, being worked through from the newest backup on."""

    name: str
    wanted: int
    period: Callable[[Point], object]
    seen: set[object] = field(default_factory=set)

    def takes(self, point: Point) -> bool:
        key = self.period(point)
        if key in self.seen or len(self.seen) >= self.wanted:
            return False
        self.seen.add(key)
        return True


def decide(points: Sequence[Point], keep: Keep) -> tuple[Verdict, ...]:
    """A verdict on each backup of one VM, the newest first; what a kept one needs is kept."""
    parents = {point.parent for point in points}  # of two of one second the increment is the newer
    newest_first = sorted(
        points, key=lambda point: (point.taken_at, point.id not in parents, point.id), reverse=True
    )
    rules = tuple(_rules(keep))
    reasons = {point.id: [rule.name for rule in rules if rule.takes(point)] for point in newest_first}
    for kept in [point.id for point in newest_first if reasons[point.id]]:
        for parent in _ancestors(kept, {point.id: point.parent for point in points}):
            if not reasons[parent]:
                reasons[parent].append(f"needed by {kept}")
    return tuple(Verdict(point.id, tuple(reasons[point.id])) for point in newest_first)


def _rules(keep: Keep) -> Iterator[_Rule]:
    yield _Rule("last", keep.last, lambda point: point.id)
    yield _Rule("daily", keep.daily, lambda point: point.taken_at.date())
    yield _Rule("weekly", keep.weekly, lambda point: point.taken_at.isocalendar()[:2])
    yield _Rule("monthly", keep.monthly, lambda point: (point.taken_at.year, point.taken_at.month))


def _ancestors(id_: str, parents: Mapping[str, str | None]) -> Iterator[str]:
    """Its parent, the parent's parent and so on, as far as they are there."""
    passed = {id_}
    parent = parents[id_]
    while parent is not None and parent in parents and parent not in passed:
        yield parent
        passed.add(parent)
        parent = parents[parent]


def children(wanted: frozenset[str], points: Sequence[Point]) -> tuple[str, ...]:
    """Other backups that could not be restored any more if those `wanted` were away."""
    parents = {point.id: point.parent for point in points}
    lost = (each for each in parents if each not in wanted and wanted & set(_ancestors(each, parents)))
    return tuple(sorted(lost))
