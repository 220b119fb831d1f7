"""What the datapaths report about packets, handed to those who asked: captures, and the drop counts."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.capture.live.stream import Lost
from vnet.capture.record import PacketRecord, Verdict
from vnet.fabric.capturing import Wanted
from vnet.fabric.live.backlog import Backlog
from vnet.switch.abi import TAPS
from vnet.switch.taps import Tap, TapCount

RECENT_KEPT = 100
QUEUED = 8192
"""Packets that one slow capture may lag behind before it is told of losses."""
GENERATIONS_KEPT = 64
EARLY_KEPT = 1 << 14
"""Drops that wait for who is told of every one: as many as wait in the switch while no daemon runs."""


class Subscription:
    """One capture: what it wants, the number of its tap, and what has come for it."""

    def __init__(self, wanted: Wanted, number: int, count: Callable[[int], TapCount]) -> None:
        self.wanted, self.number = wanted, number
        self._count = count
        self._told = 0
        """Of the packets that the switch lost, those that the backlog knows of."""
        self._backlog: Backlog[PacketRecord] = Backlog(QUEUED)

    def offer(self, record: PacketRecord) -> None:
        """Take a record if it is wanted."""
        if record.taps >> self.number & 1:
            for seen in self.wanted.seen(record):
                self._backlog.offer(seen)

    @property
    def count(self) -> TapCount:
        """Packets seen at the points, matched by the filter, and lost in the switch, so far."""
        return self._count(self.number)

    def look_for_losses(self) -> None:
        """Ask the switch whether it had no room for packets that were wanted."""
        lost = self.count.lost
        self._backlog.lose(lost - self._told)
        self._told = lost

    async def records(self) -> AsyncIterator[PacketRecord | Lost]:
        """What comes, until `end`."""
        while taken := await self._backlog.take():
            for record in taken[0]:
                yield record
            if taken[1]:
                yield Lost(taken[1])

    def end(self) -> None:
        """The switch goes: what came so far is all, and what it counted stays as it is now."""
        self.look_for_losses()
        last = self.count
        self._count = lambda _: last
        self._backlog.end()

    async def rest(self) -> int:
        """End it: how many packets were lost or are left unread."""
        self.look_for_losses()
        self._backlog.end()
        missing = 0
        while taken := await self._backlog.take():
            missing += taken[1]
        return missing


async def _nobody(taps: Mapping[int, Tap]) -> None:
    """Taps of a switch that is not there."""


@dataclass(slots=True)
class Watch:
    """All who look at one fabric's packets.

    `tell` puts exactly these taps in force, `count` reads the counter of one. `version` is that of the rules
    in force, as the switch counts them.
    """

    tell: Callable[[Mapping[int, Tap]], Awaitable[None]] = _nobody
    count: Callable[[int], TapCount] = lambda _: TapCount()
    version: Callable[[], int] = lambda: 0
    counts: Counter[DropReason] = field(default_factory=Counter)
    by_port: dict[int, Counter[DropReason]] = field(default_factory=lambda: defaultdict(Counter))
    """The same by the port they came in by; like all that is reported, a part of what is lost."""
    recent: deque[PacketRecord] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    on_drop: Callable[[PacketRecord], None] | None = None
    """Told of every drop that is reported; until it is there, drops wait in `early`."""
    early: deque[PacketRecord] = field(default_factory=lambda: deque(maxlen=EARLY_KEPT))
    taps: dict[int, Tap] = field(default_factory=dict)
    """All that are wanted, by number."""
    left: dict[int, Tap] = field(default_factory=dict)
    """Of those the ones that an earlier daemon put there and nobody has claimed."""
    _subscriptions: dict[int, Subscription] = field(default_factory=dict)
    _free: deque[int] = field(default_factory=lambda: deque(range(TAPS)))
    """Whose turn it is to be used again: until then what it was told before is read."""
    _generations: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=GENERATIONS_KEPT))

    def take(self, records: Iterable[PacketRecord]) -> None:
        """Records from the datapath, in the order they happened."""
        for record in records:
            if record.verdict is Verdict.DROP:
                self.counts[record.reason] += 1
                self.by_port[record.port][record.reason] += 1
                self.recent.append(record)
                (self.on_drop or self.early.append)(record)
            if record.taps:
                for subscription in self._subscriptions.values():
                    subscription.offer(record)
        for subscription in self._subscriptions.values():
            subscription.look_for_losses()

    # captures

    @asynccontextmanager
    async def subscribed(self, wanted: Wanted) -> AsyncIterator[Subscription]:
        """Look at packets for the duration of the body; when it begins, none is missed any more.

        Raises: InputError when as many look already as can.
        """
        number = await self.add(wanted.tap())
        self._subscriptions[number] = subscription = Subscription(wanted, number, self.count)
        try:
            yield subscription
        finally:
            del self._subscriptions[number]
            await self.discard(number)

    def end(self) -> None:
        """End all captures: the switch goes."""
        for subscription in self._subscriptions.values():
            subscription.end()

    def inherit(self, taps: Mapping[int, Tap]) -> None:
        """Begin with the taps that an earlier daemon left in force."""
        self.taps, self.left = dict(taps), dict(taps)
        self._free = deque(number for number in range(TAPS) if number not in taps)

    async def add(self, tap: Tap) -> int:
        """Put one more tap in force, or take over one that was left; its number.

        Raises: InputError when there are as many as can be.
        """
        for number, left in self.left.items():
            if left == tap:
                del self.left[number]
                return number
        if not self._free:
            raise InputError(f"{TAPS} captures and mirrors of this fabric run; end one of them first")
        number = self._free.popleft()
        self.taps[number] = tap
        try:
            await self.tell(dict(self.taps))
        except BaseException:
            await self.discard(number)
            raise
        return number

    async def discard(self, number: int) -> None:
        """Take a tap out of force."""
        del self.taps[number]
        self.left.pop(number, None)
        self._free.append(number)
        await self.tell(dict(self.taps))

    # generations

    def enforced(self, generation: int) -> None:
        """From the version on that is in force now, packets are decided by this generation's rules."""
        self._generations.append((self.version(), generation))

    def generation(self, version: int) -> int | None:
        """Which one's rules decided a packet; None when that was before anybody here was told of one."""
        return next((of for since, of in reversed(self._generations) if since <= version), None)
