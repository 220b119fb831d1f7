"""One change of a fabric, from the moment it is planned: carried out as a whole, or undone as a whole.

What is about to be is remembered in the store first, then carried out, then remembered as done. A change
that fails or is interrupted is undone by a plan too: from what is there by then, back to what was there
before. VMs that were suspended then and have gone on are suspended again: only so is their memory kept.
Flows change all at once, so whatever happens the switch has those of the one or the other generation, and the
record tells which (`enforced`) as soon as they are in force.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import Any

from vnet.base.errors import Exit, HostError, VnetError
from vnet.fabric import actions as act
from vnet.fabric.declared import Declared
from vnet.fabric.events import Kind
from vnet.fabric.live.apply import carry_out, undo
from vnet.fabric.live.breaking_off import Interrupted
from vnet.fabric.live.observe import foreign, observe, remains
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.outcome import NO_EFFECTS, Effects, Outcome, summarize
from vnet.fabric.plan import plan
from vnet.fabric.progress import Progress, Report, Status, silent
from vnet.fabric.replay import changes_of_verdict
from vnet.fabric.seen import Seen
from vnet.fabric.sizing import Advice
from vnet.fabric.state import Guest, State
from vnet.fabric.store import Record
from vnet.hv.live.tasks import uninterrupted
from vnet.openflow.conntrack import Direction
from vnet.policy.cuts import cuts
from vnet.policy.reach_changes import Side, reach_changes


@dataclass(frozen=True, slots=True)
class Change:
    """A change that is planned and not yet begun. `before` is None for a fabric that is new."""

    parts: Parts
    before: Record | None
    planned: Record
    declared: Declared
    now: State
    wanted: State
    actions: tuple[act.Action, ...]
    was: Declared | None = None
    """What was declared before, as far as it is known."""
    connections: tuple[Direction, ...] = ()
    """Those that the switch tracked when the change was planned."""
    seen: tuple[Seen, ...] = ()
    """What was recorded, to be run through the change."""
    advice: tuple[Advice, ...] = ()
    """About the VMs that it starts."""
    suspended: frozenset[str] = frozenset()
    """The VMs whose memory was kept when it was planned."""
    confirm_s: float | None = None
    """How long it waits for its confirmation once it is made; None if it needs none."""

    @property
    def outcome(self) -> Outcome:
        """The change as the user is told of it."""
        effects = self._effects(self.was) if self.was and self.actions else NO_EFFECTS
        suspended = self.suspended
        summary = summarize(
            self.now, self.wanted, self.actions, self.before, self.planned, effects, suspended
        )
        return Outcome(self.planned.name, self.planned.generation, self.actions, summary, self.advice)

    def _effects(self, was: Declared) -> Effects:
        before = Side(self.now.flows, was.compiled.identities, was.topology)
        after = Side(self.wanted.flows, self.declared.compiled.identities, self.declared.topology)
        ends = act.DestroyGuest | act.RestartGuest
        ended = {action.guest.name for action in self.actions if isinstance(action, ends)}
        return Effects(
            reach_changes(before, after, self.now.flows ^ self.wanted.flows),
            cuts(before, after, self.connections, ended),
            changes_of_verdict(self.seen, was, self.declared) if self.seen else (),
        )


async def make(registry: Registry, change: Change, report: Report) -> None:
    """Carry out a change, or leave everything as it was."""
    name = change.planned.name
    registry.store.save(change.planned)
    was = registry.fabrics.get(name)
    starting = change.wanted.guests - change.now.guests
    fabric = Fabric(change.parts, change.planned, change.declared, starting=starting)
    registry.fabrics[name] = fabric
    try:
        await _refuse_foreign(change)
        await carry_out(change.actions, registry.performer(fabric, change.planned.generation), report)
        registry.save(fabric, _completed(registry, change))
        _tell_made(registry, change)
    except (VnetError, asyncio.CancelledError) as error:
        failures = await uninterrupted(_undo(registry, change, was, report))
        undone = _undone(error, change.before is None, failures)
        _tell_undone(registry, change, undone)
        raise undone from error
    finally:
        fabric.starting = frozenset()
    await sweep(registry, fabric)


async def sweep(registry: Registry, fabric: Fabric) -> None:
    """Throws away what is left of VMs that do not run and are declared no more, such as memory that was kept.

    Not while a change waits for its confirmation, which they would come back without. What cannot be removed
    is tried again after the next change, and by the next daemon.
    """
    if fabric.record.pending is not None or fabric.declared is None:
        return
    declared = {vm.name for vm in fabric.declared.inventory.vms}
    gone = [guest for guest in registry.store.guests(fabric.record.name) if guest.name not in declared]
    actions = [act.DestroyGuest(guest) for guest in gone]
    failures = await uninterrupted(undo(actions, registry.performer(fabric, fabric.record.enforced), silent))
    if failures:
        fabric.trouble = "what is left of VMs that are gone could not be removed: " + "; ".join(failures)


def _generations(change: Change) -> dict[str, Any]:
    before = change.before.generation if change.before else 0
    return {"generation": change.planned.generation, "from": before}


def _tell_made(registry: Registry, change: Change) -> None:
    """Nothing to do is nothing to tell."""
    if change.actions:
        name, generation = change.planned.name, change.planned.generation
        fields = {**_generations(change), **_counts(change.actions)}
        registry.events.tell(Kind.PLAN_APPLIED, f"{name} is at generation {generation}", name, fields=fields)


def _counts(actions: tuple[act.Action, ...]) -> dict[str, int]:
    flows = [action for action in actions if isinstance(action, act.ApplyFlows)]
    return {
        "actions": len(actions),
        "vms_started": sum(isinstance(action, act.StartGuest) for action in actions),
        "vms_changed": sum(isinstance(action, act.ChangeGuest) for action in actions),
        "vms_restarted": sum(isinstance(action, act.RestartGuest) for action in actions),
        "vms_ended": sum(isinstance(action, act.DestroyGuest) for action in actions),
        "flows_put": sum(len(change.put) for change in flows),
        "flows_removed": sum(len(change.remove) for change in flows),
    }


def _tell_undone(registry: Registry, change: Change, error: VnetError) -> None:
    fields = {**_generations(change), "error": str(error)}
    text = f"generation {change.planned.generation} could not be made: {error}"
    registry.events.tell(Kind.PLAN_FAILED, text, change.planned.name, fields=fields)


def _completed(registry: Registry, change: Change) -> Record:
    """The record of the change now that it is made: the time to confirm it begins."""
    record = replace(change.planned, enforced=change.planned.generation)
    if record.pending is None or change.confirm_s is None:
        return record
    return replace(
        record, pending=replace(record.pending, deadline_s=registry.host.uptime_s() + change.confirm_s)
    )


async def _refuse_foreign(change: Change) -> None:
    if change.now.namespace:
        strangers = foreign(change.now, change.wanted, dict(await change.parts.network.interfaces()))
        if strangers:
            raise HostError(
                f"interfaces of another kind have the names that ports need: {', '.join(strangers)}; "
                "remove or rename them in the fabric's network namespace"
            )


async def _undo(registry: Registry, change: Change, was: Fabric | None, report: Report) -> tuple[str, ...]:
    """Bring everything back. Returns what could not be, in words; then the record of the change stays."""
    report(Progress(0, "undo what was begun", Status.NOTE))
    fabric = registry.fabrics[change.planned.name]
    performer = registry.performer(fabric, change.before.enforced if change.before else 0)
    try:
        now = await observe(change.parts, change.planned, registry.store, change.planned.name)
        failures = await undo(plan(now, change.now, change.suspended), performer, report)
        if not failures:
            await _restore(registry, change, was)
    except VnetError as error:
        failures = (str(error),)
    if failures:
        fabric.trouble = "a change could be neither completed nor undone: " + "; ".join(failures)
    return failures


async def _restore(registry: Registry, change: Change, was: Fabric | None) -> None:
    if was is None or change.before is None:
        await registry.forget(change.planned.name)
    else:
        registry.store.save(change.before)
        registry.fabrics[change.planned.name] = was


async def remove(registry: Registry, name: str, report: Report) -> Outcome:
    """Remove a fabric and everything that was made for it. Raises HostError naming what could not be."""
    fabric = registry.fabric(name)
    now = await remains(fabric.parts, registry.store, name)
    actions = (*_orphans(registry.store.guests(name), now), *plan(now, State()))
    failures = await uninterrupted(undo(actions, registry.performer(fabric, 0), report))
    if failures:
        raise HostError("\n".join(["not everything could be removed; run the command again:", *failures]))
    await registry.forget(name)
    fields = {"generation": fabric.record.generation}
    registry.events.tell(Kind.REMOVED, f"{name} is down", name, fields=fields)
    return Outcome(name, fabric.record.generation, actions)


def _orphans(known: tuple[Guest, ...], now: State) -> tuple[act.Action, ...]:
    """Guests that do not run but may have left their run directory."""
    return tuple(act.DestroyGuest(guest) for guest in known if guest not in now.guests)


def _undone(error: BaseException, was_new: bool, failures: tuple[str, ...]) -> VnetError:
    """The error to tell, with what became of the fabric."""
    what = "nothing is left of it" if was_new else "the fabric is as it was before"
    if failures:
        go_on = "`vnet up` goes on from what is there, `vnet down` removes all"
        what = f"not everything could be undone; {go_on}:\n  " + "\n  ".join(failures)
    if isinstance(error, asyncio.CancelledError):
        return Interrupted(f"interrupted; {what}")
    told = HostError(f"{error}\n{what}")
    told.exit_code = error.exit_code if isinstance(error, VnetError) else Exit.FAILED
    return told
