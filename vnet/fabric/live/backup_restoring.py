"""Backups restored to VMs of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import HostError, InputError
from vnet.fabric.live.backups import Backups, Target, Wanted, path_of, plain
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.snapshot_uses import refuse_kept
from vnet.fabric.progress import Report
from vnet.hv import firmware
from vnet.hv.backup import Manifest
from vnet.hv.live import backup_restore
from vnet.hv.live.backup_restore import Into
from vnet.hv.live.backup_store import Store

Json = Mapping[str, Any]


async def restore(backups: Backups, id_: str, target: Target, wanted: Wanted, report: Report) -> Json:
    """Write disks as they were. Nothing is replaced that is not to be."""
    store = await asyncio.to_thread(Store.opened, path_of(wanted.store))
    entry = await asyncio.to_thread(store.entry, id_)
    if not entry.is_complete or entry.trouble:
        raise InputError(f"{id_} cannot be restored: {entry.trouble or 'it is not complete'}")
    manifest = entry.manifest
    fabric, vm = target.fabric or manifest.fabric, target.vm or manifest.vm
    places = _places(backups, manifest, fabric, vm, target)
    with backups.alone(fabric, vm):
        guest = backups.engine.guest(fabric, vm)
        guests = backups.engine.fabric(fabric).parts.guests
        if (await guests.status(vm)).state in ALIVE:
            raise HostError(f"{vm} runs: `vnet stop {vm}` first")
        async with guests.at_rest(guest, f"{id_} is being restored to it") as image:
            root = str(guest.boot.root)
            places = [
                replace(each, base=image, image=root) if each.disk.is_root else each.based()
                for each in places
            ]
            with backups.at_work(store, manifest, f"restore {vm}", report) as moved:
                await backup_restore.restore(store, manifest, wanted.key, places, wanted.rate_bytes, moved)
    return {**plain(store, entry), "restored": [str(each.path) for each in places]}


def _places(backups: Backups, manifest: Manifest, fabric: str, vm: str, target: Target) -> list[Into]:
    """Where each disk goes. Raises InputError when that cannot be, or would replace something."""
    guest = backups.engine.guest(fabric, vm)
    declared = {each.name: each for each in (*guest.disks, *firmware.kept(guest.boot))}
    places = []
    for saved, name in _pairs(manifest, target):
        goes_along = name == UEFI_VARIABLES and not target.saved
        if goes_along and name not in declared:
            continue
        if name not in declared:
            known = ", ".join(each.name for each in guest.disks) or "none"
            raise InputError(f"{vm} has no disk {name}; its disks: {known}. `--to VM/DISK` names another")
        into = Into(manifest.disk(saved), fabric, vm, declared[name])
        if 0 < into.disk.size_bytes < into.saved.size_bytes:
            needed = into.saved.size_bytes >> 20
            raise InputError(f"the disk {name} of {vm} is too small: declare it with {needed}M or more")
        if into.path.exists() and not target.overwrite and not goes_along:
            raise InputError(
                f"{vm} has a disk {name} with something on it, {into.path}; "
                "`--overwrite` replaces it, `--to VM/DISK` names another"
            )
        if into.path.exists():
            refuse_kept(fabric, vm, name)
        places.append(into)
    return places


def _pairs(manifest: Manifest, target: Target) -> list[tuple[str, str]]:
    """Which saved disk goes to which of the VM's; what its firmware keeps goes with all of them."""
    names = [target.saved] if target.saved else [each.name for each in manifest.disks]
    if target.disk and not target.saved:
        names = [name for name in names if name != UEFI_VARIABLES]
    if target.disk and len(names) > 1:
        raise InputError(f"{manifest.id} has several disks: {', '.join(names)}; say which, --disk NAME")
    return [(name, target.disk or name) for name in names]
