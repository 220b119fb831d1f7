"""How much of the log one port may fill: records, then sums of records, then numbers.

A port has a bucket of records. While it is empty, packets that differ only in the client's port are summed
up, a few such sums at a time; of what is beyond that only rule and client are counted. Nothing is silent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from vnet.fabric.logged import End, LogRecord, Rule

BURST = 100
RATE_PER_S = 1.0
"""Records of one port, at once and in the long run: who floods leaves a day of the log at least."""
SUMS = 16
"""Lines that sum up what one port sends in PERIOD_S."""
PERIOD_S = 10.0


@dataclass(slots=True)
class _Port:
    left: float
    at_s: float
    sums: dict[LogRecord, tuple[LogRecord, int]] = field(default_factory=dict)
    """By what is alike: the first, and how many so far."""
    lost: Counter[tuple[Rule, str]] = field(default_factory=Counter)
    """By rule and client."""

    def refill(self, now_s: float) -> None:
        self.left = min(BURST, self.left + (now_s - self.at_s) * RATE_PER_S)
        self.at_s = now_s


@dataclass(slots=True)
class Rates:
    """All ports of one fabric. Times are seconds of any clock that does not jump back."""

    _ports: dict[int, _Port] = field(default_factory=dict)
    _due_s: float | None = None

    def take(self, port: int, record: LogRecord, now_s: float) -> LogRecord | None:
        """The record if it may be written now; otherwise it is in what `due` gives later."""
        bucket = self._ports.setdefault(port, _Port(BURST, now_s))
        bucket.refill(now_s)
        alike = record.alike
        if bucket.left >= 1 and alike not in bucket.sums:
            bucket.left -= 1
            return record
        if alike in bucket.sums or len(bucket.sums) < SUMS:
            first, count = bucket.sums.get(alike, (record, 0))
            bucket.sums[alike] = first, count + 1
            self._begin(now_s)
        else:
            self.lose(port, record.rule, record.client.vm, 1, now_s)
        return None

    def lose(self, port: int, rule: Rule, client: str, count: int, now_s: float) -> None:
        """So many were not even looked at."""
        self._ports.setdefault(port, _Port(BURST, now_s)).lost[rule, client] += count
        self._begin(now_s)

    def _begin(self, now_s: float) -> None:
        if self._due_s is None:
            self._due_s = now_s + PERIOD_S

    def due(self, now_s: float, time_ns: int, end: bool = False) -> Iterator[LogRecord]:
        """What was summed up and counted in a period that is over; with `end` also in one that is not."""
        if self._due_s is None or (now_s < self._due_s and not end):
            return
        self._due_s = None
        for number, bucket in tuple(self._ports.items()):
            for first, count in bucket.sums.values():
                yield replace(first, count=count)
            for (rule, client), count in bucket.lost.items():
                yield LogRecord(time_ns, rule, End(client), count=count, is_lost=True)
            bucket.sums.clear()
            bucket.lost.clear()
            bucket.refill(now_s)
            if bucket.left >= BURST:
                del self._ports[number]
