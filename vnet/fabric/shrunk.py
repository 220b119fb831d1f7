"""Disks declared smaller than those that VMs run with: refused, as their ends would be lost."""

from __future__ import annotations

from collections.abc import Iterator

from vnet.base.errors import Fault, InputError
from vnet.fabric.state import State
from vnet.hv.disk import why_not_smaller
from vnet.topology.inventory import Inventory, Vm


def refuse_smaller_disks(inventory: Inventory, now: State) -> None:
    """Raises InputError with each of them, where it is declared."""
    faults = tuple(fault for vm in inventory.vms for fault in _of(vm, now))
    if faults:
        raise InputError(faults)


def _of(vm: Vm, now: State) -> Iterator[Fault]:
    guest = now.guest(vm.name)
    has_bytes = {disk.name: disk.size_bytes for disk in guest.disks} if guest else {}
    for disk in vm.disks:
        had_bytes = has_bytes.get(disk.name, 0)
        if 0 < disk.size_bytes < had_bytes:
            called, remove = f"the disk {disk.name} of {vm.name}", f"vnet disk rm {vm.name} {disk.name}"
            why = why_not_smaller(called, had_bytes, disk.size_bytes, remove)
            yield Fault(disk.at, f"vms.{vm.spec}.disks", why)
