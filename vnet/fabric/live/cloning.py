"""A VM's disks copied for another one, which the topology does not declare yet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from vnet.base.errors import HostError, InputError
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Progress, Report, Status
from vnet.hv.live import disk_clone
from vnet.hv.spec import GuestState
from vnet.topology.language import VM_NAME_MAX

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_STILL = (GuestState.STOPPED, GuestState.CRASHED, GuestState.PAUSED)


async def clone(engine: Engine, name: str, vm: str, new: str, report: Report) -> Mapping[str, Any]:
    """Copy the disks of a VM that stands still.

    Raises: InputError for a name that is no VM's, or is one's already; HostError, and nothing was made.
    """
    if not _NAME.fullmatch(new) or len(new) > VM_NAME_MAX:
        raise InputError(f"{new!r} is no name for a VM: small letters, digits and hyphens, as in web-2")
    async with engine.locks[name]:
        guest, fabric = engine.guest(name, vm), engine.fabric(name)
        assert fabric.declared is not None
        if new in {each.name for each in fabric.declared.inventory.vms}:
            raise InputError(f"there is a VM {new} in {name} already; take another name")
        status = await fabric.parts.guests.status(vm)
        if status.state not in _STILL:
            raise HostError(
                f"{vm} is {status.state.value}: its disks change while they are copied. "
                f"`vnet stop {vm}` first, or `vnet pause {vm}`"
            )
        with telling(report, 1, f"copy the disks of {vm}", 1) as remark:
            copied = await disk_clone.clone(
                name,
                vm,
                new,
                guest.disks,
                lambda disk, done: report(Progress(1, f"{disk}: {done:.0f} %", Status.NOTE)),
            )
            remark.text = ", ".join(copied) or "it has none"
        return {"fabric": name, "vm": new, "from": vm, "disks": list(copied)}
