"""Snapshots of a fabric's VMs, and VMs suspended: what the commands ask for, and what they are told."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vnet.base.errors import HostError, InputError, VnetError
from vnet.fabric.events import Kind
from vnet.fabric.live.breaking_off import Interrupted, finished
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.telling import notes, telling
from vnet.fabric.progress import Report
from vnet.fabric.snapshots import row
from vnet.fabric.state import Guest, guest_of
from vnet.hv import snapshot as values
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.snapshot_files import Next
from vnet.hv.live.snapshots import Wanted
from vnet.hv.snapshot import Snapshot
from vnet.hv.spec import GuestState

log = logging.getLogger(__name__)

Json = Mapping[str, Any]


async def save(engine: Engine, name: str, vms: Sequence[str], wanted: Wanted, report: Report) -> Json:
    """Snapshot VMs at one moment; without names all of which anything can be kept.

    Then `left_out` are those that are suspended, which have been kept so.
    """
    async with engine.locks[name]:
        fabric = engine.fabric(name)
        named = [engine.guest(name, vm) for vm in vms]
        guests, asleep = (named, list[str]()) if named else await _all(fabric, wanted)
        with telling(report, 1, f"save {_named(guests)}", 1) as remark:
            made = await fabric.parts.guests.snapshots.save(_specs(fabric, guests), wanted)
            pause_s = max(each.pause_s for each in made.members)
            remark.text = f"stood still for {pause_s * 1000:.0f} ms" if pause_s else ""
        fields = {"vms": list(made.vms), "id": made.id, "pause_s": pause_s}
        text = f"{', '.join(made.vms)}: saved as {made.name}"
        engine.events.tell(Kind.SNAPSHOT_SAVED, text, name, made.name, fields)
        rows = [row(made, vm, (made,), made.created_s, made.id) for vm in made.vms]
        return {"snapshots": rows, "left_out": asleep}


async def _all(fabric: Fabric, wanted: Wanted) -> tuple[list[Guest], list[str]]:
    """Those that run, or have disks at least; and the names of those that are suspended."""
    states = await _states(fabric, [guest_of(vm) for vm in fabric.vms])
    asleep = _suspended(states)
    with_something = [
        guest
        for guest, state in states.items()
        if guest.name not in asleep and (guest.disks or (wanted.memory and state in ALIVE))
    ]
    if not with_something:
        why = "none runs, none has disks"
        if asleep:
            why = f"{', '.join(asleep)}: suspended, which keeps what it is; no other runs or has disks"
        raise InputError(f"no VM of {fabric.record.name} has anything to be kept: {why}")
    return with_something, asleep


async def _states(fabric: Fabric, guests: Iterable[Guest]) -> dict[Guest, GuestState]:
    return {guest: (await fabric.parts.guests.status(guest.name)).state for guest in guests}


def _suspended(states: Mapping[Guest, GuestState]) -> list[str]:
    return [guest.name for guest, state in states.items() if state is GuestState.SUSPENDED]


async def listed(fabric: str | None, vm: str | None = None) -> list[Json]:
    """Each VM in each snapshot, of one fabric or of all, whether they are up or not; the oldest first."""
    return await asyncio.to_thread(_listed, fabric, vm)


def _listed(fabric: str | None, vm: str | None) -> list[Json]:
    known = files.known(fabric)
    if vm is not None and not any(vm in each.vms for each in known):
        raise InputError(f"{vm} has no snapshots: `vnet snapshot save {vm} NAME` makes one")
    pairs = sorted(
        ((each, member) for each in known for member in each.vms if vm in (None, member)),
        key=lambda pair: (pair[0].fabric, pair[1], pair[0].created_s),
    )
    now_s = time.time()
    return [row(each, member, known, now_s, files.head(each.fabric, member)) for each, member in pairs]


async def restore(
    engine: Engine, name: str, vms: Sequence[str], snapshot: str, memory: bool | None, report: Report
) -> Json:
    """Make VMs what they were in a snapshot; without names all that are in it.

    What they are now is lost, also the memory that is kept of those that are suspended: `memory_lost`.

    Args:
        memory: whether they go on where they were; None if their memory was kept.
    """
    async with engine.locks[name]:
        fabric = engine.fabric(name)
        found = _find(files.known(name), vms, snapshot)
        guests = [engine.guest(name, vm) for vm in vms or found.vms]
        has_memory = all(found.of(guest.name).build for guest in guests)
        if memory is None:
            memory = has_memory
        elif memory and not has_memory:
            raise InputError(f"{snapshot} has not the memory of all of {_named(guests)}: only their disks")
        states = await _states(fabric, guests)
        asleep = _suspended(states)
        _refuse_only_memory(found, guests, memory)
        broken_off = None
        try:
            told = f"{_named(guests)} was restored from {snapshot} all the same"
            await finished(_restore(engine, fabric, found, guests, asleep, memory, report), told)
        except Interrupted as error:
            broken_off = error
    again = [] if memory else [guest.name for guest in guests if states[guest] in ALIVE]
    await finished(_start(engine, name, again, report), f"{told}, and started")
    if broken_off is not None:
        raise broken_off
    names = [guest.name for guest in guests]
    became = {"vms": names, "memory": memory, "memory_lost": asleep, "booted": again}
    return {"fabric": name, "snapshot": snapshot, **became}


async def _start(engine: Engine, name: str, vms: Iterable[str], report: Report) -> None:
    for vm in vms:
        await engine.start(name, vm, report)


async def _restore(
    engine: Engine,
    fabric: Fabric,
    snapshot: Snapshot,
    guests: Sequence[Guest],
    asleep: Sequence[str],
    memory: bool,
    report: Report,
) -> None:
    name, specs = fabric.record.name, _specs(fabric, guests)
    with telling(report, 1, f"restore {_named(guests)} from {snapshot.name}", 1):
        for guest in guests:
            engine.store.save_guest(name, guest)
        await fabric.parts.guests.snapshots.restore(snapshot, specs, memory=memory, progress=notes(report))
        _not_stopped(engine, fabric, guests if memory else ())
    names = [guest.name for guest in guests]
    fields = {"vms": names, "id": snapshot.id, "memory": memory, "memory_lost": list(asleep)}
    lost = f"; lost is the memory that was kept of {', '.join(asleep)}" if asleep else ""
    text = f"{_named(guests)}: restored from {snapshot.name}{lost}"
    engine.events.tell(Kind.SNAPSHOT_RESTORED, text, name, snapshot.name, fields)


def _refuse_only_memory(found: Snapshot, guests: Iterable[Guest], memory: bool) -> None:
    for guest in guests:
        if not memory and not found.of(guest.name).disks:
            raise InputError(f"of {guest.name} {found.name} has its memory only, no disks to be restored")


def _not_stopped(engine: Engine, fabric: Fabric, guests: Iterable[Guest]) -> None:
    stopped = fabric.record.stopped - {guest.name for guest in guests}
    if stopped != fabric.record.stopped:
        engine.save(fabric, replace(fabric.record, stopped=stopped))


async def remove(registry: Registry, name: str, vms: Sequence[str], snapshot: str) -> Json:
    """Remove a snapshot of VMs; without names of all that are in it. The fabric need not be up.

    Raises: HostError for those of which it could not be removed; of the others it was.
    """
    async with registry.locks[name]:
        found = _find(files.known(name), vms, snapshot)
        wanted = vms or found.vms
        faults = await _remove(registry, found, wanted)
        removed = [vm for vm in wanted if vm not in faults]
        if faults:
            told = [f"{vm}: {fault}" for vm, fault in faults.items()]
            told += [f"of {', '.join(removed)} it was removed"] if removed else []
            raise HostError(f"{snapshot} could not be removed of {'; '.join(told)}")
        return {"fabric": found.fabric, "snapshot": found.name, "vms": removed}


async def _remove(registry: Registry, snapshot: Snapshot, vms: Sequence[str]) -> Mapping[str, str]:
    """Why it could not be removed, of each VM of which it could not."""
    fabric = registry.fabrics.get(snapshot.fabric)
    parts = fabric.parts if fabric else registry.make_parts(snapshot.fabric)
    faults: dict[str, str] = {}
    for vm in vms:
        try:
            await parts.guests.snapshots.remove(snapshot, vm)
        except VnetError as error:
            faults[vm] = str(error)
    removed = [vm for vm in vms if vm not in faults]
    if removed:
        text = f"{', '.join(removed)}: {snapshot.name} was removed"
        fields = {"vms": removed, "id": snapshot.id}
        registry.events.tell(Kind.SNAPSHOT_REMOVED, text, snapshot.fabric, snapshot.name, fields)
    return faults


@dataclass(frozen=True, slots=True)
class Pruning:
    """Which snapshots are no longer wanted, see `vnet.hv.snapshot.to_prune`. `only_told`: nothing goes."""

    vms: tuple[str, ...]
    keep_last: int | None
    older_than_s: float | None
    only_told: bool


async def prune(registry: Registry, name: str, pruning: Pruning) -> list[Json]:
    """Remove those. Returns what was removed, or would be; `fault` says why one could not be."""
    async with registry.locks[name]:
        known, now_s = files.known(name), time.time()
        there = {vm for each in known for vm in each.vms}
        unknown = set(pruning.vms) - there
        if unknown:
            raise InputError(f"{', '.join(sorted(unknown))}: no snapshots; with some: {_words(there)}")
        gone = [
            (each, vm)
            for vm in pruning.vms or sorted(there)
            for each in values.to_prune(known, vm, now_s, pruning.keep_last, pruning.older_than_s)
        ]
        rows = [row(each, vm, known, now_s, files.head(name, vm)) for each, vm in gone]
        faults = [{} if pruning.only_told else await _remove(registry, each, [vm]) for each, vm in gone]
        told = (next(iter(each.values()), "") for each in faults)
        return [{**each, "fault": fault} for each, fault in zip(rows, told, strict=True)]


async def suspend(engine: Engine, name: str, vm: str, report: Report) -> Json:
    """Keep a VM's memory and end its QEMU; `start` brings it back where it was."""
    async with engine.locks[name]:
        fabric = engine.fabric(name)
        guest = engine.guest(name, vm)
        with telling(report, 1, f"suspend {vm}", 1):
            memory_bytes = await engine.performer(fabric, fabric.record.enforced).suspend(guest)
            engine.save(fabric, replace(fabric.record, stopped=fabric.record.stopped | {vm}))
        return {"fabric": name, "vm": vm, "memory_bytes": memory_bytes}


