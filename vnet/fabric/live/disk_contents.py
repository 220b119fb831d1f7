"""Puts what is in a file onto a disk of a VM, before the VM is started with it for the first time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import InputError
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Registry
from vnet.fabric.live.told_work import worked
from vnet.hv.disk import Disk
from vnet.hv.live import disk, locations, ova
from vnet.hv.live.lock import exclusive
from vnet.topology.values import is_name

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Given:
    """A file with a disk. `form` is what it is said to be, empty to have it found out; `location` is where
    the disk is to lie."""

    path: Path
    form: str = ""
    location: str = DEFAULT_LOCATION


async def put(
    registry: Registry,
    fabric: str,
    vm: str,
    name: str,
    given: Given,
    told: Callable[[str], None],
) -> Json:
    """Make the disk of that name, of any format that images may have. The fabric need not be up.

    Raises:
        InputError: there is such a disk already, or no such file, or it is none.
        HostError: it cannot be converted, or there is no room.
    """
    for word in (fabric, vm, name):
        if not is_name(word):
            raise InputError(f"{word!r} is no name of a fabric, a VM or a disk")
    if not given.path.is_absolute():
        raise InputError("a disk is brought as {path}; path is absolute")
    async with registry.locks[fabric]:
        await _refuse_running(registry, fabric, vm)
        target = disk.path_of(fabric, vm, Disk(name, 0, location=given.location))
        taken = await asyncio.to_thread(disk.kept, fabric)
        if any((each.vm, each.name) == (vm, name) for each in taken):
            hint = f"`vnet disk rm {vm} {name}` removes it"
            raise InputError(f"{vm} has a disk {name} already, and what is on it stays; {hint}")
        size_bytes = await worked(partial(_bring, given, target), told)
    return {"fabric": fabric, "vm": vm, "disk": name, "size_bytes": size_bytes, "path": str(target)}


def _bring(given: Given, target: Path, told: Callable[[str], None]) -> int:
    locations.make_folder(target.parent)
    with exclusive(target.parent):
        return ova.bring(given.path, target, given.form, told)


async def _refuse_running(registry: Registry, fabric: str, vm: str) -> None:
    up = registry.fabrics.get(fabric)
    if up is not None and (await up.parts.guests.status(vm)).state in ALIVE:
        raise InputError(f"{vm} runs: `vnet stop {vm}` first, then declare the disk and start it again")
