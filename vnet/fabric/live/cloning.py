"""A VM's disks copied for another one, which the topology does not declare yet."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from vnet.base.errors import HostError, InputError
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.telling import notes, telling
from vnet.fabric.progress import Report
from vnet.hv import firmware
from vnet.hv.live import base_image, disk_clone
from vnet.hv.live.snapshot_files import refuse_kept_memory
from vnet.hv.spec import GuestState
from vnet.hv.stored import Stored
from vnet.topology.language import VM_NAME_MAX
from vnet.topology.values import is_name

_STILL = (GuestState.STOPPED, GuestState.CRASHED, GuestState.PAUSED)


@dataclass(frozen=True, slots=True)
class Wanted:
    """The new VM's name. `disks` are those that it is declared with, None if nobody says; `linked`: made
    differences to what they share, where possible."""

    name: str
    linked: bool = False
    disks: tuple[str, ...] | None = None


async def clone(engine: Engine, name: str, vm: str, wanted: Wanted, report: Report) -> Mapping[str, Any]:
    """Copy the disks of a VM that stands still.

    Raises: InputError for a name that is no VM's, or is one's already, and if other disks are declared than
    are in force; HostError, and nothing was made.
    """
    new = wanted.name
    if not is_name(new, VM_NAME_MAX):
        raise InputError(f"{new!r} is no name for a VM: small letters, digits and hyphens, as in web-2")
    async with engine.locks[name]:
        guest, fabric = engine.guest(name, vm), engine.fabric(name)
        assert fabric.declared is not None
        if new in {each.name for each in fabric.declared.inventory.vms}:
            raise InputError(f"there is a VM {new} in {name} already; take another name")
        _refuse_other_disks(fabric, vm, wanted)
        await refuse_moving(fabric, vm)
        with telling(report, 1, f"copy the disks of {vm}", 1) as remark:
            order = disk_clone.Order(name, vm, new, wanted.linked)
            disks = (*guest.disks, *firmware.kept(guest.boot))
            copied, differences = await disk_clone.clone(order, disks, notes(report))
            remark.text = ", ".join(copied) or "it has none"
        made = {"disks": list(copied), "linked": list(differences)}
        return {"fabric": name, "vm": new, "from": vm, **made}


def _refuse_other_disks(fabric: Fabric, vm: str, wanted: Wanted) -> None:
    """Raises InputError where a file declares other disks than a VM has, as those attached by hand."""
    assert fabric.declared is not None
    has = {each.name for each in fabric.declared.topology.vms[fabric.vm(vm).spec].disks}
    if wanted.disks is not None and set(wanted.disks) != has:
        declared, there = (", ".join(sorted(names)) or "none" for names in (wanted.disks, has))
        raise InputError(
            f"{vm} has other disks than the file declares, and {wanted.name} would get those declared."
            f" In the file: {declared}; in force: {there}. `vnet plan` shows it: put it into the file, or"
            " take it back with `vnet up`"
        )


async def refuse_moving(fabric: Fabric, vm: str) -> None:
    """Raises HostError for a VM that does not stand still."""
    refuse_kept_memory(fabric.record.name, vm)
    status = await fabric.parts.guests.status(vm)
    if status.state not in _STILL:
        raise HostError(
            f"{vm} is {status.state.value}: its disks change while they are copied. "
            f"`vnet stop {vm}` first, or `vnet pause {vm}`"
        )


async def template(registry: Registry, name: str, vm: str, disk: str, tell: Callable[[str], None]) -> Stored:
    """What is on a disk of a VM that stands still, as an image. Without `disk` it is its only one, or root.

    Raises: InputError if there is no such disk; HostError, and nothing was made.
    """
    async with registry.locks[name]:
        fabric = registry.fabric(name)
        disks = {each.name: each for each in fabric.vm(vm).disks}
        chosen = disk or next((each.name for each in disks.values() if each.is_root or len(disks) == 1), "")
        if chosen not in disks:
            known = ", ".join(disks) or "none"
            raise InputError(f"which disk of {vm}? it has {known}: name one as {vm}:DISK")
        if disks[chosen].is_encrypted:
            raise InputError(f"{chosen} of {vm} is encrypted, and an image of it would not be")
        await refuse_moving(fabric, vm)
        return await base_image.template(name, vm, chosen, tell)
