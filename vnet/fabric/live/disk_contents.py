"""Puts what is in a file onto a disk of a VM, before the VM is started with it for the first time."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from vnet.base.errors import HostError, InputError
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Registry
from vnet.hv.disk import Disk
from vnet.hv.live import disk, ova
from vnet.hv.live.lock import exclusive
from vnet.topology.values import is_name

Json = Mapping[str, Any]


async def put(
    registry: Registry,
    fabric: str,
    vm: str,
    name: str,
    source: Path,
    form: str,
    told: Callable[[str], None],
) -> Json:
    """Make the disk of that name, of any format that images may have. The fabric need not be up.

    Args:
        form: what the file is said to be; empty to have it found out.

    Raises:
        InputError: there is such a disk already, or no such file, or it is none.
        HostError: it cannot be converted, or there is no room.
    """
    for word in (fabric, vm, name):
        if not is_name(word):
            raise InputError(f"{word!r} is no name of a fabric, a VM or a disk")
    if not source.is_absolute():
        raise InputError("a disk is brought as {path}; path is absolute")
    async with registry.locks[fabric]:
        await _refuse_running(registry, fabric, vm)
        target = disk.path_of(fabric, vm, Disk(name, 0).file)
        taken = await asyncio.to_thread(disk.kept, fabric)
        if any((each.vm, each.name) == (vm, name) for each in taken):
            hint = f"`vnet disk rm {vm} {name}` removes it"
            raise InputError(f"{vm} has a disk {name} already, and what is on it stays; {hint}")
        size_bytes = await _broken_off(partial(_bring, source, target, form), told)
    return {"fabric": fabric, "vm": vm, "disk": name, "size_bytes": size_bytes, "path": str(target)}


async def _broken_off(work: Callable[[Callable[[str], None]], int], told: Callable[[str], None]) -> int:
    """Works in a thread; a caller that is cancelled ends it, and waits until it has cleared away."""
    ends = threading.Event()

    def tell(text: str) -> None:
        if ends.is_set():
            raise HostError("interrupted")
        told(text)

    task = asyncio.create_task(asyncio.to_thread(work, tell))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ends.set()
        await asyncio.wait([task])
        raise


def _bring(source: Path, target: Path, form: str, told: Callable[[str], None]) -> int:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(target.parent):
        return ova.bring(source, target, form, told)


async def _refuse_running(registry: Registry, fabric: str, vm: str) -> None:
    up = registry.fabrics.get(fabric)
    if up is not None and (await up.parts.guests.status(vm)).state in ALIVE:
        raise InputError(f"{vm} runs: `vnet stop {vm}` first, then declare the disk and start it again")
