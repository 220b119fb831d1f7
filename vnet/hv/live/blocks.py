"""The disks of a guest, to be copied: in its QEMU while it runs, else in one without a machine."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from vnet.base.errors import HostError
from vnet.hv import firmware, monitor
from vnet.hv.argv import DiskArgument
from vnet.hv.disk import Disk, Plugged
from vnet.hv.freeze import Freeze, FreezeMode
from vnet.hv.lifecycle import Phase
from vnet.hv.live import disk as disks
from vnet.hv.live import freezing
from vnet.hv.live.adopting import Adopter
from vnet.hv.live.boot import Prepared
from vnet.hv.live.guest import Guest
from vnet.hv.live.keys import read_key
from vnet.hv.live.manager import HvManager
from vnet.hv.live.opening import open_disks
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.snapshot_files import refuse_kept_memory
from vnet.hv.live.threads import finished
from vnet.hv.live.worker import working
from vnet.hv.spec import GuestSpec
from vnet.hv.stored import Stored


@dataclass(frozen=True, slots=True)
class Blocks:
    """A QEMU that has a guest's disks open, the variables of its firmware among them, behind the others.

    `nodes` are their names in it; `guest` is None unless it runs.
    """

    monitor: Monitor
    disks: tuple[Disk, ...]
    nodes: Mapping[str, str]
    guest: Guest | None

    async def freeze(self, mode: FreezeMode) -> Freeze:
        """Let the guest's file systems stand still, until `thaw`.

        Raises: HostError if they do not and that was required.
        """
        if self.guest is None:
            return Freeze(True, "it does not run")
        if mode is FreezeMode.NEVER:
            return Freeze(False, "not wanted")
        done = await freezing.freeze(self.guest)
        if mode is FreezeMode.REQUIRE and not done.is_frozen:
            name = self.guest.spec.name
            raise HostError(
                f"{name} cannot be frozen: {done.why}. Without --freeze require it is copied as it is"
            )
        return done

    async def thaw(self) -> bool:
        """Let them go on. Returns whether they stood still until now."""
        if self.guest is None or self.guest.phase is not Phase.RUNNING:
            return True
        return await freezing.thaw(self.guest)

    @property
    def held_up_by(self) -> str:
        """What cannot be written, a disk or the copy of one, while the guest stands still for it; else ""."""
        return self.guest.halted_by if self.guest is not None else ""

    async def try_again(self) -> None:
        """A guest that stands still for a copy goes on: what it waited for is gone."""
        if self.guest is not None:
            async with self.guest.lock:
                await self.guest.try_again()


@contextlib.asynccontextmanager
async def opened(manager: HvManager, spec: GuestSpec, why: str) -> AsyncIterator[Blocks]:
    """The disks of a guest. One that does not run is not started meanwhile, and nothing is done with those of
    another that its QEMU would refuse; `why` tells who tries."""
    guest = manager.guest(spec)
    if not await _held(guest, why):
        guest.copied = why
        try:
            yield _opened_by(guest)
        finally:
            guest.copied = ""
        return
    try:
        async with _opened_at_rest(manager, spec) as blocks:
            yield blocks
    finally:
        guest.hold("")


def _opened_by(guest: Guest) -> Blocks:
    """Those of a guest that is up."""
    kept, plugged = _variables(guest.spec), guest.plugged
    nodes = {each.disk.name: each.node for each in plugged} | {each.name: firmware.NODE for each in kept}
    return Blocks(guest.monitor, (*(each.disk for each in plugged), *kept), nodes, guest)


@contextlib.asynccontextmanager
async def at_rest(manager: HvManager, spec: GuestSpec, why: str) -> AsyncIterator[Stored | None]:
    """A guest that does not run and is not started meanwhile; the image of its root disk, if it has one.

    Raises HostError if it runs.
    """
    async with held(manager, spec, why):
        prepared = await _prepared(manager, spec)
        yield None if prepared is None else prepared.root


@contextlib.asynccontextmanager
async def held(manager: HvManager, spec: GuestSpec, why: str) -> AsyncIterator[None]:
    """A guest that does not run and is not started meanwhile. Raises HostError if it runs."""
    guest = manager.guest(spec)
    if not await _held(guest, why):
        raise HostError(f"{spec.name} runs: `vnet stop {spec.name}` first")
    try:
        yield
    finally:
        guest.hold("")


async def _prepared(manager: HvManager, spec: GuestSpec) -> Prepared | None:
    """What its disks are made of; None of vnet's own guest, which has them made of nothing."""
    if spec.boot.is_micro:
        return None
    found = await manager.image_of(spec, lambda text: None)
    return found if isinstance(found, Prepared) else None


async def _held(guest: Guest, why: str) -> bool:
    """Keep a guest that does not run from being started. False if it runs.

    Raises HostError for one that is suspended.
    """
    async with guest.lock:
        if await Adopter(guest).adopt():
            return False
        await asyncio.to_thread(refuse_kept_memory, guest.spec.fabric, guest.spec.name)
        guest.hold(why)
        return True


def _variables(spec: GuestSpec) -> tuple[Disk, ...]:
    """What its firmware keeps; nothing before its first start."""
    kept = ((each, disks.path_of(spec.fabric, spec.name, each)) for each in firmware.kept(spec.boot))
    return tuple(replace(each, size_bytes=path.stat().st_size) for each, path in kept if path.exists())


@contextlib.asynccontextmanager
async def _opened_at_rest(manager: HvManager, spec: GuestSpec) -> AsyncIterator[Blocks]:
    """Those of a guest that does not run."""
    for declared in spec.disks:
        disks.refuse_elsewhere(spec.fabric, spec.name, declared)
    files = {each.name: disks.path_of(spec.fabric, spec.name, each) for each in spec.disks}
    missing = ", ".join(name for name, file in files.items() if not file.exists())
    if missing:
        raise HostError(f"{spec.name} has no disk {missing} yet: the first `vnet start {spec.name}` makes it")
    prepared = await _prepared(manager, spec)
    sized = (*(spec.disks if prepared is None else prepared.disks), *_variables(spec))
    async with working(max((each.file_bytes for each in sized), default=0)) as worker:
        with contextlib.ExitStack() as stack:
            found = await finished(_open_all, spec, prepared, stack)
            for each in found:
                opening = monitor.open_disk(each.plugged, each.fd, read_key(each.key_fd), each.base_fd)
                await worker.monitor.execute_all(opening)
        nodes = {each.plugged.disk.name: each.plugged.node for each in found}
        yield Blocks(worker.monitor, sized, nodes, None)


def _open_all(
    spec: GuestSpec, prepared: Prepared | None, stack: contextlib.ExitStack
) -> tuple[DiskArgument, ...]:
    found = open_disks(spec, prepared, stack)
    kept = (Plugged(each, len(found), len(found)) for each in _variables(spec))
    return (*found, *(disks.open_disk(spec.fabric, spec.name, each, stack) for each in kept))
