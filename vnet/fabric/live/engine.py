"""All fabrics of this host: brings them up and down, adopts them after a restart, answers about them.

Every change has the same shape: observe, plan, remember in the store what is about to be, carry out,
remember that it is. A change that fails or is interrupted is undone by a plan too: from what is there
by then, back to what was there before.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from vnet.base.errors import Exit, HostError, InputError, UsageError, VnetError
from vnet.fabric import plan as p
from vnet.fabric.declared import Declared, declare, load, work_out
from vnet.fabric.live.apply import Performer, carry_out, undo
from vnet.fabric.live.observe import foreign, observe, remains, running
from vnet.fabric.live.parts import Parts
from vnet.fabric.progress import Progress, Report, Status, silent
from vnet.fabric.state import Guest, State
from vnet.fabric.store import Record, Source, Store
from vnet.hv.admission import Commitment, admit
from vnet.topology.model import Topology

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Host:
    """What the engine asks of this host: replaced in tests."""

    require: Callable[[], None]
    available_memory_bytes: Callable[[], int]
    boot_id: Callable[[], str]
    tidy: Callable[[str], None]
    """Remove the run directory of a fabric that is gone."""
    now: Callable[[], datetime]
    """The time of day, in UTC: rules may expire."""


class ClaimsFailed(VnetError):
    """Lines of `verify` that do not hold; nothing was changed."""

    exit_code = Exit.CLAIM_FAILED


class Interrupted(VnetError):
    """The user broke the operation off; it was undone."""

    exit_code = Exit.INTERRUPTED


@dataclass(slots=True)
class Fabric:
    """One fabric that is up: its record, what it declares, its neighbours.

    `trouble` says why it could not be brought back to what should be, after a restart of the daemon.
    `starting` are the guests that have been admitted and may not have taken their memory yet.
    """

    parts: Parts
    record: Record
    declared: Declared | None = None
    trouble: str = ""
    starting: frozenset[Guest] = frozenset()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an operation planned, and did unless it was a dry run."""

    fabric: str
    generation: int
    actions: tuple[p.Action, ...]
    notes: tuple[str, ...] = ()


