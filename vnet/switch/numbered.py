"""Groups and meters in force, by number, and drafts of changes to them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar


class Numbered(Protocol):
    """A value with a number that is its own."""

    @property
    def number(self) -> int: ...


T = TypeVar("T", bound=Numbered)


@dataclass(frozen=True, slots=True)
class Holding(Generic[T]):
    """A value that was added at `created_s`; modifications leave that as it is."""

    value: T
    created_s: float


class NumberedTable(Generic[T]):
    """All values in force; `everything` is the number that stands for all of them in requests."""

    def __init__(self, values: Iterable[T], everything: int, now: float) -> None:
        self._everything = everything
        self._holdings = {value.number: Holding(value, now) for value in values}

    def __len__(self) -> int:
        return len(self._holdings)

    def __contains__(self, number: object) -> bool:
        return number in self._holdings

    def get(self, number: int) -> Holding[T] | None:
        """What is in force under a number."""
        return self._holdings.get(number)

    def set(self, number: int, holding: Holding[T] | None) -> None:
        """Put it, or take it away."""
        if holding is None:
            self._holdings.pop(number, None)
        else:
            self._holdings[number] = holding

    def select(self, number: int) -> Iterator[Holding[T]]:
        """What a request for a number is about, in the order of numbers."""
        wanted = sorted(self._holdings) if number == self._everything else (number,)
        return (self._holdings[each] for each in wanted if each in self._holdings)


class NumberedDraft(Generic[T]):
    """Changes of one table, not yet in force; only one at a time for each table."""

    def __init__(self, table: NumberedTable[T], now: float) -> None:
        self._table, self._now = table, now
        self._before: dict[int, Holding[T] | None] = {}
        self._fresh: set[int] = set()
        """Numbers of what was taken away or not there: what is put there counts from zero."""

    def put(self, value: T) -> None:
        """Add, or replace what has the number."""
        before = self._table.get(value.number)
        self._set(value.number, Holding(value, before.created_s if before else self._now))

    def remove(self, number: int) -> tuple[int, ...]:
        """Take away what a request for `number` is about; the numbers of that."""
        gone = tuple(holding.value.number for holding in self._table.select(number))
        for each in gone:
            self._set(each, None)
        return gone

    def _set(self, number: int, holding: Holding[T] | None) -> None:
        self._before.setdefault(number, self._table.get(number))
        if holding is None:
            self._fresh.add(number)
        self._table.set(number, holding)

    def change(self) -> tuple[tuple[T, ...], tuple[int, ...]]:
        """What to put and what to remove; nothing for what is as before."""
        put: list[T] = []
        remove: list[int] = []
        for number, before in self._before.items():
            after, fresh = self._table.get(number), number in self._fresh
            if before is not None and fresh:
                remove.append(number)
            if after is not None and (before is None or fresh or before.value != after.value):
                put.append(after.value)
        return tuple(put), tuple(remove)

    def rollback(self) -> None:
        """The table is as before the draft."""
        for number, before in self._before.items():
            self._table.set(number, before)
