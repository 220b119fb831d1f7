"""Keeps what happened: looks at each fabric's switch now and then, and writes what it saw by the minute.

The event loop only puts reported drops in line, names them in bounded portions, and sums them up; tables are
read by parts and compared in a thread, the database is used by a thread of its own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace

from vnet.base import paths
from vnet.base.errors import VnetError
from vnet.capture.record import PacketRecord
from vnet.fabric.events import Kind
from vnet.fabric.live.history_file import HistoryStopped
from vnet.fabric.live.history_writer import History, limit_bytes
from vnet.fabric.live.host import boot_id
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.observed import Names
from vnet.fabric.scan import Change, Scanner
from vnet.fabric.store import Record
from vnet.fabric.tally import MINUTE_NS, Entry, Era, Tally
from vnet.fabric.who import Directory

log = logging.getLogger(__name__)

TURN_S = 0.25
WRITE_S = 5.0
"""How often is written: so much is lost when the daemon is killed."""
SCAN_S = 10.0
RULES_S = 60.0
"""How often the counters of all flows are read, if anything was dropped; and when somebody asks."""
READ_PER_TURN = 400
"""Reports that one turn names, of all ports together; a port has at least LEAST of them."""
LEAST = 8


@dataclass(frozen=True, slots=True)
class Look:
    """When the last look was (CLOCK_MONOTONIC), and what realtime is more than that."""

    before_ns: int
    clock_ns: int


@dataclass(slots=True)
class Observer:
    """One fabric as far as it is looked at.

    `since_ns`: connections that began before that (CLOCK_MONOTONIC) are not new to us.
    """

    name: str
    history: History
    since_ns: int
    on_changes: list[Callable[[Names, list[Change], Look], None]] = field(default_factory=list)
    """Told of each part of a look at the connections, in a thread."""
    on_look: list[Callable[[Names, int], None]] = field(default_factory=list)
    """Told when a look is over, with the drops that were never reported."""
    on_drop: list[Callable[[Names, PacketRecord], None]] = field(default_factory=list)
    """Told of each drop that is reported."""
    tally: Tally = field(default_factory=Tally)
    names: Names | None = None
    fabric: Fabric | None = None
    _before: Names | None = None
    _record: Record | None = None
    _declared: object = None
    _waiting: dict[int, deque[PacketRecord]] = field(default_factory=lambda: defaultdict(deque))
    _scanner: Scanner | None = None
    _scanned_ns: int = 0
    _counted: Mapping[str, int] = field(default_factory=dict)
    _rules_s: float = 0.0
    _told_missed: int = 0
    _busy: asyncio.Lock = field(default_factory=asyncio.Lock)

    # names

    async def know(self, fabric: Fabric) -> None:
        """What its observations are named by from now on."""
        self.fabric = fabric
        await self._rename(fabric)
        if self.names is not None:
            await self._attach(fabric)

    async def _rename(self, fabric: Fabric) -> None:
        record = fabric.record
        if (record is self._record and fabric.declared is self._declared) or not record.enforced:
            return
        if record.enforced != record.generation and self.names is not None:
            return  # a change is under way: that before it is in force
        declared = fabric.declared
        directory = await asyncio.to_thread(Directory, declared) if declared else None
        era = self._era(fabric)
        earlier = self.names.provenance if self.names else {}
        self._before, self.names = self.names, Names(era, record.provenance, earlier, directory)
        self._record, self._declared = record, declared
        await self.history.keep(lambda file: file.enter(era))

    async def _attach(self, fabric: Fabric) -> None:
        """Be told of drops from now on, and of those that were told before anybody looked."""
        watch = fabric.parts.switch.watch
        if watch.on_drop == self.see:
            return
        watch.on_drop = None
        while watch.early:
            for _ in range(min(len(watch.early), READ_PER_TURN)):
                self._drop(watch.early.popleft(), is_read=True)
            await asyncio.sleep(0)
        watch.on_drop = self.see

    def _era(self, fabric: Fabric) -> Era:
        record, was = fabric.record, self.names.era if self.names else None
        if was and (was.generation, was.source) == (record.enforced, record.source):
            return was
        is_new = was is None or was.generation != record.enforced
        since_ns = fabric.enforced_ns if is_new and fabric.enforced_ns else time.time_ns()
        return Era(self.name, record.enforced, since_ns, record.source)

    # drops

    def see(self, record: PacketRecord) -> None:
        """A packet is reported as dropped."""
        waiting = self._waiting[record.port]
        if len(waiting) < READ_PER_TURN:
            waiting.append(record)
        elif self.names is not None:
            self._drop(record, is_read=False)

    def turn(self) -> None:
        """Name what was reported: of each port its share, of the rest only what costs nothing."""
        share = max(LEAST, READ_PER_TURN // max(1, len(self._waiting)))
        for waiting in self._waiting.values():
            for number, record in enumerate(waiting):
                self._drop(record, is_read=number < share)
        self._waiting.clear()

    def _drop(self, record: PacketRecord, is_read: bool) -> None:
        names = self._names_of(record)
        if names is None:
            return
        self.tally.see(names.era, *names.dropped(record, is_read))
        for told in self.on_drop:
            told(names, record)

    def _names_of(self, record: PacketRecord) -> Names | None:
        """Those of its time: a change is noticed a little late."""
        names, before = self.names, self._before
        if names is None or self.fabric is None or not record.cookie:
            return names
        if before and record.time_ns < names.era.since_ns and record.cookie in before.provenance:
            return before
        if record.cookie not in names.provenance and record.cookie in self.fabric.record.provenance:
            return replace(names, provenance=self.fabric.record.provenance)
        return names

    # flows

    async def scan(self) -> None:
        """Look at the table of connections."""
        async with self._busy:
            if self.fabric is None or self.names is None or not self.fabric.parts.switch.is_open:
                return
            if self._scanner is None:
                self._scanner = Scanner(await self._begins_ns())
            names, scanner, before_ns = self.names, self._scanner, self._scanned_ns or self.since_ns
            now_ns, clock_ns = time.monotonic_ns(), time.time_ns() - time.monotonic_ns()
            look = Look(before_ns, clock_ns)
            async for first, values in self.fabric.parts.switch.slots():
                changes = await asyncio.to_thread(lambda: list(scanner.part(first, values)))  # noqa: B023
                for told in self.on_changes:
                    await asyncio.to_thread(told, names, changes, look)
                seen = await asyncio.to_thread(lambda: list(names.flowed(changes, before_ns, clock_ns)))  # noqa: B023
                for kind, flow in seen:
                    self.tally.see(names.era, kind, flow)
            scanner.done()
            self._scanned_ns = now_ns
            if self.on_look:
                unreported = await self.fabric.parts.switch.unreported_drops()
                for ended in self.on_look:
                    ended(names, unreported)
            noted = {_boot(): now_ns}
            await self.history.keep(lambda file: file.note(self.name, "scan", noted))

    async def _begins_ns(self) -> int:
        """When an earlier daemon looked last, in the boot that this is."""
        try:
            noted = await self.history.ask(lambda file: file.noted(self.name, "scan"))
        except HistoryStopped:
            return self.since_ns
        return noted.get(_boot(), self.since_ns)

    # writing

    async def settle(self) -> None:
        """Look at everything now, and write it: somebody asks."""
        if self.fabric is not None and self.fabric.parts.switch.is_open:
            self.fabric.parts.switch.tell()
        self.turn()
        await self.scan()
        await self.write(rules=True)

    async def write(self, rules: bool = False) -> None:
        """Write what was summed up and counted."""
        async with self._busy:
            entries: list[Entry] = list(self.tally.drain())
            if entries:
                await self.history.keep(lambda file: file.write(entries))
            if self.fabric is not None and self.fabric.parts.switch.is_open:
                await self._count(rules)
            await self._tell_missed()

    async def _count(self, rules: bool) -> None:
        assert self.fabric is not None
        switch, minute = self.fabric.parts.switch, time.time_ns() // MINUTE_NS
        reasons = {reason.name: count for reason, count in (await switch.drop_counts()).items()}
        if reasons != self._counted:
            nics = await switch.drops_by_nic()
            await self._keep_counts(minute, "reason", reasons)
            await self._keep_counts(minute, "nic", nics)
            self._counted = reasons
            self._rules_s = self._rules_s or time.monotonic()
        if self._rules_s and (rules or time.monotonic() >= self._rules_s + RULES_S):
            by_cookie = {f"{cookie:016x}": n for cookie, n in (await switch.drops_by_cookie()).items()}
            await self._keep_counts(minute, "rule", by_cookie)
            self._rules_s = 0.0

    async def _keep_counts(self, minute: int, what: str, now: Mapping[str, int]) -> None:
        await self.history.keep(lambda file: file.count(self.name, minute, what, now))

    async def _tell_missed(self) -> None:
        """Say of which time something is missing."""
        missed = self._scanner.missed if self._scanner else 0
        why = []
        if missed > self._told_missed:
            why.append(f"about {missed - self._told_missed} connections came and went unseen")
            self._told_missed = missed
        if self.tally.lost:
            why.append(f"{self.tally.lost} packets were of more kinds than are kept")
            self.tally.lost = 0
        if why:
            until_ns = time.time_ns()
            since_ns = until_ns - round(SCAN_S * 1e9)
            text = "; ".join(why)
            await self.history.keep(lambda file: file.miss(self.name, since_ns, until_ns, text))

    def end(self) -> None:
        """Look no more."""
        if self.fabric is not None:
            self.fabric.parts.switch.watch.on_drop = None


def _boot() -> str:
    return boot_id()


class Observers:
    """All fabrics that are looked at. `keep` runs beside everything else."""

    def __init__(self, registry: Registry, history: History) -> None:
        self.registry, self.history = registry, history
        self.each: dict[str, Observer] = {}
        self.begun: list[Callable[[Observer], object]] = []
        """Told of every fabric that is looked at from now on."""
        self._is_first = True

    async def keep(self) -> None:
        """For ever."""
        await asyncio.gather(self._keep_naming(), self._keep_writing())

    async def _keep_naming(self) -> None:
        while True:
            await asyncio.sleep(TURN_S)
            await self._look()

    async def _keep_writing(self) -> None:
        written_s = scanned_s = time.monotonic()
        while True:
            await asyncio.sleep(TURN_S)
            if time.monotonic() >= scanned_s + SCAN_S:
                await self._all(Observer.scan)
                scanned_s = time.monotonic()
            if time.monotonic() >= written_s + WRITE_S:
                await self._all(Observer.write)
                written_s = time.monotonic()

    async def _look(self) -> None:
        for name in tuple(self.each):
            if name not in self.registry.fabrics:
                await self._end(name)
        for name, fabric in tuple(self.registry.fabrics.items()):
            await self._try(name, self._turn(name, fabric))
        self._is_first = False

    async def _turn(self, name: str, fabric: Fabric) -> None:
        if name not in self.each:
            # what an adopted switch tracks is older than this daemon, what a new one does is not
            since_ns = time.monotonic_ns() if self._is_first else 0
            self.each[name] = Observer(name, self.history, since_ns)
            for told in self.begun:
                told(self.each[name])
        observer = self.each[name]
        await observer.know(fabric)
        observer.turn()

    async def _end(self, name: str) -> None:
        observer = self.each.pop(name)
        observer.end()
        observer.fabric = None
        observer.turn()
        await self._try(name, observer.write())
        await self.history.keep(lambda file: file.forget_counters(name))

    async def _all(self, work: Callable[[Observer], Awaitable[None]]) -> None:
        for name, observer in tuple(self.each.items()):
            await self._try(name, work(observer))

    async def _try(self, name: str, work: Awaitable[None]) -> None:
        try:
            await work
        except VnetError as error:  # a switch that cannot be asked now is asked later
            log.info("cannot look at %s: %s", name, error)
        except Exception:  # a bug met in one fabric must not end the history of the others
            log.exception("cannot keep the history of %s", name)

    async def settle(self, name: str) -> None:
        """Write what is known of a fabric up to now."""
        if name not in self.each and name in self.registry.fabrics:  # the daemon has only just begun
            await self._try(name, self._turn(name, self.registry.fabrics[name]))
        observer = self.each.get(name)
        if observer is not None:
            await self._try(name, observer.settle())

    async def close(self) -> None:
        """Write what is left."""
        for name, observer in tuple(self.each.items()):
            observer.turn()
            await self._try(name, observer.settle())
            observer.end()
        self.each.clear()
        with suppress(VnetError):
            await self.history.close()


def make_observers(registry: Registry) -> Observers:
    """Those of this host."""

    def tell(kind: Kind, text: str, fields: Mapping[str, str]) -> None:
        registry.events.tell(kind, text, fields=fields)

    return Observers(registry, History(paths.history_file(), limit_bytes(), tell))