async def complete_restores(engine: Engine) -> None:
    """What daemons that were killed had begun to restore is restored; failures are logged."""
    for name, fabric in tuple(engine.fabrics.items()):
        for wish in await asyncio.to_thread(files.wishes, name):
            if not wish.is_suspended and fabric.declared is not None:
                try:
                    async with engine.locks[name]:
                        await _complete(engine, fabric, wish)
                except VnetError as error:
                    log.warning("restoring %s of %s is not complete: %s", ", ".join(wish.vms), name, error)


async def _complete(engine: Engine, fabric: Fabric, wish: Next) -> None:
    guests = [engine.guest(fabric.record.name, vm) for vm in wish.vms]
    await fabric.parts.guests.snapshots.complete(wish, _specs(fabric, guests), log.info)
    _not_stopped(engine, fabric, guests if wish.memory else ())


def _find(known: Sequence[Snapshot], vms: Sequence[str], name: str) -> Snapshot:
    """The one snapshot of that name with all those VMs. Raises InputError."""
    named = [each for each in known if each.name == name]
    found = [each for each in named if set(vms) <= set(each.vms)]
    if len(found) == 1:
        return found[0]
    if found:
        which = "; ".join(", ".join(each.vms) for each in found)
        raise InputError(f"there are several snapshots {name}, name the VMs: {which}")
    if named:
        raise InputError(
            f"{name} is no snapshot of all of {', '.join(vms)}; it is of {', '.join(named[0].vms)}"
        )
    there = {each.name for each in known if not vms or set(vms) & set(each.vms)}
    raise InputError(f"there is no snapshot {name}; there are: {_words(there)}")


def _words(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _named(guests: Iterable[Guest]) -> str:
    return ", ".join(guest.name for guest in guests)


def _specs(fabric: Fabric, guests: Iterable[Guest]) -> list[Any]:
    return [fabric.parts.guests.spec(guest) for guest in guests]
