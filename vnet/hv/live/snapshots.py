"""Snapshots of the guests of one fabric: made, restored, removed; guests suspended.

Each is safe at every step: a snapshot is there when its folder gets its name, a restored guest when the wish
for it is written down. Who finds what a killed daemon has left undoes the one and completes the other.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace

from vnet.base.errors import HostError, InputError
from vnet.hv import snapshot as values
from vnet.hv.lifecycle import Phase
from vnet.hv.live import cgroup, disk_snapshots, saved_start
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.adopting import Adopter
from vnet.hv.live.backed_up import refuse_backed_up
from vnet.hv.live.changing import refuse_what_was_changed
from vnet.hv.live.guest import Guest
from vnet.hv.live.manager import HvManager, Progress
from vnet.hv.live.saved_start import shape_of
from vnet.hv.live.snapshot_files import Next
from vnet.hv.live.snapshot_making import make, suspend
from vnet.hv.live.tasks import all_of, together, uninterrupted
from vnet.hv.snapshot import Build, Consistency, Saved, SavedDisk, Shape, Snapshot
from vnet.hv.spec import GuestSpec


@dataclass(frozen=True, slots=True)
class Wanted:
    """A snapshot to be made."""

    name: str
    description: str = ""
    memory: bool = True


@dataclass(slots=True)
class Snapshots:
    """`manager` has the guests; `open_tap` gives a NIC's TAP, see `HvManager.start`."""

    manager: HvManager
    fabric: str
    open_tap: Callable[[str], int]

    # ---- making ------------------------------------------------------------------------------

    async def save(self, specs: Sequence[GuestSpec], wanted: Wanted) -> Snapshot:
        """Keeps guests as they are at one moment.

        Raises: InputError for what cannot be kept; HostError, after which they are as if nothing had been.
        """
        values.check_name(wanted.name)
        known = await asyncio.to_thread(files.known, self.fabric)
        values.refuse_taken(wanted.name, (spec.name for spec in specs), known)
        async with self._guests(specs) as guests:
            for guest in guests:
                values.refuse_raw(guest.spec)
                _refuse_nothing(guest, wanted.memory)
                await _refuse_copied(guest)
                if wanted.memory and guest.is_up:
                    refuse_what_was_changed(guest, "; until then its disks can (`--disk-only`)")
            return await self._save(guests, wanted)

    async def _save(self, guests: Sequence[Guest], wanted: Wanted) -> Snapshot:
        await self._make_room(guest for guest in guests if wanted.memory and guest.is_up)
        build = await self.manager.build()
        members = [self._member(guest, build, wanted.memory) for guest in guests]
        snapshot = Snapshot(
            secrets.token_hex(8), self.fabric, wanted.name, time.time(), tuple(members), wanted.description
        )
        return await make(snapshot, guests)

    async def _make_room(self, guests: Iterable[Guest]) -> None:
        """Raises AdmissionError if the host has no memory for what reading all memory of clones takes."""
        clones = [guest for guest in guests if guest.status().warm]
        self.manager.admit(guest.spec for guest in clones)
        for guest in clones:
            group = cgroup.of(guest.recorded.cgroups)
            await asyncio.to_thread(cgroup.resize, group, guest.spec.memory_bytes)

    def _member(self, guest: Guest, build: Build, memory: bool) -> Saved:
        spec, is_up = guest.spec, guest.is_up
        parent = files.head(self.fabric, spec.name)
        disks = tuple(SavedDisk(each.name, each.format, each.size_bytes) for each in spec.disks)
        if not is_up:
            return Saved(spec.name, Consistency.OFF, disks, parent)
        if not memory:
            return Saved(spec.name, Consistency.CRASH, disks, parent)
        return Saved(spec.name, Consistency.MEMORY, disks, parent, build, self._shape(spec))

    def _shape(self, spec: GuestSpec) -> Shape:
        return shape_of(spec, self.manager.machine(spec))

    async def suspend(self, spec: GuestSpec) -> Saved:
        """Keeps a guest's memory and ends its QEMU; its next start goes on from there."""
        async with self._guests([spec]) as (guest,):
            guest.check_up()
            await _refuse_copied(guest)
            refuse_what_was_changed(guest)
            await self._make_room([guest])
            member = replace(self._member(guest, await self.manager.build(), True), disks=())
            snapshot = Snapshot(secrets.token_hex(8), self.fabric, "", time.time(), (member,))
            return await suspend(snapshot, guest)

    # ---- going back --------------------------------------------------------------------------

    async def restore(
        self, snapshot: Snapshot, specs: Sequence[GuestSpec], *, memory: bool, progress: Progress
    ) -> None:
        """Makes guests what they were; what they are now is lost. With their memory they go on together.

        Raises: HostError before anything is changed if that cannot be; afterwards the wish is kept, and the
            next start tries again.
        """
        async with self._guests(specs) as guests:
            for guest in guests:
                guest.refuse_while_held()
                await asyncio.to_thread(disk_snapshots.refuse_missing, snapshot, guest.spec.name)
            if memory:
                await self.refuse_what_cannot_be_loaded(snapshot, specs)
            names = [spec.name for spec in specs]
            wish = await asyncio.to_thread(files.wish, self.fabric, snapshot.id, names, memory=memory)
            await uninterrupted(_end(guests))
            await self._fulfil(wish, guests, progress)

    async def refuse_what_cannot_be_loaded(self, snapshot: Snapshot, specs: Sequence[GuestSpec]) -> None:
        """Raises HostError for memory that QEMU would not load, saying why and what is possible."""
        build = await self.manager.build()
        for spec in specs:
            saved_start.refuse_what_cannot_be_loaded(snapshot, spec.name, build, self._shape(spec))

    async def complete(self, wish: Next, specs: Sequence[GuestSpec], progress: Progress) -> None:
        """What a daemon that was killed had begun to restore."""
        async with self._guests(specs) as guests:
            await self._fulfil(wish, [each for each in guests if not each.is_up], progress)

    async def _fulfil(self, wish: Next, guests: Sequence[Guest], progress: Progress) -> None:
        if not wish.memory:
            for guest in guests:
                await asyncio.to_thread(saved_start.take_back, wish, guest.spec)
                await asyncio.to_thread(saved_start.fulfilled, wish, guest.spec)
            return
        await together(self._load(wish, guest, progress) for guest in guests)
        await all_of(saved_start.go_on(wish, guest) for guest in guests)

    async def _load(self, wish: Next, guest: Guest, progress: Progress) -> None:
        async with self.manager.room(guest.spec):
            means = await self.manager.means(guest.spec, self.open_tap, progress)
            await saved_start.load(wish, guest, means)

    # ---- removing ----------------------------------------------------------------------------

    async def remove(self, snapshot: Snapshot, vm: str) -> None:
        """Takes a VM out of a snapshot, which is gone with its last; those after it descend from its parent.

        Raises: HostError while it is being restored.
        """
        if any(wish.snapshot == snapshot.id and vm in wish.vms for wish in files.wishes(self.fabric)):
            raise HostError(f"{vm} is to begin with {snapshot.name}: `vnet start {vm}` first")
        guest = self.manager.guest_named(self.fabric, vm)
        async with guest.lock:
            await _refuse_copied(guest)
            await self._forget_disks(guest, snapshot)
            await asyncio.to_thread(_unlink, snapshot, vm)

    async def _forget_disks(self, guest: Guest, snapshot: Snapshot) -> None:
        vm = guest.spec.name
        disks = snapshot.of(vm).disks
        if guest.is_up:
            await guest.forget_disks(snapshot.id, [each.name for each in disks])
        else:
            await asyncio.to_thread(disk_snapshots.drop, self.fabric, vm, disks, snapshot.id)

    async def recover(self) -> None:
        """Removes what daemons that were killed have left half made. Guests have been adopted before."""
        for folder, snapshot in await asyncio.to_thread(files.half_made, self.fabric):
            for member in snapshot.members if snapshot else ():
                guest = self.manager.guest_named(self.fabric, member.vm)
                with suppress(HostError):
                    assert snapshot is not None
                    await self._forget_disks(guest, snapshot)
            await asyncio.to_thread(files.give_up, folder)
        await asyncio.to_thread(files.sweep, self.fabric)

    @asynccontextmanager
    async def _guests(self, specs: Iterable[GuestSpec]) -> AsyncIterator[list[Guest]]:
        """The guests, with nobody else at work on them."""
        async with AsyncExitStack() as stack:
            guests = []
            for spec in sorted(specs, key=lambda each: each.name):
                guest = self.manager.guest(spec)
                await stack.enter_async_context(guest.lock)
                if not await Adopter(guest).adopt():
                    guest.spec = spec
                guests.append(guest)
            yield guests


