"""A snapshot on its way: guests are kept at one moment, and what was begun is undone if that fails.

It is there when its folder gets its name. Of one that a killed daemon had begun `Snapshots.recover` undoes
the rest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv import saving
from vnet.hv.live import disk_snapshots
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.freezing import NOTHING_TO_FREEZE, freeze, thaw
from vnet.hv.live.guest import Guest
from vnet.hv.live.saving import Saving
from vnet.hv.live.tasks import together, uninterrupted
from vnet.hv.live.threads import kept
from vnet.hv.snapshot import Consistency, Saved, Snapshot


async def make(snapshot: Snapshot, guests: Sequence[Guest]) -> Snapshot:
    """Makes it; who calls holds the guests' locks. Returns it with what is known of it then.

    Raises: HostError, after which the guests are as if nothing had been.
    """
    making = await _begun(snapshot, guests)
    try:
        return await making.make()
    except BaseException:
        await uninterrupted(making.undo())
        raise


async def suspend(snapshot: Snapshot, guest: Guest) -> Saved:
    """The same for a guest that is not to go on, and ends; its next start begins with the snapshot."""
    making = await _begun(snapshot, [guest])
    try:
        return await making.suspend()
    except BaseException:
        await uninterrupted(making.undo())
        raise


async def _begun(snapshot: Snapshot, guests: Sequence[Guest]) -> _Making:
    folder = await kept(files.give_up, files.begin, snapshot)
    return _Making(folder, snapshot, {guest.spec.name: guest for guest in guests})


@dataclass(slots=True)
class _Making:
    """A snapshot on its way."""

    folder: Path
    snapshot: Snapshot
    guests: dict[str, Guest]
    savings: dict[str, Saving] = field(default_factory=dict)
    frozen: tuple[str, ...] = ()
    bare: tuple[str, ...] = ()
    """Those that had nothing to freeze: no file system of a disk was mounted."""

    async def make(self) -> Snapshot:
        """All its steps."""
        await self._begin()
        savings = list(self.savings.values())
        hurry = asyncio.Event() if len(savings) > 1 else None
        await together(each.copy(hurry) for each in savings)
        await self._freeze()
        await together(each.stop() for each in savings)
        await together(self._take(each) for each in savings)
        await self._thaw()
        await asyncio.to_thread(self._keep_those_that_are_off)
        await together(each.ended() for each in savings)
        made = self._told()
        await uninterrupted(asyncio.to_thread(files.commit, self.folder, made))
        await uninterrupted(self._saved(made))
        return made

    async def suspend(self) -> Saved:
        """The same for a guest that is not to go on."""
        await self._begin()
        ((vm, saving_),) = self.savings.items()
        await saving_.copy()
        await saving_.stop()
        await saving_.take()
        await saving_.ended()
        made = self._told()
        await uninterrupted(asyncio.to_thread(_commit_suspended, self.folder, made, vm))
        await uninterrupted(self.guests[vm].suspend())
        return made.of(vm)

    async def _begin(self) -> None:
        for member in self.snapshot.members:
            guest = self.guests[member.vm]
            if guest.is_up:
                file = self.folder / f"{member.vm}.memory" if member.build else None
                live = member.build is not None and saving.copies_while_it_runs(member.build)
                disks = bool(member.disks)
                self.savings[member.vm] = await guest.saving(self.snapshot.id, file, disks=disks, live=live)

    async def _take(self, saving_: Saving) -> None:
        """All stand still by now: each may go on as soon as it is kept."""
        await saving_.take()
        await self._keep_variables(saving_.name)
        await saving_.go_on()

    async def _keep_variables(self, vm: str) -> None:
        await asyncio.to_thread(disk_snapshots.keep_variables, self.guests[vm].spec, self.folder)

    def _keep_those_that_are_off(self) -> None:
        for member in self.snapshot.members:
            if member.consistency is Consistency.OFF:
                disk_snapshots.keep(self.snapshot.fabric, member.vm, member.disks, self.snapshot.id)
                disk_snapshots.keep_variables(self.guests[member.vm].spec, self.folder)

    async def _freeze(self) -> None:
        """Without their memory guests are asked to write what they still hold back."""
        asked = [each.vm for each in self.snapshot.members if each.consistency is Consistency.CRASH]
        done = await asyncio.gather(*(freeze(self.guests[vm]) for vm in asked))
        found = dict(zip(asked, done, strict=True))
        self.bare = tuple(vm for vm, each in found.items() if each == NOTHING_TO_FREEZE)
        self.frozen = tuple(vm for vm, each in found.items() if each.is_frozen and vm not in self.bare)

    async def _thaw(self) -> None:
        """Those that thawed themselves meanwhile were not frozen when it mattered."""
        stood_still = await asyncio.gather(*(thaw(self.guests[vm]) for vm in self.frozen))
        self.frozen = tuple(vm for vm, still in zip(self.frozen, stood_still, strict=True) if still)

    def _told(self) -> Snapshot:
        """With what is known of it now."""
        return replace(self.snapshot, members=tuple(map(self._of_member, self.snapshot.members)))

    def _of_member(self, member: Saved) -> Saved:
        saving_ = self.savings.get(member.vm)
        if saving_ is None:
            return member
        is_at_rest = member.vm in (*self.frozen, *self.bare)
        consistency = Consistency.FROZEN if is_at_rest else member.consistency
        pause_s = round(saving_.pause_s, 4)
        return replace(member, consistency=consistency, memory_bytes=saving_.memory_bytes, pause_s=pause_s)

    async def _saved(self, made: Snapshot) -> None:
        for vm in made.vms:
            await asyncio.to_thread(files.set_head, made.fabric, vm, made.id)
        await self._leave()

    async def _leave(self) -> None:
        for vm in self.savings:
            with suppress(OSError):  # a record that says too much is corrected by the next daemon
                await self.guests[vm].saved()

    async def undo(self) -> None:
        """The guests are as they were, and nothing is left of it."""
        await asyncio.gather(*(each.undo() for each in self.savings.values()))
        await self._thaw()
        fabric, name = self.snapshot.fabric, self.snapshot.id
        for member in self.snapshot.members:
            if member.consistency is Consistency.OFF:
                with suppress(HostError):
                    await asyncio.to_thread(disk_snapshots.drop, fabric, member.vm, member.disks, name)
        await asyncio.to_thread(files.give_up, self.folder)
        await self._leave()


def _commit_suspended(folder: Path, made: Snapshot, vm: str) -> None:
    files.commit(folder, made)
    files.wish(made.fabric, made.id, [vm], memory=True, suspended=True)
