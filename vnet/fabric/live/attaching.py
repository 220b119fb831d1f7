"""NICs and disks attached and detached by hand: the text in force is edited, then all goes as with `up`.

But VMs that do not run are left so; one that is changed has it at its next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from vnet.fabric import attaching
from vnet.fabric.live.engine import Engine, Terms
from vnet.fabric.outcome import Outcome
from vnet.fabric.progress import Report


async def change(
    engine: Engine, name: str, vm: str, what: str, *, attach: bool, report: Report
) -> tuple[Outcome, Mapping[str, Any]]:
    """Attach or detach. Returns what was done, and the edit as a patch of the file.

    Raises: as `Engine.up`; InputError for what cannot be attached.
    """
    before = engine.fabric(name).record.source
    edit = attaching.attached if attach else attaching.detached
    after = await asyncio.to_thread(edit, before, vm, what)
    outcome = await engine.up(after, report, Terms(agreed=True, starts=False))
    return outcome, {"file": before.file, "patch": attaching.difference(before, after)}
