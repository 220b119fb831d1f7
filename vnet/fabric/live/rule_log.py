"""The log of a fabric's rules: sightings come in, records go to its journal and to those who follow it.

A sighting is only put in line when it comes; `work` makes records of what stands there. It takes each port's
share of what can be read in one turn, and only counts what is beyond it: who floods costs a bounded time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from vnet.fabric.declared import Declared
from vnet.fabric.live.backlog import Backlog
from vnet.fabric.live.journal import Journal
from vnet.fabric.log_loss import Losses
from vnet.fabric.log_rate import Rates
from vnet.fabric.logged import LogRecord, Names, Rule, Sighting, Verdict, names, stamp
from vnet.policy.origin import LOGGED

log = logging.getLogger(__name__)

READ_PER_TURN = 400
"""Sightings that one turn reads, of all ports together; a port has at least LEAST of them."""
LEAST = 8
QUEUED = 4096
"""Lines that one reader may lag behind before it is told of losses."""
COUNTS = "counts.json"


class Follower(Backlog[str]):
    """One who reads along. `missing` makes the line that says how many others are not there."""

    def __init__(self, missing: Callable[[int], str]) -> None:
        super().__init__(QUEUED)
        self._missing = missing

    async def next(self) -> tuple[str, ...] | None:
        """The next lines, at their end one that says how many are missing; None behind the last."""
        taken = await self.take()
        if taken is None or not taken[1]:
            return taken and taken[0]
        return *taken[0], self._missing(taken[1])


def _missing(count: int) -> str:
    return LogRecord(time.time_ns(), Rule(), count=count, is_lost=True).json()


class RuleLog:
    """See the module. Without a directory it keeps nothing. All methods belong to one event loop."""

    def __init__(self, directory: Path | None = None) -> None:
        self._journal = Journal(directory) if directory else None
        self._counts = directory / COUNTS if directory else None
        self._seen: dict[int, deque[Sighting]] = defaultdict(deque)
        self._over: dict[int, dict[int, int]] = defaultdict(lambda: defaultdict(int))
        """By port and reference: sightings that were only counted."""
        self._rates, self._losses = Rates(), Losses()
        self._names = Names()
        self._provenance: Mapping[int, Mapping[str, str]] | None = None
        self._declared: Declared | None = None
        self._followers: list[Follower] = []
        self._unwritten = 0
        self._resumed = False
        self._closed = False
        self.unreported: int | None = None
        """What the switch could not report when that was last looked at."""

    # sightings in

    def see(self, seen: Sighting) -> None:
        """A packet to tell of."""
        self._losses.tell(seen.cookie)
        waiting = self._seen[seen.port]
        if len(waiting) < READ_PER_TURN:
            waiting.append(seen)
        else:
            self._skip(seen)

    def _skip(self, seen: Sighting) -> None:
        for reference in seen.references:
            self._over[seen.port][reference] += 1

    # records out

    def know(self, provenance: Mapping[int, Mapping[str, str]], declared: Declared | None) -> None:
        """What sightings are named by from now on; rules of the generation before are still known."""
        if self._provenance is provenance and self._declared is declared:
            return
        before = self._provenance or {}
        now = names(provenance, declared)
        self._names = replace(now, rules={**names(before, None).rules, **now.rules})
        self._provenance, self._declared = provenance, declared

    def work(self, now_s: float, time_ns: int, end: bool = False) -> None:
        """Write what has come; with `end` also what is being summed up."""
        records: list[LogRecord] = []
        share = max(LEAST, READ_PER_TURN // max(1, len(self._seen)))
        for port, waiting in self._seen.items():
            for seen in list(waiting)[share:]:
                self._skip(seen)
            for seen in list(waiting)[:share]:
                told = (self._rates.take(port, each, now_s) for each in self._names.records(seen))
                records += filter(None, told)
        self._seen.clear()
        for port, counts in self._over.items():
            client, _ = self._names.vms.get(port, ("", ""))
            for reference, count in counts.items():
                self._rates.lose(port, self._names.rule(reference), client, count, now_s)
        self._over.clear()
        records += self._rates.due(now_s, time_ns, end)
        self._tell(records)

    def _tell(self, records: Iterable[LogRecord]) -> None:
        lines = [record.json() for record in records]
        if not lines:
            return
        for follower in self._followers:
            for line in lines:
                follower.offer(line)
        self._write(lines)

    def _write(self, lines: list[str]) -> None:
        """A disk that is full costs records, not the daemon; how many is written when it is no more."""
        if self._journal is None:
            return
        gap = [_missing(self._unwritten)]
        try:
            self._journal.append((gap if self._unwritten else []) + lines)
        except OSError as error:
            if not self._unwritten:
                log.warning("cannot write %s: %s", self._journal.directory, error.strerror)
            self._unwritten += len(lines)
        else:
            self._unwritten = 0

    # what the switch could not report

    def resume(self) -> None:
        """The switch was there before: its flows have counted what an earlier daemon told."""
        self._resumed = True

    def needs_counts(self, unreported: int) -> bool:
        """Whether it has to be looked at what the flows have counted."""
        return self._resumed or self._losses.is_open or self.unreported != unreported

    def settle(self, counted: Mapping[int, int], unreported: int, time_ns: int) -> None:
        """Tell what flows have counted that was never reported."""
        self.unreported = unreported
        if self._resumed:
            self._resumed = False
            self._begin(counted, time_ns)
        lost = self._losses.settle(counted)
        self._tell(
            LogRecord(time_ns, self._rule(cookie), count=count, is_lost=True)
            for cookie, count in lost.items()
        )

    def _rule(self, cookie: int) -> Rule:
        return Rule(Verdict.ALLOW) if cookie == LOGGED.cookie else self._names.rule(cookie)

    def _begin(self, counted: Mapping[int, int], time_ns: int) -> None:
        """Go on where an earlier daemon ended; if it did not come to note where, that is told."""
        noted = self._noted()
        self._losses.begin(counted if noted is None else noted)
        if noted is None and counted:
            self._tell([LogRecord(time_ns, Rule(), count=None, is_lost=True)])

    def _noted(self) -> dict[int, int] | None:
        """What flows had counted when the last daemon ended; it is true only once."""
        if self._counts is None:
            return None
        try:
            text = self._counts.read_text(encoding="utf-8")
            self._counts.unlink()
            return {int(cookie, 16): int(count) for cookie, count in json.loads(text).items()}
        except (OSError, ValueError):
            return None

    # reading

    @contextlib.contextmanager
    def followed(self) -> Iterator[Follower]:
        """Read along for the duration of the body."""
        follower = Follower(_missing)
        if self._closed:
            follower.end()
        self._followers.append(follower)
        try:
            yield follower
        finally:
            self._followers.remove(follower)

    def snapshot(self) -> Iterator[str]:
        """The lines that are kept, oldest first; to be read in a thread."""
        return self._journal.snapshot() if self._journal else iter(())

    # end

    def close(self, counted: Mapping[int, int] | None) -> None:
        """Write what is left, and what the flows have `counted`, for the next daemon; None if not known."""
        self.work(time.monotonic(), time.time_ns(), end=True)
        self._closed = True
        for follower in self._followers:
            follower.end()
        if self._journal is not None:
            self._journal.close()
        if self._counts is not None and counted and self._counts.parent.exists():
            text = json.dumps({f"{cookie:#x}": count for cookie, count in counted.items()})
            with contextlib.suppress(OSError):
                self._counts.write_text(text, encoding="utf-8")


def between(lines: Iterable[str], since_ns: int | None, until_ns: int | None) -> Iterator[str]:
    """Lines of a time; they begin with it, in a form that sorts as the time does."""
    first = stamp(since_ns) if since_ns is not None else ""
    last = stamp(until_ns) if until_ns is not None else "~"
    start = len('{"time":"')
    end = start + len(stamp(0))
    return (line for line in lines if first <= line[start:end] <= last)
