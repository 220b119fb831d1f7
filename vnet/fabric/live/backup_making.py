"""Backups of VMs taken; those that were broken off finished, or removed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import HostError, InputError, VnetError
from vnet.fabric import redeclared
from vnet.fabric.events import Kind
from vnet.fabric.live.backups import Backups, Wanted, path_of, plain
from vnet.fabric.progress import Progress, Report, Status
from vnet.hv import backup as values
from vnet.hv.backup import Manifest
from vnet.hv.live import backup
from vnet.hv.live.backup import Order
from vnet.hv.live.backup_store import Entry, Store

Json = Mapping[str, Any]


async def create(backups: Backups, fabric: str, vm: str, wanted: Wanted, report: Report) -> Json:
    """Back a VM up. On failure there is nothing of it."""
    order = _order(backups, fabric, vm, wanted)
    store = await asyncio.to_thread(Store.made, path_of(wanted.store))
    with backups.alone(fabric, vm):
        await asyncio.to_thread(_refuse_unfinished, store, fabric, vm)
        return await _told(backups, store, order, report)


async def _told(backups: Backups, store: Store, order: Order, report: Report) -> Json:
    """Take it, and tell what became of it."""
    try:
        manifest = await _take(backups, store, order, report)
    except VnetError as error:
        text = f"{order.vm} could not be backed up: {error}"
        backups.engine.events.tell(Kind.BACKUP_FAILED, text, order.fabric, order.vm, {"why": str(error)})
        raise
    text = f"{order.vm} was backed up: {manifest.id}"
    fields = {"id": manifest.id, "store": str(store.path), "kind": manifest.kind.value}
    backups.engine.events.tell(Kind.BACKUP_DONE, text, order.fabric, order.vm, fields)
    return plain(store, Entry(manifest, True))


def _order(backups: Backups, fabric: str, vm: str, wanted: Wanted) -> Order:
    found = backups.engine.fabric(fabric)
    spec, source = found.vm(vm), found.record.source
    assert found.declared is not None, "it has the VM"
    return Order(
        fabric,
        vm,
        wanted.is_full,
        wanted.chain_max,
        wanted.key,
        wanted.rate_bytes,
        wanted.freeze,
        wanted.is_tight,
        redeclared.declared(spec, found.declared.topology.images),
        {source.file: source.text, **source.included},
    )


async def _take(backups: Backups, store: Store, order: Order, report: Report) -> Manifest:
    guest = backups.engine.guest(order.fabric, order.vm)
    guests = backups.engine.fabric(order.fabric).parts.guests
    async with guests.blocks(guest, "its disks are being backed up") as blocks:
        manifest = await backup.begin(store, blocks, order)
        with backups.at_work(store, manifest, f"back up {order.vm}", report) as moved:
            manifest = await backup.take(store, blocks, order, manifest, moved)
    _note(report, manifest)
    return manifest


async def resume(backups: Backups, id_: str, wanted: Wanted, report: Report) -> Json:
    """Finish an entry that was broken off; from the beginning, if QEMU is not at it any more."""
    store = await asyncio.to_thread(Store.opened, path_of(wanted.store))
    manifest = (await backups.unfinished(store, id_)).manifest
    order = _order(backups, manifest.fabric, manifest.vm, wanted)
    if manifest.is_encrypted and wanted.key is None:
        raise InputError(f"{id_} is encrypted: give its key with --key-file FILE")
    with backups.alone(manifest.fabric, manifest.vm):
        done = await _go_on(backups, store, order, manifest, report)
        if done is not None:
            return plain(store, Entry(done, True))
        what = f"QEMU is not at it any more: a new one is made in place of {id_}"
        report(Progress(0, what, Status.NOTE))
        await _discard(backups, store, manifest)
        again = {disk.whole_because for disk in manifest.disks} == {values.ASKED_FOR}
        anew = replace(order, is_full=again, is_tight=True)  # it was let in when it was begun
        return await _told(backups, store, anew, report)


async def _go_on(
    backups: Backups, store: Store, order: Order, manifest: Manifest, report: Report
) -> Manifest | None:
    guest = backups.engine.guest(order.fabric, order.vm)
    guests = backups.engine.fabric(order.fabric).parts.guests
    async with guests.blocks(guest, "its disks are being backed up") as blocks:
        if not await backup.is_going_on(blocks, manifest):
            return None
        await blocks.thaw()
        with backups.at_work(store, manifest, f"back up {order.vm}", report) as moved:
            done = await backup.complete(store, blocks, order.key, manifest, moved)
    _note(report, done)
    return done


async def discard(backups: Backups, id_: str, wanted: Wanted) -> Json:
    """Remove an entry that was broken off, and what QEMU still does for it."""
    store = await asyncio.to_thread(Store.opened, path_of(wanted.store))
    entry = await backups.unfinished(store, id_)
    with backups.alone(entry.manifest.fabric, entry.manifest.vm):
        await _discard(backups, store, entry.manifest)
    return plain(store, entry)


async def _discard(backups: Backups, store: Store, manifest: Manifest) -> None:
    """If its VM is still there, its QEMU too forgets it."""
    try:
        guest = backups.engine.guest(manifest.fabric, manifest.vm)
        guests = backups.engine.fabric(manifest.fabric).parts.guests
        async with guests.blocks(guest, "a backup of it is being discarded") as blocks:
            await blocks.thaw()
            await backup.undo(store, blocks, manifest)
    except (InputError, HostError):
        await asyncio.to_thread(store.remove, manifest.id)


def _note(report: Report, manifest: Manifest) -> None:
    """What whoever waits should know of an entry that was made."""
    for disk in manifest.disks:
        is_small = disk.name == UEFI_VARIABLES
        if not is_small and disk.whole_because not in ("", values.ASKED_FOR, values.FIRST):
            text = f"all of {disk.name} was copied: {disk.whole_because}"
            report(Progress(0, text, Status.NOTE))
    if not manifest.freeze.is_frozen:
        why = manifest.freeze.why
        text = f"{manifest.vm} was not frozen ({why}): {manifest.id} is as after a power cut"
        report(Progress(0, text, Status.NOTE))


def _refuse_unfinished(store: Store, fabric: str, vm: str) -> None:
    for each in store.entries():
        if not each.is_complete and (each.manifest.fabric, each.manifest.vm) == (fabric, vm):
            id_ = each.manifest.id
            raise HostError(
                f"a backup of {vm} was broken off: `vnet backup resume {id_}` finishes it, "
                f"`vnet backup discard {id_}` removes it"
            )
