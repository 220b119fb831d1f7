"""What the datapaths report about packets, handed to those who asked: captures, and the drop counts."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from vnet.base.drop import DropReason
from vnet.capture.live.stream import Lost
from vnet.capture.record import PacketRecord, Verdict

RECENT_KEPT = 100
QUEUED = 8192
"""Packets that one slow capture may lag behind before it is told of losses."""


@dataclass(slots=True)
class Subscription:
    """One capture: the ports it wants and what has come for it."""

    ports: frozenset[int]
    _queue: asyncio.Queue[PacketRecord] = field(default_factory=lambda: asyncio.Queue(QUEUED))
    _lost: int = 0

    def offer(self, record: PacketRecord) -> None:
        """Take a record if it is wanted; a full queue counts it as lost."""
        if record.port not in self.ports:
            return
        try:
            self._queue.put_nowait(record)
        except asyncio.QueueFull:
            self._lost += 1

    def lose(self, packets: int) -> None:
        """So many packets never came."""
        self._lost += packets

    async def records(self) -> AsyncIterator[PacketRecord | Lost]:
        """What comes, for ever."""
        while True:
            record = await self._queue.get()
            if self._lost:
                lost, self._lost = self._lost, 0
                yield Lost(lost)
            yield record


@dataclass(slots=True)
class Watch:
    """All who look at one fabric's packets. `changed` is told which ports must be reported now."""

    changed: Callable[[frozenset[int]], None] = lambda _: None
    counts: Counter[DropReason] = field(default_factory=Counter)
    by_port: dict[int, Counter[DropReason]] = field(default_factory=lambda: defaultdict(Counter))
    """The same by the port they came in by; like all that is reported, a part of what is lost."""
    recent: deque[PacketRecord] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    on_drop: Callable[[PacketRecord], None] = lambda _: None
    """Told of every drop that is reported."""
    _subscriptions: list[Subscription] = field(default_factory=list)

    def take(self, records: Iterable[PacketRecord]) -> None:
        """Records from the datapath, in the order they happened."""
        for record in records:
            if record.verdict is Verdict.DROP:
                self.counts[record.reason] += 1
                self.by_port[record.port][record.reason] += 1
                self.recent.append(record)
                self.on_drop(record)
            for subscription in self._subscriptions:
                subscription.offer(record)

    def lose(self, packets: int) -> None:
        """The datapath could not report so many packets."""
        for subscription in self._subscriptions:
            subscription.lose(packets)

    @contextmanager
    def subscribed(self, ports: frozenset[int]) -> Iterator[Subscription]:
        """Look at these ports for the duration of the body."""
        subscription = Subscription(ports)
        self._subscriptions.append(subscription)
        self._tell()
        try:
            yield subscription
        finally:
            self._subscriptions.remove(subscription)
            self._tell()

    def _tell(self) -> None:
        self.changed(frozenset().union(*(each.ports for each in self._subscriptions)))