def _refuse_nothing(guest: Guest, memory: bool) -> None:
    """Raises InputError for a guest of which nothing could be kept."""
    name, is_up = guest.spec.name, guest.is_up
    if guest.phase is Phase.SUSPENDED:
        raise InputError(f"{name} is suspended, and has been kept so: `vnet start {name}` first")
    if not guest.spec.disks and not (is_up and memory):
        how = "leave --disk-only out: its memory is kept then" if is_up else f"`vnet start {name}` first"
        raise InputError(f"{name} has no disks and nothing to be kept; {how}")


async def _refuse_copied(guest: Guest) -> None:
    """Raises HostError for a guest whose disks are being copied, whether it is up or not."""
    guest.refuse_while_held()
    if guest.is_up:
        await refuse_backed_up(guest)


def _unlink(snapshot: Snapshot, vm: str) -> None:
    """Its parent is the one of now: that of when it was listed may have been removed since."""
    current = files.find(snapshot.fabric, snapshot.id)
    if current is None or vm not in current.vms:
        return
    for child in values.adopted(files.known(snapshot.fabric), current, vm):
        files.rewrite(child)
    if files.head(snapshot.fabric, vm) == snapshot.id:
        files.set_head(snapshot.fabric, vm, current.of(vm).parent)
    files.rewrite(current.without(vm))


async def _end(guests: Iterable[Guest]) -> None:
    """What they are is given up: none is asked to power off."""
    await asyncio.gather(*(guest.stop(0) for guest in guests))
    for guest in guests:
        await guest.look_for_saved()
