"""The disks of this host's VMs, with what they are to the fabrics that are up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import HostError, InputError
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Registry
from vnet.fabric.live.snapshot_uses import refuse_kept
from vnet.fabric.state import guest_of
from vnet.hv.live import base_image, base_note, disk, locations, snapshot_files
from vnet.hv.live.disk import Kept
from vnet.topology.inventory import Vm

Json = Mapping[str, Any]


async def listed(registry: Registry, fabric: str | None) -> list[Json]:
    """All disks, or those of one fabric, whether it is up or not."""
    found = await asyncio.to_thread(disk.kept, fabric)
    return [{**_plain(each), "use": await _use(registry, each)} for each in found]


@dataclass(frozen=True, slots=True)
class Chosen:
    """Which disk of a name is meant, where there are several; empty of what does not matter."""

    location: str = ""
    format: str = ""


async def remove(registry: Registry, fabric: str, vm: str, name: str, chosen: Chosen = Chosen()) -> Json:
    """Remove a disk with its contents. Raises InputError if there is none, HostError while it is used."""
    async with registry.locks[fabric]:
        found = await asyncio.to_thread(find, fabric, vm, name, chosen)
        if await _use(registry, found) == "running":
            raise HostError(f"{vm} runs with the disk {name}: `vnet stop {vm}` first")
        await asyncio.to_thread(refuse_kept, fabric, vm, name)
        removed = await asyncio.to_thread(_plain, found)
        why = f"its disk {name} is being removed"
        async with nullcontext() if await _runs(registry, fabric, vm) else at_rest(registry, fabric, vm, why):
            await asyncio.to_thread(disk.remove, found)
        await asyncio.to_thread(base_image.collect)
        return removed


def at_rest(registry: Registry, fabric: str, vm: str, why: str) -> AbstractAsyncContextManager[None]:
    """A VM that does not run is not started meanwhile, and nobody else is at its disks; what no fabric has
    cannot be started. Raises HostError if it runs, or somebody is."""
    owner = _owner(registry, fabric, vm)
    if owner is None:
        return nullcontext()
    return registry.fabrics[fabric].parts.guests.held(guest_of(owner), why)


def find(fabric: str, vm: str, name: str, chosen: Chosen = Chosen()) -> Kept:
    """A disk that is there.

    Raises: InputError if there is none, or several of that name and none of them is chosen.
    """
    wanted = (vm, name)
    found = [each for each in disk.kept(fabric) if (each.vm, each.name) == wanted]
    found = [each for each in found if chosen.location in ("", each.location)]
    found = [each for each in found if chosen.format in ("", each.format)]
    if not found:
        raise InputError(
            f"{vm} of {fabric} has no such disk {name}; `vnet disk ls` tells which there are"
            f"{locations.unseen()}"
        )
    if len(found) > 1:
        there = ", ".join(f"{each.format} at {each.location}" for each in found)
        raise InputError(
            f"{vm} of {fabric} has several disks {name}: {there}; say which, --location NAME, --format FORMAT"
        )
    return found[0]


async def left(fabric: str) -> int:
    """How many disks are kept of a fabric that is down."""
    return len(await asyncio.to_thread(disk.kept, fabric))


async def remove_left(registry: Registry, fabric: str) -> list[Json]:
    """Remove the disks of a fabric that is down, with their keys and snapshots. Returns which there were.

    Raises: HostError if it is up, as it may be again by now.
    """
    async with registry.locks[fabric]:
        if fabric in registry.fabrics:
            raise HostError(f"{fabric} is up again: the disks of its VMs are kept")
        found = await asyncio.to_thread(disk.kept, fabric)
        removed: list[Json] = [await asyncio.to_thread(_plain, each) for each in found]
        for each in found:
            await asyncio.to_thread(disk.remove, each)
        await asyncio.to_thread(disk.sweep, fabric)
        await asyncio.to_thread(snapshot_files.remove_all, fabric)
        await asyncio.to_thread(base_image.collect)
        return removed


async def _use(registry: Registry, one: Kept) -> str:
    """`running` by a VM that runs, `declared` for one that does not, `unused` if no fabric has it."""
    owner = _owner(registry, one.fabric, one.vm)
    if owner is None or one.name not in disk_names(owner):
        return "unused"
    return "running" if await _runs(registry, one.fabric, one.vm) else "declared"


def _owner(registry: Registry, fabric: str, vm: str) -> Vm | None:
    up = registry.fabrics.get(fabric)
    return next((each for each in (up.vms if up else ()) if each.name == vm), None)


async def _runs(registry: Registry, fabric: str, vm: str) -> bool:
    if _owner(registry, fabric, vm) is None:
        return False
    return (await registry.fabrics[fabric].parts.guests.status(vm)).state in ALIVE


def disk_names(vm: Vm) -> frozenset[str]:
    """All that it keeps on disks, the variables of its firmware included."""
    own = {UEFI_VARIABLES} if vm.boot.is_uefi else set()
    return frozenset(own | {each.name for each in vm.disks})


def _plain(one: Kept) -> dict[str, Any]:
    base = base_note.base_of(one.path)
    return {
        "fabric": one.fabric,
        "vm": one.vm,
        "disk": one.name,
        "format": one.format,
        "size_bytes": one.size_bytes,
        "taken_bytes": one.taken_bytes,
        "encrypted": one.is_encrypted,
        "base": base.id if base else "",
        "base_gone": base is not None and not base_note.is_there(base),
        "location": one.location,
        "path": str(one.path),
        "damage": one.damage,
    }
