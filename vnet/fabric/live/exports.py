"""Exports of a fabric's VMs: while they are stopped, or stand still for as long as it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from vnet.base.errors import InputError
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Fabric, Registry
from vnet.hv.live import export
from vnet.hv.live.export import Made
from vnet.hv.live.snapshot_files import refuse_kept_memory
from vnet.hv.ovf import ExportedNic, ExportedVm
from vnet.hv.spec import GuestState
from vnet.topology.inventory import Vm
from vnet.topology.values import format_mac

Json = Mapping[str, Any]

_MICRO = "{vm} boots the micro guest, which is in memory and not in the file: only its disks are"


class Form(StrEnum):
    """What is made."""

    OVA = "ova"
    QCOW2 = "qcow2"


@dataclass(frozen=True, slots=True)
class Wanted:
    """An export as it was asked for. `disk` is empty for all of them; `pauses`: the VM may be held still."""

    vm: str
    form: Form
    disk: str = ""
    pauses: bool = False


async def make(registry: Registry, fabric: str, wanted: Wanted, told: Callable[[str], None]) -> Json:
    """Make the file; it waits to be fetched. Raises InputError for what cannot be exported, and why."""
    found = registry.fabric(fabric)
    vm = found.vm(wanted.vm)
    names = _disks(vm, wanted)
    refuse_kept_memory(fabric, vm.name)
    sources = [export.source(fabric, vm.name, each) for each in names]
    async with _at_rest(registry, found, vm.name, wanted) as shared:
        if wanted.form is Form.QCOW2:
            made = await export.pack_disk(sources[0], vm.name, shared=shared, told=told)
        else:
            made = await export.pack(_described(vm), sources, shared=shared, told=told)
    return {**_plain(made), "note": _MICRO.format(vm=vm.name) if vm.boot.is_micro else ""}


def _disks(vm: Vm, wanted: Wanted) -> list[str]:
    names = [each.name for each in vm.disks]
    if not names:
        raise InputError(f"{vm.name} has no disk, so there is nothing to export; its files are in memory")
    if wanted.disk and wanted.disk not in names:
        raise InputError(f"{vm.name} has no disk {wanted.disk}; its disks: {', '.join(names)}")
    if wanted.form is Form.QCOW2 and not wanted.disk and len(names) > 1:
        raise InputError(f"{vm.name} has {len(names)} disks: name one with --disk ({', '.join(names)})")
    return [wanted.disk] if wanted.disk else names


@asynccontextmanager
async def _at_rest(registry: Registry, fabric: Fabric, vm: str, wanted: Wanted) -> AsyncIterator[bool]:
    """While nothing writes to its disks. Gives whether a QEMU that stands still has them open."""
    guests = fabric.parts.guests
    state = (await guests.status(vm)).state
    if state not in ALIVE:
        yield False
        return
    if not wanted.pauses:
        raise InputError(
            f"{vm} runs: stop it, or let it stand still meanwhile with --pause; its disks are then as after a"
            " power cut"
        )
    async with registry.locks[fabric.record.name]:  # nobody lets it go on before
        await guests.pause(vm)
        try:
            yield True
        finally:
            if state is not GuestState.PAUSED:
                await guests.resume(vm)


def _described(vm: Vm) -> ExportedVm:
    nics = tuple(ExportedNic(nic.interface, nic.network, format_mac(nic.mac)) for nic in vm.nics)
    return ExportedVm(vm.name, vm.cpus, vm.memory_bytes, (), nics, vm.boot.is_uefi, _note(vm))


def _note(vm: Vm) -> str:
    addresses = "; ".join(f"{nic.interface} {', '.join(map(str, nic.addresses))}" for nic in vm.nics)
    return f"Exported by vnet. Image: {vm.image}. Addresses: {addresses or 'none'}."


def _plain(made: Made) -> Json:
    return {
        "token": made.token,
        "file": made.path.name,
        "size_bytes": made.size_bytes,
        "sha256": made.sha256,
    }
