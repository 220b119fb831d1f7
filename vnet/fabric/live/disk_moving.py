"""A disk of a VM that does not run, moved to another location of this host."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from functools import partial
from typing import Any

from vnet.base.errors import InputError
from vnet.fabric.live.disks import at_rest, find
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.telling import telling
from vnet.fabric.live.told_work import worked
from vnet.fabric.progress import Report
from vnet.hv.live import disk, locations
from vnet.hv.live.snapshot_files import refuse_kept_memory


async def move(
    engine: Engine, fabric: str, vm: str, name: str, location: str, report: Report
) -> Mapping[str, Any]:
    """Move it with all that it keeps. The fabric need not be up.

    Raises:
        InputError: there is no such disk, or it lies there already.
        HostError: the VM runs or is suspended, or there is no such location, or no room.
    """
    async with engine.locks[fabric]:
        found = await asyncio.to_thread(find, fabric, vm, name)
        await asyncio.to_thread(locations.root, location)
        if found.location == location:
            raise InputError(f"the disk {name} of {vm} lies at the location {location} already")
        refuse_kept_memory(fabric, vm)
        async with at_rest(engine, fabric, vm, f"its disk {name} is being moved"):
            with telling(report, 1, f"move {name} of {vm} to {location}", 1) as remark:
                target = await worked(partial(disk.move, found, location), remark.moved)
                remark.text = str(target)
    return {
        "fabric": fabric,
        "vm": vm,
        "disk": name,
        "location": location,
        "from": found.location,
        "path": str(target),
    }
