"""Changes that wait for `vnet confirm`, and are rolled back by the daemon itself when it does not come.

What was before is in the store before the change begins, and the deadline when it is in force, so a daemon
that was killed meanwhile is no excuse: the next one goes on waiting, or rolls back at once when the time is
over, the change was never completed, or the host was booted since. The deadline counts on the clock that runs
since boot, which nobody can set. A rollback that was broken off is taken up again in the same way.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from vnet.base.errors import Exit, HostError, VnetError
from vnet.fabric import actions as act
from vnet.fabric.declared import declare
from vnet.fabric.events import Kind
from vnet.fabric.live.apply import undo
from vnet.fabric.live.change import Change, remove, sweep
from vnet.fabric.live.observe import observe
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.outcome import Outcome
from vnet.fabric.plan import plan
from vnet.fabric.progress import Report, silent
from vnet.fabric.state import State
from vnet.fabric.store import Pending, Record
from vnet.hv.spec import GuestState

log = logging.getLogger(__name__)

RETRY_S = 10.0
"""A rollback that failed is tried again after so long."""


class NotConfirmed(VnetError):
    """An earlier change waits for its confirmation; nothing was changed."""

    exit_code = Exit.REFUSED


class NothingToConfirm(VnetError):
    """No change waits, or it is too late."""


def required(change: Change, confirm_s: float) -> Change:
    """The same change, to be confirmed within so long after it is made."""
    before = replace(change.before, provenance={}) if change.before else None
    ran = frozenset(guest.name for guest in change.now.guests)
    pending = Pending(change.planned.boot_id, None, before, ran, change.suspended)
    return replace(change, planned=replace(change.planned, pending=pending), confirm_s=confirm_s)


def adopt(registry: Registry, fabric: Fabric) -> bool:
    """Whether the change of an adopted fabric is to be rolled back and not to be completed.

    So it is when its time is over and when the daemon was killed while it was being made.
    """
    pending = fabric.record.pending
    if pending is not None and pending.deadline_s is None:
        registry.save_pending(fabric, replace(pending, deadline_s=0.0))
    return left_s(registry, fabric) == 0


def left_s(registry: Registry, fabric: Fabric) -> float | None:
    """The seconds that are left to confirm the fabric's last change; None when nothing waits."""
    pending = fabric.record.pending
    if pending is None or pending.deadline_s is None:
        return None
    due = pending.is_due(registry.host.boot_id(), registry.host.uptime_s())
    return 0.0 if due else pending.deadline_s - registry.host.uptime_s()


def refuse_while_one_waits(registry: Registry, name: str) -> None:
    """Raise NotConfirmed when the fabric's last change is neither confirmed nor rolled back."""
    left = left_s(registry, registry.fabrics[name]) if name in registry.fabrics else None
    if left == 0:
        raise NotConfirmed(
            f"generation {registry.fabrics[name].record.generation} of {name} was not confirmed, and is not"
            f" undone yet; nothing was changed. `vnet rollback -n {name}` tries it again and says what is in"
            " the way"
        )
    if left is not None:
        raise NotConfirmed(
            f"generation {registry.fabrics[name].record.generation} of {name} waits for its confirmation,"
            f" {left:.0f} s are left; nothing was changed. `vnet confirm -n {name}` keeps it,"
            f" `vnet rollback -n {name}` undoes it; then run the command again"
        )


async def confirm(registry: Registry, name: str) -> Outcome:
    """Keep the last change. Raises NothingToConfirm."""
    async with registry.locks[name]:
        fabric, _ = _waiting(registry, name)
        if not left_s(registry, fabric):
            raise NothingToConfirm(
                f"too late: generation {fabric.record.generation} of {name} is to be undone: it was not"
                " confirmed in time, or never completed"
            )
        registry.save_pending(fabric, None)
        generation = fabric.record.generation
        text = f"generation {generation} was confirmed"
        registry.events.tell(Kind.CONFIRMED, text, name, fields={"generation": generation})
        await sweep(registry, fabric)
        return Outcome(name, fabric.record.generation, ())


async def roll_back(registry: Registry, name: str, report: Report) -> Outcome:
    """Undo the last change without waiting any longer. Raises NothingToConfirm, HostError."""
    async with registry.locks[name]:
        return await _roll_back(registry, *_waiting(registry, name), report)


def _waiting(registry: Registry, name: str) -> tuple[Fabric, Pending]:
    fabric = registry.fabric(name)
    if fabric.record.pending is None:
        raise NothingToConfirm(
            f"no change of {name} waits for confirmation; generation {fabric.record.generation} is wanted"
        )
    return fabric, fabric.record.pending


