"""Starts that begin with what was saved: the disks taken back, the memory loaded, the wish for it fulfilled.

Each step can be done again after a daemon was killed in the midst of it.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from vnet.base.errors import HostError
from vnet.hv import snapshot as values
from vnet.hv.argv import DiskArgument, Machine, NicArgument, machine_key
from vnet.hv.disk import plugged
from vnet.hv.live import disk_snapshots
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.guest import Guest
from vnet.hv.live.launching import Means, no_more
from vnet.hv.live.snapshot_files import Next
from vnet.hv.live.tasks import to_its_end
from vnet.hv.snapshot import Build, Saved, Shape, Snapshot
from vnet.hv.spec import GuestSpec


def wish_of(spec: GuestSpec) -> Next | None:
    """What a guest is to begin with; None if it boots."""
    return files.next_of(spec.fabric, spec.name)


def forget(fabric: str, vm: str) -> None:
    """A guest that is ended for good begins with nothing; memory that it was suspended with is lost."""
    for wish in files.wishes(fabric):
        files.fulfilled(wish, vm)


def without_memory(fabric: str, vm: str) -> None:
    """It is to boot. Disks that were to be taken back still are."""
    wish = files.next_of(fabric, vm)
    if wish and not wish.is_suspended:
        files.wish(fabric, wish.snapshot, [vm], memory=False)
    elif wish:
        files.fulfilled(wish, vm)


def take_back(wish: Next, spec: GuestSpec) -> None:
    """Makes its disks what they were; those of a suspended guest are."""
    if not wish.is_suspended:
        disk_snapshots.take_back(_snapshot(wish, spec.name), spec.name)


def fulfilled(wish: Next, spec: GuestSpec) -> None:
    """It runs. From here on its state descends from the snapshot."""
    if not wish.is_suspended:
        files.set_head(spec.fabric, spec.name, wish.snapshot)
    files.fulfilled(wish, spec.name)


async def load(wish: Next, guest: Guest, means: Means) -> None:
    """The guest stands still, all as it was."""
    name = guest.spec.name
    snapshot = await asyncio.to_thread(_snapshot, wish, name)
    await asyncio.to_thread(take_back, wish, guest.spec)
    gone_on = partial(files.fulfilled, wish, name) if wish.is_suspended else no_more
    saved = files.memory(snapshot, name)
    await guest.load(replace(means, saved=saved, origin=wish.token, gone_on=gone_on))


async def go_on(wish: Next, guest: Guest) -> None:
    """It goes on, and is told the time, and new random numbers. Nobody breaks that off: it is done soon, and
    there would be no way back to what is in the file."""
    await to_its_end(_go_on(wish, guest))


async def _go_on(wish: Next, guest: Guest) -> None:
    await guest.go_on()
    await asyncio.to_thread(fulfilled, wish, guest.spec)


def shape_of(spec: GuestSpec, machine: Machine) -> Shape:
    """What the memory of a guest is bound to; `machine` is without what is plugged in."""
    nics = tuple(NicArgument(nic.mac, 0) for nic in spec.nics)
    disks = tuple(DiskArgument(each, 0) for each in plugged(spec.disks, len(spec.nics)))
    words = machine_key(replace(machine, nics=nics, disks=disks))
    words += "" if spec.is_micro else f" {spec.boot}"
    macs, names = tuple(nic.mac for nic in spec.nics), tuple(each.name for each in spec.disks)
    return Shape(spec.cpus, spec.memory_bytes, macs, names, words)


def refuse(wish: Next, spec: GuestSpec, build: Build, machine: Machine) -> None:
    """Raises HostError if the machine that is declared now could not load the memory that is kept."""
    refuse_what_cannot_be_loaded(_snapshot(wish, spec.name), spec.name, build, shape_of(spec, machine))


def refuse_what_cannot_be_loaded(snapshot: Snapshot, vm: str, build: Build, shape: Shape) -> None:
    """Raises HostError for memory that QEMU would not load, saying why and what is possible."""
    saved = snapshot.of(vm)
    why = values.obstacles(saved, build, shape)
    if why:
        raise HostError(
            f"the memory of {vm} in {snapshot.name or 'its suspended state'} cannot be loaded:"
            f" {'; '.join(why)}. Nothing was changed. {_instead(snapshot, saved)}"
        )


def _instead(snapshot: Snapshot, saved: Saved) -> str:
    if not snapshot.name:
        return f"`vnet start --boot {saved.vm}` boots it; what was in its memory is lost then"
    if not saved.disks:
        return "It had no disks: there is nothing else to restore"
    return f"Its disks alone: `vnet snapshot restore --disk-only {saved.vm} {snapshot.name}`"


def _snapshot(wish: Next, vm: str) -> Snapshot:
    found = files.find(wish.fabric, wish.snapshot)
    if found is None or vm not in found.vms:
        raise HostError(
            f"what {vm} was to go on from is gone ({wish.snapshot}): `vnet start --boot {vm}` boots it"
        )
    return found