@dataclass(slots=True)
class Engine:
    """See the module. Operations on one fabric wait for each other; those on two do not."""

    store: Store
    make_parts: Callable[[str], Parts]
    host: Host
    failed_claims: Callable[[Declared], tuple[str, ...]]
    """The topology's claims that its own flows do not meet, each with the reason."""
    fabrics: dict[str, Fabric] = field(default_factory=dict)
    _locks: dict[str, asyncio.Lock] = field(default_factory=lambda: defaultdict(asyncio.Lock))

    async def adopt(self) -> None:
        """Take over everything an earlier daemon left running; changes only what differs.

        A fabric that cannot be adopted keeps running as it is and says why in `trouble`.
        """
        for name in self.store.fabrics():
            record = self.store.load(name)
            assert record is not None
            fabric = self.fabrics[name] = Fabric(self.make_parts(name), record)
            try:
                await self._reconcile(name, fabric)
            except VnetError as error:
                fabric.trouble = str(error)
            except Exception as error:  # a bug met in one fabric must not keep the others from being served
                log.exception("cannot adopt %s", name)
                fabric.trouble = f"internal error: {error!r}"

    async def _reconcile(self, name: str, fabric: Fabric) -> None:
        """Bring the network of an adopted fabric to its last generation; guests stay as they are."""
        for guest in self.store.guests(name):
            await fabric.parts.guests.adopt(guest)
        fabric.declared = await asyncio.to_thread(
            declare, fabric.record.source, fabric.record.assignments, self.host.now()
        )
        now = await observe(fabric.parts, fabric.record, self.store, name)
        wanted = replace(fabric.declared.state(), guests=now.guests)
        await carry_out(p.plan(now, wanted), self._performer(name, fabric.parts), silent)
        generation, boot_id = fabric.record.generation, self.host.boot_id()
        if (fabric.record.enforced, fabric.record.boot_id) != (generation, boot_id):
            fabric.record = replace(fabric.record, enforced=generation, boot_id=boot_id)
            self.store.save(fabric.record)

    async def plan(self, source: Source) -> Outcome:
        """What `up` would do now; changes nothing."""
        topology = await asyncio.to_thread(load, source)
        async with self._locks[topology.name]:
            return (await self._prepare(topology, source)).outcome

    async def up(self, source: Source, report: Report) -> Outcome:
        """Make the fabric what the topology says.

        Raises: InputError, ClaimsFailed, AdmissionError before anything is changed; HostError after
        everything was undone; CancelledError becomes `Interrupted` after the same.
        """
        topology = await asyncio.to_thread(load, source)
        async with self._locks[topology.name]:
            change = await self._prepare(topology, source)
            await self._refuse_what_cannot_be(change)
            await self._make(change, report)
            return change.outcome

    async def _prepare(self, topology: Topology, source: Source) -> Change:
        """Observe and plan."""
        name = topology.name
        fabric = self.fabrics.get(name)
        record = fabric.record if fabric else None
        previous = record.assignments if record else {}
        declared = await asyncio.to_thread(work_out, topology, previous, self.host.now())
        parts = fabric.parts if fabric else self.make_parts(name)
        now = await observe(parts, record, self.store, name)
        wanted = declared.state()
        actions = p.plan(now, wanted)
        generation = (record.generation if record else 0) + bool(actions)
        planned = Record(
            name,
            source,
            generation,
            record.enforced if record else 0,
            self.host.boot_id(),
            declared.inventory.assignments,
            frozenset(),
            declared.provenance_texts(),
        )
        return Change(parts, record, planned, declared, now, wanted, actions)

    async def _refuse_what_cannot_be(self, change: Change) -> None:
        declared = change.declared
        failed = await asyncio.to_thread(self.failed_claims, declared)
        if failed:
            lines = "".join(f"\n  {line}" for line in failed)
            raise ClaimsFailed(
                f"{len(failed)} of the topology's claims do not hold; nothing was changed:{lines}"
            )
        if change.actions:
            self.host.require()
        await self._admit(change.planned.name, change.parts, change.now.guests, change.wanted)

    async def _admit(self, name: str, parts: Parts, now: frozenset[Guest], wanted: State) -> None:
        """Refuse guests that do not fit beside those of all fabrics that run and stay."""
        asked = wanted.guests - now
        if not asked:
            return
        leave = [await parts.guests.status(guest.name) for guest in now - wanted.guests]
        available = self.host.available_memory_bytes() + sum(status.resident_bytes for status in leave)
        stay = [await _commitment(parts, guest) for guest in now & wanted.guests]
        stay += [each for other in self.fabrics if other != name for each in await self._committed(other)]
        admit([(guest.name, guest.memory_bytes) for guest in sorted(asked)], stay, available)

    async def _committed(self, name: str) -> list[Commitment]:
        """What the guests of another fabric may take, those included that it is about to start."""
        fabric = self.fabrics[name]
        guests = await running(fabric.parts, self.store, name) | fabric.starting
        return [await _commitment(fabric.parts, guest) for guest in guests]

    async def _make(self, change: Change, report: Report) -> None:
        """Carry out a change, or leave everything as it was."""
        name = change.planned.name
        self.store.save(change.planned)
        starting = change.wanted.guests - change.now.guests
        was = self.fabrics.get(name)
        self.fabrics[name] = Fabric(change.parts, change.planned, change.declared, starting=starting)
        performer = self._performer(name, change.parts)
        try:
            await self._refuse_foreign(change)
            await carry_out(change.actions, performer, report)
        except (VnetError, asyncio.CancelledError) as error:
            failures = await _uninterrupted(self._roll_back(change, was, performer, report))
            raise _undone(error, change.before is None, failures) from error
        enforced = replace(change.planned, enforced=change.planned.generation)
        self.store.save(enforced)
        self.fabrics[name].record, self.fabrics[name].starting = enforced, frozenset()

    async def _refuse_foreign(self, change: Change) -> None:
        if change.now.namespace:
            strangers = foreign(change.wanted, dict(await change.parts.network.interfaces()))
            if strangers:
                raise HostError(
                    f"interfaces of another kind have the names that ports need: {', '.join(strangers)}; "
                    "remove or rename them in the fabric's network namespace"
                )

    async def _roll_back(
        self, change: Change, was: Fabric | None, performer: Performer, report: Report
    ) -> tuple[str, ...]:
        name = change.planned.name
        report(Progress(0, "undo what was begun", Status.NOTE))
        now = await observe(change.parts, change.planned, self.store, name)
        failures = await undo(p.plan(now, change.now), performer, report)
        if failures:
            return failures
        if was is None or change.before is None:
            await self._forget(name)
        else:
            self.store.save(change.before)
            self.fabrics[name] = was
        return ()

    def next_expiry(self) -> datetime | None:
        """When a rule of some fabric ceases; None if none ever will."""
        declared = (fabric.declared for fabric in self.fabrics.values())
        return min((each.expires for each in declared if each and each.expires), default=None)

    async def expire(self) -> None:
        """Take rules whose time is over out of force, whatever the topology's claims say.

        A fabric where that fails says why in `trouble`, and is tried again by the next call.
        """
        for name, fabric in tuple(self.fabrics.items()):
            expires = fabric.declared.expires if fabric.declared else None
            if expires is None or expires > self.host.now():
                continue
            async with self._locks[name]:
                try:
                    await self._make(await self._without_expired(fabric), silent)
                except VnetError as error:
                    log.warning("rules of %s have expired and are still in force: %s", name, error)
                    self.fabrics[name].trouble = f"rules have expired and are still in force: {error}"

    async def _without_expired(self, fabric: Fabric) -> Change:
        """The change to what is in force now; guests stay as they are."""
        source = fabric.record.source
        change = await self._prepare(await asyncio.to_thread(load, source), source)
        wanted = replace(change.wanted, guests=change.now.guests)
        planned = replace(change.planned, stopped=fabric.record.stopped)
        return replace(change, wanted=wanted, planned=planned, actions=p.plan(change.now, wanted))

    async def down(self, name: str, report: Report) -> Outcome:
        """Remove the fabric and everything that was made for it."""
        async with self._locks[name]:
            fabric = self.fabrics.get(name)
            if fabric is None:
                return Outcome(name, 0, ())
            now = await remains(fabric.parts, self.store, name)
            actions = (*_orphans(self.store.guests(name), now), *p.plan(now, State()))
            failures = await _uninterrupted(undo(actions, self._performer(name, fabric.parts), report))
            if failures:
                raise HostError(
                    "\n".join(["not everything could be removed; run the command again:", *failures])
                )
            await self._forget(name)
            return Outcome(name, fabric.record.generation, actions)

    async def _forget(self, name: str) -> None:
        fabric = self.fabrics.pop(name)
        await _close(fabric.parts)
        self.store.remove(name)
        self.host.tidy(name)

    async def start(self, name: str, vm: str, report: Report) -> Outcome:
        """Start a VM that was stopped or has died."""
        async with self._locks[name]:
            fabric = self.fabric(name)
            guest = self._declared_guest(fabric, vm)
            now = await observe(fabric.parts, fabric.record, self.store, name)
            actions: tuple[p.Action, ...] = () if now.guest(vm) else (p.StartGuest(guest),)
            if actions:
                await self._admit(name, fabric.parts, now.guests, replace(now, guests=now.guests | {guest}))
            fabric.record = replace(fabric.record, stopped=fabric.record.stopped - {vm})
            self.store.save(fabric.record)
            await carry_out(actions, self._performer(name, fabric.parts), report)
            return Outcome(name, fabric.record.generation, actions)

    async def stop(self, name: str, vm: str, timeout_s: float, report: Report) -> Outcome:
        """Power a VM off; its ports and rules stay."""
        async with self._locks[name]:
            fabric = self.fabric(name)
            self._declared_guest(fabric, vm)
            report(Progress(1, f"stop {vm}", Status.STARTED))
            await fabric.parts.guests.stop(vm, timeout_s)
            fabric.record = replace(fabric.record, stopped=fabric.record.stopped | {vm})
            self.store.save(fabric.record)
            report(Progress(1, f"stop {vm}", Status.DONE))
            return Outcome(name, fabric.record.generation, ())

    def fabric(self, name: str) -> Fabric:
        """The fabric of that name. Raises InputError naming those there are."""
        if name not in self.fabrics:
            known = ", ".join(sorted(self.fabrics)) or "none"
            raise InputError(f"there is no fabric {name} on this host; fabrics that are up: {known}")
        return self.fabrics[name]

    def guest(self, name: str, vm: str) -> Guest:
        """The declared guest of that name. Raises InputError naming those there are."""
        return self._declared_guest(self.fabric(name), vm)

    def _declared_guest(self, fabric: Fabric, vm: str) -> Guest:
        if fabric.declared is None:
            raise HostError(f"the fabric {fabric.record.name} could not be read again: {fabric.trouble}")
        guest = fabric.declared.state().guest(vm)
        if guest is None:
            known = ", ".join(each.name for each in fabric.declared.inventory.vms)
            raise InputError(f"there is no VM {vm} in fabric {fabric.record.name}; its VMs: {known}")
        return guest

    def only(self) -> str:
        """The name of the only fabric. Raises UsageError when a name is needed."""
        if len(self.fabrics) == 1:
            return next(iter(self.fabrics))
        known = ", ".join(sorted(self.fabrics)) or "none is up"
        raise UsageError(f"which fabric? name it with -n NAME or -f FILE ({known})")

    def _performer(self, name: str, parts: Parts) -> Performer:
        return Performer(name, parts, self.store)

    async def close(self) -> None:
        """Let go of everything; all of it goes on running."""
        for fabric in self.fabrics.values():
            await _close(fabric.parts)
        self.fabrics.clear()
        self.store.close()


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is planned and not yet begun. `before` is None for a fabric that is new."""

    parts: Parts
    before: Record | None
    planned: Record
    declared: Declared
    now: State
    wanted: State
    actions: tuple[p.Action, ...]

    @property
    def outcome(self) -> Outcome:
        """The change as the user is told of it."""
        return Outcome(self.planned.name, self.planned.generation, self.actions)


def _orphans(known: tuple[Guest, ...], now: State) -> tuple[p.Action, ...]:
    """Guests that do not run but may have left their run directory."""
    return tuple(p.DestroyGuest(guest) for guest in known if guest not in now.guests)


async def _commitment(parts: Parts, guest: Guest) -> Commitment:
    return Commitment(guest.memory_bytes, (await parts.guests.status(guest.name)).resident_bytes)


async def _close(parts: Parts) -> None:
    await parts.guests.close()
    await parts.switch.close()
    await parts.network.close()


async def _uninterrupted(work):  # type: ignore[no-untyped-def]
    """Finish `work` even if the caller is cancelled meanwhile: undoing must not be undone."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise
    return task.result()


def _undone(error: BaseException, was_new: bool, failures: tuple[str, ...]) -> VnetError:
    """The error to tell, with what became of the fabric."""
    what = "nothing is left of it" if was_new else "the fabric is as it was before"
    if failures:
        what = "not everything could be undone, run `vnet down`:\n  " + "\n  ".join(failures)
    if isinstance(error, asyncio.CancelledError):
        return Interrupted(f"interrupted; {what}")
    told = HostError(f"{error}\n{what}")
    told.exit_code = error.exit_code if isinstance(error, VnetError) else Exit.FAILED
    return told
