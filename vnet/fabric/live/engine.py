"""All fabrics of this host: brings them up and down, adopts them after a restart, answers about them.

Every change has the same shape: observe, plan, then `change.make`, which carries it out or leaves everything
as it was.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime

from vnet.base.errors import Exit, HostError, VnetError
from vnet.fabric import actions as act
from vnet.fabric import disk_sizing
from vnet.fabric.declared import load, work_out
from vnet.fabric.events import Kind
from vnet.fabric.live import confirmation, refusals
from vnet.fabric.live.apply import carry_out
from vnet.fabric.live.breaking_off import Interrupted, finished
from vnet.fabric.live.change import Change, make, remove, sweep
from vnet.fabric.live.filters import check_filters
from vnet.fabric.live.in_the_way import awaited, refuse_cables, refuse_endpoints
from vnet.fabric.live.observe import ALIVE, observe, suspended
from vnet.fabric.live.parts import Guests
from vnet.fabric.live.recorded import Recorded, nothing
from vnet.fabric.live.refusals import FailedClaims
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.room import refuse_lines_without_queues
from vnet.fabric.live.telling import telling
from vnet.fabric.outcome import Outcome
from vnet.fabric.plan import plan
from vnet.fabric.progress import Report, silent
from vnet.fabric.restart import begin_again
from vnet.fabric.shrunk import refuse_smaller_disks
from vnet.fabric.sizing import Advice, advice
from vnet.fabric.state import Guest, State, guest_of
from vnet.fabric.store import Record, Source
from vnet.hv.live.tasks import all_of
from vnet.hv.spec import GuestState
from vnet.topology.model import Topology

log = logging.getLogger(__name__)


class AskFirst(VnetError):
    """The plan removes more than it keeps, and nobody has agreed to that; nothing was changed."""

    exit_code = Exit.REFUSED


class PlanChanged(VnetError):
    """The plan is no longer the one that was agreed to; nothing was changed."""

    exit_code = Exit.REFUSED


@dataclass(frozen=True, slots=True)
class Terms:
    """On which `up` is to make a change.

    `confirm_s`: undo it when nobody confirms it for so long. `agreed`: even if it removes more than it keeps.
    `plan`: only if the plan is this one (`Outcome.id`); empty for any. `recorded` is told what becomes of it.
    `starts`: VMs that do not run are started.
    """

    confirm_s: float | None = None
    agreed: bool = False
    plan: str = ""
    recorded: Recorded = nothing
    starts: bool = True


@dataclass(slots=True)
class Engine(Registry):
    """See the module. Operations on one fabric wait for each other; those on two do not."""

    failed_claims: FailedClaims

    async def adopt(self) -> None:
        """Take over everything an earlier daemon left running; changes only what differs.

        A fabric that cannot be adopted keeps running as it is and says why in `trouble`.
        """
        for name in self.store.fabrics():
            record = self.store.load(name)
            assert record is not None
            fabric = self.fabrics[name] = Fabric(self.make_parts(name), record)
            fabric.parts.log.resume()
            try:
                await self._reconcile(name, fabric)
            except VnetError as error:
                fabric.trouble = str(error)
            except Exception as error:  # a bug met in one fabric must not keep the others from being served
                log.exception("cannot adopt %s", name)
                fabric.trouble = f"internal error: {error!r}"
            await self._tell_adopted(fabric)

    async def _tell_adopted(self, fabric: Fabric) -> None:
        record, trouble = fabric.record, fabric.trouble
        text = f"{record.name} was taken over{f', but: {trouble}' if trouble else ''}"
        guests = {guest.name for guest in self.store.guests(record.name)} - record.stopped
        states = {name: (await fabric.parts.guests.status(name)).state for name in sorted(guests)}
        ended = [name for name, state in states.items() if state not in ALIVE]
        text += f"; VMs that no longer run: {', '.join(ended)}" if ended else ""
        generations = {"generation": record.generation, "enforced": record.enforced}
        fields = {**generations, "trouble": trouble, "not_running": ended}
        self.events.tell(Kind.ADOPTED, text, record.name, fields=fields)

    async def _reconcile(self, name: str, fabric: Fabric) -> None:
        """Bring the network of an adopted fabric to its last generation; guests stay as they are.

        But those that it has no more go: a daemon was killed that was about to remove them. And those that it
        was about to change are changed, or as they were.
        """
        for guest in self.store.guests(name):
            await fabric.parts.guests.adopt(guest)
        await fabric.parts.guests.recover()
        await self._take_up_changes(name, fabric)
        given_up = confirmation.adopt(self, fabric)
        topology = await asyncio.to_thread(load, fabric.record.source)
        mtus, previous = await fabric.parts.cables.mtus(topology), fabric.record.assignments
        fabric.declared = await asyncio.to_thread(
            work_out, topology, previous, self.host.now(), interfaces=mtus
        )
        self._begin_lives_again(fabric, await suspended(fabric.parts, self.store, name))
        now = await observe(fabric.parts, fabric.record, self.store, name)
        if given_up:
            return
        known = {vm.name for vm in fabric.declared.inventory.vms}
        gone = tuple(guest for guest in self.store.guests(name) if guest.name not in known)
        wanted = replace(fabric.declared.state(), guests=now.guests - frozenset(gone))
        generation, boot_id = fabric.record.generation, self.host.boot_id()
        await carry_out(plan(now, wanted), self.performer(fabric, generation), silent)
        if (fabric.record.enforced, fabric.record.boot_id) != (generation, boot_id):
            self.save(fabric, replace(fabric.record, enforced=generation, boot_id=boot_id))
        await sweep(self, fabric)

    async def _take_up_changes(self, name: str, fabric: Fabric) -> None:
        """Of guests that a daemon was killed in; the ports that they need were there before."""
        performer = self.performer(fabric, fabric.record.generation)
        torn = [guest for guest in self.store.guests(name) if guest.is_half_changed]
        await all_of(map(performer.take_up, torn))

    def _begin_lives_again(self, fabric: Fabric, suspended: frozenset[str]) -> None:
        """What the daemon's start means for VMs that were stopped, and for those that start automatically."""
        assert fabric.declared is not None
        lives = {vm.name: vm.life for vm in fabric.declared.inventory.vms}
        booted = fabric.record.boot_id != self.host.boot_id()
        again = begin_again(lives, fabric.record.stopped, booted, suspended)
        if again:
            self.save(fabric, replace(fabric.record, stopped=fabric.record.stopped - again))
        automatic = {name for name, life in lives.items() if life.autostart}
        fabric.automatic = frozenset(automatic - fabric.record.stopped) | again

    async def plan(self, source: Source, recorded: Recorded = nothing) -> Outcome:
        """What `up` would do now, and whether it would be refused; changes nothing.

        What is `recorded` is run through it.
        """
        topology = await asyncio.to_thread(load, source)
        async with self.locks[topology.name]:
            change = await self._prepare(topology, source, recorded)
            refused = await refusals.found(self, self.failed_claims, change)
            return replace(await asyncio.to_thread(lambda: change.outcome), refused=refused)

    async def up(self, source: Source, report: Report, terms: Terms = Terms()) -> Outcome:
        """Make the fabric what the topology says.

        A plan is told before its first step, and carried out under the same lock: nothing comes between.

        Raises: InputError, NotConfirmed, ClaimsFailed, AdmissionError, PlanChanged, AskFirst before anything
        is changed; HostError after everything was undone; CancelledError becomes `Interrupted` then too.
        """
        topology = await asyncio.to_thread(load, source)
        async with self.locks[topology.name]:
            change = await self._prepare(topology, source, terms.recorded, starts=terms.starts)
            if change.actions and terms.confirm_s is not None:
                change = confirmation.required(change, terms.confirm_s)
            await refusals.refuse(self, self.failed_claims, change)
            outcome = await asyncio.to_thread(_agreed, change, terms)
            if outcome.actions:
                report(outcome)
            await make(self, change, report)
            return outcome

    async def _prepare(
        self, topology: Topology, source: Source, recorded: Recorded = nothing, *, starts: bool = True
    ) -> Change:
        """Observe and plan."""
        await asyncio.to_thread(check_filters, topology)
        name = topology.name
        fabric = self.fabrics.get(name)
        record = fabric.record if fabric else None
        previous = record.assignments if record else {}
        parts = fabric.parts if fabric else self.make_parts(name)
        mtus, now = await parts.cables.mtus(topology), self.host.now()
        declared = await asyncio.to_thread(work_out, topology, previous, now, self.compile, mtus)
        await asyncio.to_thread(refuse_lines_without_queues, declared.inventory, self.host.has_queue)
        observed = await observe(parts, record, self.store, name)
        refuse_smaller_disks(declared.inventory, observed)
        wanted = declared.state() if starts else _without_starts(declared.state(), observed)
        actions = plan(observed, wanted)
        await refuse_cables(parts, declared, actions)
        await refuse_endpoints(parts, declared, actions)
        generation = (record.generation if record else 0) + bool(actions)
        planned = Record(
            name,
            source,
            generation,
            record.enforced if record else 0,
            self.host.boot_id(),
            declared.inventory.assignments,
            frozenset() if starts or record is None else record.stopped,
            declared.provenance_texts(),
        )
        was = fabric.declared if fabric else None
        tracked = await parts.switch.connections() if was and actions and observed.switch else ()
        seen = await recorded(name) if was and actions else ()
        hints = await asyncio.to_thread(self._advice, name, wanted.guests - observed.guests)
        hints += await awaited(parts, actions)
        kept = await suspended(parts, self.store, name)
        return Change(
            parts, record, planned, declared, observed, wanted, actions, was, tracked, seen, hints, kept
        )

    def _advice(self, name: str, guests: Collection[Guest]) -> tuple[Advice, ...]:
        """About the sizes of guests that are to be started."""
        host = self.host
        disks = (disk for guest in guests for disk in host.disks(name, guest))
        return (*advice(guests, host.cpus(), host.memory_bytes()), *disk_sizing.advice(disks))

    def next_expiry(self) -> datetime | None:
        """When a rule of some fabric ceases; None if none ever will."""
        declared = (fabric.declared for fabric in self.fabrics.values())
        return min((each.expires for each in declared if each and each.expires), default=None)

    async def expire(self) -> None:
        """Take rules whose time is over out of force, whatever the topology's claims say.

        A fabric where that fails says why in `trouble`, and is tried again by the next call.
        """
        for name in filter(self._has_expired, tuple(self.fabrics)):
            async with self.locks[name]:
                if not self._has_expired(name):  # what held the lock saw to it, or took the fabric down
                    continue
                try:
                    await make(self, await self._without_expired(self.fabrics[name]), silent)
                except VnetError as error:
                    log.warning("rules of %s have expired and are still in force: %s", name, error)
                    self.fabrics[name].trouble = f"rules have expired and are still in force: {error}"

    def _has_expired(self, name: str) -> bool:
        declared = self.fabrics[name].declared if name in self.fabrics else None
        return bool(declared and declared.expires and declared.expires <= self.host.now())

    async def _without_expired(self, fabric: Fabric) -> Change:
        """The change to what is in force now; guests stay as they are."""
        source = fabric.record.source
        change = await self._prepare(await asyncio.to_thread(load, source), source)
        wanted = replace(change.wanted, guests=change.now.guests)
        record = fabric.record
        planned = replace(change.planned, stopped=record.stopped, pending=record.pending)
        return replace(change, wanted=wanted, planned=planned, actions=plan(change.now, wanted))

    async def confirm(self, name: str) -> Outcome:
        """Keep the last change. Raises NothingToConfirm."""
        return await confirmation.confirm(self, name)

    async def roll_back(self, name: str, report: Report) -> Outcome:
        """Undo the last change without waiting any longer. Raises NothingToConfirm, HostError."""
        return await confirmation.roll_back(self, name, report)

    async def roll_back_due(self) -> None:
        """Undo every change that nobody confirmed in time."""
        await confirmation.roll_back_due(self)

    def confirm_left_s(self, name: str) -> float | None:
        """The seconds that are left to confirm a fabric's last change; None when nothing waits."""
        return confirmation.left_s(self, self.fabric(name))

    async def down(self, name: str, report: Report) -> Outcome:
        """Remove the fabric and everything that was made for it."""
        async with self.locks[name]:
            if name not in self.fabrics:
                return Outcome(name, 0, ())
            return await remove(self, name, report)

    async def start(self, name: str, vm: str, report: Report, *, boot: bool = False) -> Outcome:
        """Start a VM that was stopped or has died. With `boot` also one that is suspended boots."""
        async with self.locks[name]:
            fabric = self.fabric(name)
            guest = guest_of(fabric.vm(vm))
            now = await observe(fabric.parts, fabric.record, self.store, name)
            actions: tuple[act.Action, ...] = () if now.guest(vm) else (act.StartGuest(guest),)
            if actions:
                await refusals.refuse_start(self, name, fabric, now, guest)
                if boot:
                    await fabric.parts.guests.forget_memory(vm)
            self.save(fabric, replace(fabric.record, stopped=fabric.record.stopped - {vm}))
            try:
                await carry_out(actions, self.performer(fabric, fabric.record.enforced), report)
            except asyncio.CancelledError:
                if (await fabric.parts.guests.status(vm)).state in ALIVE:
                    raise Interrupted(f"interrupted; {vm} runs all the same") from None
                raise
            return Outcome(name, fabric.record.generation, actions)

    async def start_again(self, name: str, vm: str) -> bool:
        """Start a VM that has ended, unless somebody else did, or wants it to stay so. Returns whether."""
        async with self.locks[name]:
            fabric = self.fabrics.get(name)
            wanted = (
                fabric.declared.state(fabric.record.stopped).guest(vm) if fabric and fabric.declared else None
            )
            if fabric is None or fabric.declared is None or wanted is None:
                return False
            now = await observe(fabric.parts, fabric.record, self.store, name)
            if now.guest(vm):
                return False
            await refusals.refuse_start(self, name, fabric, now, wanted)
            await carry_out((act.StartGuest(wanted),), self.performer(fabric, fabric.record.enforced), silent)
            return True

    async def stop(self, name: str, vm: str, timeout_s: float, report: Report) -> Outcome:
        """Power a VM off; its ports and rules stay. That is finished, whoever breaks it off.

        Raises: InputError if there is none; HostError for one that is suspended: nobody has given it up.
        """
        async with self.locks[name]:
            fabric = self.fabric(name)
            fabric.vm(vm)  # refuses those that there are not
            if (await fabric.parts.guests.status(vm)).state is GuestState.SUSPENDED:
                raise HostError(
                    f"{vm} is suspended and does not run, nothing was changed: `vnet start {vm}` lets it go"
                    f" on, `vnet start --boot {vm}` gives up what is in its memory"
                )
            await finished(self._stop(fabric, vm, timeout_s, report), f"{vm} was stopped all the same")
            return Outcome(name, fabric.record.generation, ())

    async def _stop(self, fabric: Fabric, vm: str, timeout_s: float, report: Report) -> None:
        with telling(report, 1, f"stop {vm}", 1):
            await fabric.parts.guests.stop(vm, timeout_s)
            record = fabric.record
            self.save(fabric, replace(record, stopped=record.stopped | {vm}))
        self.events.tell(Kind.VM_STOPPED, f"{vm} was stopped", record.name, vm, {"why": "stopped"})

    async def pause(self, name: str, vm: str, report: Report) -> Outcome:
        """Let a VM stand still; its ports, rules and connections stay."""
        what = f"pause {vm}"
        return await self._change_vm(name, vm, what, lambda guests: guests.pause(vm), Kind.VM_PAUSED, report)

    async def resume(self, name: str, vm: str, report: Report) -> Outcome:
        """Let a paused VM go on, or one that was suspended."""
        status = await self.fabric(name).parts.guests.status(vm)
        if status.state is GuestState.SUSPENDED:
            return await self.start(name, vm, report)
        what = f"resume {vm}"
        return await self._change_vm(
            name, vm, what, lambda guests: guests.resume(vm), Kind.VM_RESUMED, report
        )

    async def reset(self, name: str, vm: str, report: Report) -> Outcome:
        """Press a VM's reset button; returns once it answers again."""
        what = f"reset {vm}"
        return await self._change_vm(
            name, vm, what, lambda guests: guests.reset(vm), Kind.VM_REBOOTED, report
        )

    async def _change_vm(
        self,
        name: str,
        vm: str,
        what: str,
        change: Callable[[Guests], Awaitable[None]],
        kind: Kind,
        report: Report,
    ) -> Outcome:
        """What is done to one VM that runs and goes on."""
        async with self.locks[name]:
            fabric = self.fabric(name)
            fabric.vm(vm)  # refuses those that there are not
            await finished(
                self._changed(fabric, vm, what, change, kind, report), f"{what}: done all the same"
            )
            return Outcome(name, fabric.record.generation, ())

    async def _changed(
        self,
        fabric: Fabric,
        vm: str,
        what: str,
        change: Callable[[Guests], Awaitable[None]],
        kind: Kind,
        report: Report,
    ) -> None:
        with telling(report, 1, what, 1):
            await change(fabric.parts.guests)
        text = f"{vm}: {what.partition(' ')[0]} as asked"
        self.events.tell(kind, text, fabric.record.name, vm, {"why": "asked"})

    def guest(self, name: str, vm: str) -> Guest:
        """The declared guest of that name. Raises InputError naming those there are."""
        return guest_of(self.fabric(name).vm(vm))

    def alone(self, name: str) -> asyncio.Lock:
        """What operations on a fabric hold while they need it to stay as it is."""
        return self.locks[name]


def _without_starts(wanted: State, now: State) -> State:
    """What is wanted, but only of the VMs that run."""
    return replace(wanted, guests=frozenset(guest for guest in wanted.guests if now.guest(guest.name)))


def _agreed(change: Change, terms: Terms) -> Outcome:
    """What the change comes to. Raises PlanChanged and AskFirst when that was not agreed to."""
    outcome, name = change.outcome, change.planned.name
    if terms.plan and terms.plan != outcome.id:
        raise PlanChanged(
            f"the plan of {name} is no longer {terms.plan}; nothing was changed. Look at it with `vnet plan`"
        )
    if outcome.summary.removes_most and not terms.agreed:
        raise AskFirst(
            f"this plan would remove {outcome.summary.removal} of {name}, more than it keeps; nothing was"
            " changed. Look at it with `vnet plan`; `vnet up --yes` does it"
        )
    return outcome
