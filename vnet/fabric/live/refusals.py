"""What keeps a change from being made: `up` and `start` raise it and change nothing, `plan` tells of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from vnet.base.errors import Exit, HostError, VnetError
from vnet.fabric.actions import ChangeGuest
from vnet.fabric.declared import Declared
from vnet.fabric.live.boots import refuse_what_cannot_boot
from vnet.fabric.live.change import Change
from vnet.fabric.live.confirmation import refuse_while_one_waits
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.room import refuse_what_does_not_fit
from vnet.fabric.state import Guest, State, guest_of
from vnet.hv.spec import GuestState

FailedClaims = Callable[[Declared], tuple[str, ...]]
"""A topology's claims that its own flows do not meet, each with the reason."""


class ClaimsFailed(VnetError):
    """Lines of `verify` that do not hold; nothing was changed."""

    exit_code = Exit.CLAIM_FAILED


async def found(registry: Registry, failed_claims: FailedClaims, change: Change) -> VnetError | None:
    """What `refuse` would raise."""
    try:
        await refuse(registry, failed_claims, change)
    except VnetError as error:
        return error
    return None


async def refuse(registry: Registry, failed_claims: FailedClaims, change: Change) -> None:
    """Looks at all in turn; the first that is in the way is raised.

    Raises: NotConfirmed, ClaimsFailed, HostError, InputError, AdmissionError.
    """
    refuse_while_one_waits(registry, change.planned.name)
    await _refuse_failed_claims(failed_claims, change.declared)
    if change.actions:
        registry.host.require()
    await _refuse_conflicts(change)
    await _refuse_to_change_who_stands_still(change)
    name, now = change.planned.name, change.now.guests
    begin = change.wanted.guests - now
    await refuse_what_cannot_boot(registry.host.obstacles, change.declared, begin)
    await refuse_what_does_not_fit(registry, name, change.parts, now, change.wanted)
    for guest in sorted(begin | _changed_in_their_sleep(change)):
        await change.parts.guests.refuse_memory(guest)


async def refuse_start(registry: Registry, name: str, fabric: Fabric, now: State, guest: Guest) -> None:
    """The same for one more guest of a fabric that is up. Raises InputError, AdmissionError."""
    assert fabric.declared is not None
    await refuse_what_cannot_boot(registry.host.obstacles, fabric.declared, (guest,))
    room = replace(now, guests=now.guests | {guest})
    await refuse_what_does_not_fit(registry, name, fabric.parts, now.guests, room)


def _changed_in_their_sleep(change: Change) -> frozenset[Guest]:
    """The guests whose memory is kept and that are declared in another way now, started or not."""
    if change.was is None:
        return frozenset()
    return _asleep(change.declared, change.suspended) - _asleep(change.was, change.suspended)


def _asleep(declared: Declared, suspended: frozenset[str]) -> frozenset[Guest]:
    return frozenset(guest_of(vm) for vm in declared.inventory.vms if vm.name in suspended)


async def _refuse_failed_claims(failed_claims: FailedClaims, declared: Declared) -> None:
    failed = await asyncio.to_thread(failed_claims, declared)
    if failed:
        lines = "".join(f"\n  {line}" for line in failed)
        raise ClaimsFailed(f"{len(failed)} of the topology's claims do not hold; nothing was changed:{lines}")


async def _refuse_to_change_who_stands_still(change: Change) -> None:
    names = [action.guest.name for action in change.actions if isinstance(action, ChangeGuest)]
    states = {name: (await change.parts.guests.status(name)).state for name in names}
    still = ", ".join(name for name in names if states[name] is GuestState.PAUSED)
    if still:
        raise HostError(
            f"{still} cannot be changed while standing still; nothing was changed: `vnet resume` first"
        )


async def _refuse_conflicts(change: Change) -> None:
    """All of the host that stands in the way of new gateways."""
    conflicts = await change.parts.gateways.conflicts(change.wanted.gateways - change.now.gateways)
    if conflicts:
        lines = "".join(f"\n  {each}" for each in conflicts)
        raise HostError(f"this host's configuration stands in the way; nothing was changed:{lines}")