async def roll_back_due(registry: Registry) -> None:
    """Undo every change whose time is over. A fabric where that fails says why in `trouble`."""
    due = [name for name in registry.fabrics if _is_due(registry, name)]
    await asyncio.gather(*(_roll_back_due(registry, name) for name in due))


def _is_due(registry: Registry, name: str) -> bool:
    """Whether time is over, of a fabric that has not just been tried."""
    fabric = registry.fabrics.get(name)
    return (
        fabric is not None and left_s(registry, fabric) == 0 and fabric.retry_at_s <= registry.host.uptime_s()
    )


async def _roll_back_due(registry: Registry, name: str) -> None:
    async with registry.locks[name]:
        if not _is_due(registry, name):  # what held the lock has seen to it
            return
        fabric, pending = _waiting(registry, name)
        generation = fabric.record.generation
        try:
            outcome = await _roll_back(registry, fabric, pending, silent)
        except VnetError as error:
            _postpone(registry, fabric, str(error))
        except Exception as error:  # a bug met in one fabric must not keep the others from being served
            log.exception("cannot roll %s back", name)
            _postpone(registry, fabric, f"internal error: {error!r}")
        else:
            what = (
                f"generation {outcome.generation} is back" if pending.before else "it was new, and is removed"
            )
            log.warning("%s: generation %d was not confirmed: %s", name, generation, what)


def _postpone(registry: Registry, fabric: Fabric, why: str) -> None:
    fabric.retry_at_s = registry.host.uptime_s() + RETRY_S
    fabric.trouble = (
        f"generation {fabric.record.generation} was not confirmed and is still to be undone: {why}"
    )
    log.warning("%s: %s", fabric.record.name, fabric.trouble)


async def _roll_back(registry: Registry, fabric: Fabric, pending: Pending, report: Report) -> Outcome:
    """Bring the fabric back; from its first moment on nobody can confirm the change any more."""
    registry.save_pending(fabric, replace(pending, deadline_s=0.0))
    generation, name = fabric.record.generation, fabric.record.name
    if pending.before is None:
        outcome = await remove(registry, name, report)
    else:
        outcome = await _bring_back(registry, fabric, pending.before, pending, report)
    back = pending.before.generation if pending.before else 0
    text = (
        f"generation {generation} was undone: {f'{back} is back' if back else 'it was new, and is removed'}"
    )
    registry.events.tell(Kind.ROLLED_BACK, text, name, fields={"generation": back, "from": generation})
    return outcome


async def _bring_back(
    registry: Registry, fabric: Fabric, before: Record, pending: Pending, report: Report
) -> Outcome:
    name, host = before.name, registry.host
    declared = await asyncio.to_thread(declare, before.source, before.assignments, host.now())
    now = await observe(fabric.parts, fabric.record, registry.store, name)
    wanted = _with_guests(declared.state(), now, pending, host.boot_id())
    actions = plan(now, wanted, pending.suspended)
    await _make_ready(fabric, actions)
    failures = await undo(actions, registry.performer(fabric, before.generation), report)
    if failures:
        raise HostError("\n".join([f"generation {before.generation} is not entirely back:", *failures]))
    texts = declared.provenance_texts()
    record = replace(before, enforced=before.generation, boot_id=host.boot_id(), provenance=texts)
    registry.store.save(record)
    registry.fabrics[name] = back = Fabric(fabric.parts, record, declared)
    await sweep(registry, back)
    return Outcome(name, record.generation, actions)


async def _make_ready(fabric: Fabric, actions: tuple[act.Action, ...]) -> None:
    """What was done to VMs meanwhile is not in the way: who stands still goes on, and memory that only fits
    what is undone is given up."""
    guests = fabric.parts.guests
    for action in actions:
        match action:
            case act.ChangeGuest(guest=guest):
                if (await guests.status(guest.name)).state is GuestState.PAUSED:
                    await guests.resume(guest.name)
            case act.StartGuest(guest):
                try:
                    await guests.refuse_memory(guest)
                except HostError as error:
                    log.warning("%s: %s", fabric.record.name, error)
                    await guests.forget_memory(guest.name)


def _with_guests(declared: State, now: State, pending: Pending, boot_id: str) -> State:
    """Those that ran. After a boot of the host none does, and none is started: guests wait for `vnet up`."""
    if pending.boot_id != boot_id:
        return replace(declared, guests=declared.guests & now.guests)
    return replace(declared, guests=frozenset(each for each in declared.guests if each.name in pending.ran))
