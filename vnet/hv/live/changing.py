"""Performs what `vnet.hv.changing` says on a guest that runs. A change is made as a whole or taken back."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

from vnet.base.errors import HostError, PeerError, TimedOut, VnetError
from vnet.hv import changing, hotplug
from vnet.hv import monitor as qmp
from vnet.hv.argv import built_of, places_of
from vnet.hv.built import Built, Places, unchangeable
from vnet.hv.changing import HalfChanged, Step, standing
from vnet.hv.disk import Disk
from vnet.hv.identity import change_lines
from vnet.hv.live import cgroup, console_log
from vnet.hv.live import disk as disks
from vnet.hv.live.agent_link import CONFIGURE_TIMEOUT_S, configure
from vnet.hv.live.backed_up import refuse_backed_up
from vnet.hv.live.deadline import deadline
from vnet.hv.live.guest import Guest
from vnet.hv.live.keys import read_key
from vnet.hv.live.launcher import open_vhost
from vnet.hv.live.plugging import Plugs
from vnet.hv.live.process import file_limit
from vnet.hv.live.threads import finished, kept
from vnet.hv.live.unfinished import Unfinished
from vnet.hv.spec import GuestNic, GuestSpec

MEMORY_TIMEOUT_S = 10.0
ANSWER_TIMEOUT_S = 5.0
_SLACK_BYTES = 8 << 20
"""Linux takes memory in pieces that may be larger than asked for, and keeps the piece with its own notes."""
_IS_MOUNTED = """\
for link in "/dev/disk/$1" "/dev/disk/by-id/virtio-$1"; do
    [ -e "$link" ] || continue
    disk=$(readlink -f "$link")
    for number in $(cat "/sys/block/${disk##*/}/dev" /sys/block/"${disk##*/}"/*/dev 2>/dev/null); do
        grep -q " $number " /proc/self/mountinfo && exit 0
    done
done
exit 1
"""
"""Of the disk of that name or one of its partitions, by their device numbers. Source: proc(5)."""
_USE_CPUS = """\
sleep 0.5
for each in /sys/devices/system/cpu/cpu[0-9]*/online; do
    [ "$(cat "$each")" = 1 ] || echo 1 >"$each"
done
"""
"""For a Linux that does not do so by itself."""


@dataclass(slots=True)
class Changer:
    """Changes one guest. Who calls holds its lock."""

    guest: Guest
    open_tap: Callable[[str], int]

    async def change(self, new: GuestSpec) -> None:
        """Makes it `new`.

        Raises:
            HalfChanged: it could not, and could not be made again what it was either.
            HostError, PeerError, TimedOut: it could not, and is as it was.
        """
        old = self.guest.spec
        steps = changing.steps(old, new)
        await self._refuse_copied(steps)
        try:
            await self._ask_who_will_be_told(steps)
        except (TimedOut, PeerError) as error:
            raise TimedOut(
                f"{old.name} cannot be told of its change, nothing of it was changed: {error}"
            ) from error
        await self._take_or_take_back(steps, old, new)

    async def take_up(self, old: GuestSpec, new: GuestSpec) -> None:
        """Completes a change that an earlier manager was killed in, or takes it back.

        Raises: as `change` does; HalfChanged also when neither could be begun.
        """
        guest = self.guest
        unfinished = Unfinished(guest, self._plugs, self._built, (old, new))
        try:
            guest.check_running()
            await unfinished.clear()
            guest.spec = standing(old, new, await unfinished.has(), guest.recorded.memory_bytes)
            steps = changing.steps_from(guest.spec, new, told=old)
            await self._refuse_copied(steps)
            await self._ask_who_will_be_told(steps)
        except (VnetError, OSError) as error:
            raise HalfChanged(f"{new.name} stays half changed: {error}") from error
        await self._take_or_take_back(steps, old, new)
        try:
            await unfinished.refuse_gaps()
        except VnetError as error:
            raise HalfChanged(str(error)) from error

    async def _take_or_take_back(self, steps: Iterable[Step], old: GuestSpec, new: GuestSpec) -> None:
        try:
            await self._take(steps)
        except HalfChanged:
            raise
        except (VnetError, OSError) as error:
            await self._take_back(old, new, error)
            raise error if isinstance(error, VnetError) else HostError(f"{old.name}: {error}") from error
        self.guest.spec = new

    async def _refuse_copied(self, steps: Iterable[Step]) -> None:
        """Raises HostError for disks that are to go or to grow and cannot, since they are being copied."""
        if any(isinstance(step, changing.DetachDisk | changing.ResizeDisk) for step in steps):
            await refuse_backed_up(self.guest)

    async def _ask_who_will_be_told(self, steps: Iterable[Step]) -> None:
        """Raises TimedOut, PeerError for a guest that would have to hear of it and does not answer."""
        if any(isinstance(step, changing.Tell) for step in steps):
            await self._run(["true"], ANSWER_TIMEOUT_S)

    async def _take(self, steps: Iterable[Step]) -> None:
        for step in steps:
            await self._perform(step)
            self.guest.spec = changing.done(step, self.guest.spec)

    async def _take_back(self, old: GuestSpec, new: GuestSpec, why: Exception) -> None:
        """Back to what it was; one that is not told so any more, since it is silent, has its devices back."""
        try:
            await self._take(changing.steps_from(self.guest.spec, old, told=new))
        except (VnetError, OSError) as error:
            is_silent = isinstance(error, TimedOut | PeerError)
            if not is_silent or changing.steps(self.guest.spec, old):
                told = f"{why}; and {old.name} could not be made again what it was: {error}"
                raise HalfChanged(told) from why
        if self.guest.spec.cpus != old.cpus:
            raise HalfChanged(f"{why}; {old.name} has {self.guest.spec.cpus} CPUs until it is restarted")
        self.guest.spec = old

    async def _perform(self, step: Step) -> None:
        match step:
            case changing.SetMemory(memory_bytes):
                await self._set_memory(memory_bytes)
            case changing.AddCpus(cpus):
                await self._add_cpus(cpus)
            case changing.AttachNic(nic):
                await self._attach_nic(nic)
            case changing.DetachNic(nic):
                await self._detach_nic(nic)
            case changing.AttachDisk(disk):
                await self._attach_disk(disk)
            case changing.DetachDisk(disk):
                await self._detach_disk(disk)
            case changing.ResizeDisk(disk):
                await self._resize_disk(disk)
            case changing.Tell(old, new):
                await self._tell(old, new)

    # NICs

    async def _attach_nic(self, nic: GuestNic) -> None:
        places = self._places.with_nic(nic.interface)
        slot = places.nic(nic.interface)
        tap = await kept(os.close, self.open_tap, nic.name)
        vhost = open_vhost()
        try:
            await self.guest.monitor.execute_all(qmp.plug_nic(slot, nic.mac, tap, vhost))
        except VnetError:
            await self._plugs.attempt(hotplug.drop_nic(slot))
            raise
        finally:
            for descriptor in (tap, vhost):
                if descriptor is not None:
                    os.close(descriptor)
        self.guest.note(places=places)

    async def _detach_nic(self, nic: GuestNic) -> None:
        slot = self._places.nic(nic.interface)
        what = f"its NIC {nic.interface}"
        await self._plugs.unplug(f"nic{slot}", what)
        self._plugs.note_gone(nic.interface)
        await self._let_go(changing.DetachNic(nic), what, hotplug.drop_nic(slot))

    # disks

    async def _attach_disk(self, disk: Disk) -> None:
        spec, places = self.guest.spec, self._places.with_disk(disk.name)
        plugged = places.disk(disk)
        with contextlib.ExitStack() as stack:
            await finished(disks.ensure, spec.fabric, spec.name, disk)
            opened = await finished(disks.open_disk, spec.fabric, spec.name, plugged, stack)
            await self._allow_files(disk.file_bytes)
            try:
                key, base = read_key(opened.key_fd), opened.base_fd
                await self.guest.monitor.execute_all(qmp.plug_disk(plugged, opened.fd, key, base))
            except VnetError:
                await self._plugs.attempt(hotplug.drop_disk(plugged, is_based=opened.base_fd is not None))
                raise
        self.guest.note(places=places)

    async def _detach_disk(self, disk: Disk) -> None:
        """One that the guest still uses stays: what it has not written yet would be lost.

        Its file is not asked whether it is made of an image: it may lie at a location that is missing.
        """
        plugged = self._places.disk(disk)
        if await self._is_mounted(disk):
            raise HostError(
                f"{self.guest.spec.name} has its disk {disk.name} mounted: unmount it there, and try again"
            )
        what = f"its disk {disk.name}"
        await self._plugs.unplug(f"blk{plugged.index}", what)
        self.guest.note(places=self._places.without_disk(disk.name))
        close, *rest = hotplug.drop_disk(plugged, is_based=True)
        await self._let_go(changing.DetachDisk(disk), what, (close,))
        await self._plugs.attempt(rest)

    async def _is_mounted(self, disk: Disk) -> bool:
        try:
            return await self._run(["sh", "-c", _IS_MOUNTED, "sh", disk.name], ANSWER_TIMEOUT_S) == 0
        except (PeerError, TimedOut):
            return False  # who does not answer is not asked

    async def _resize_disk(self, disk: Disk) -> None:
        """A root disk for which no size is declared any more stays as it is."""
        if not disk.size_bytes:
            return
        spec = self.guest.spec
        await asyncio.to_thread(disks.refuse_to_shrink, spec.fabric, spec.name, disk)
        await self._allow_files(disk.file_bytes)
        resize = hotplug.resize_disk(self._places.disk(disk), disk.size_bytes)
        await self.guest.monitor.execute(resize)

    async def _allow_files(self, file_bytes: int) -> None:
        """Before QEMU may make a file so long, its console's log begins further behind."""
        spec, process = self.guest.spec, self.guest.process
        assert process is not None
        await asyncio.to_thread(console_log.move, spec.fabric, spec.name, file_limit(file_bytes))
        await asyncio.to_thread(process.allow_files, file_bytes, self.guest.recorded.user)

    # memory and processors

    async def _set_memory(self, memory_bytes: int) -> None:
        """The limit is what the guest may have at any time: raised before, lowered after."""
        before, built = self.guest.spec.memory_bytes, self._built
        cgroup.resize(self._group, max(before, memory_bytes))
        added = memory_bytes - built.memory_bytes
        if hotplug.added_memory(await self.guest.monitor.execute(hotplug.QUERY_MEMORY)) is None:
            await self.guest.monitor.execute_all(hotplug.add_memory(built, added))
        else:
            await self.guest.monitor.execute(hotplug.ask_memory(added))
        try:
            await self._until_added(added, grows=memory_bytes > before)
        except TimedOut:
            await self._plugs.attempt((hotplug.ask_memory(before - built.memory_bytes),))
            raise
        cgroup.resize(self._group, memory_bytes)
        self.guest.note(memory_bytes=memory_bytes)

    async def _until_added(self, wanted: int, *, grows: bool) -> None:
        def is_done(answer: object) -> bool:
            has = hotplug.added_memory(answer) or 0
            return has >= wanted - _SLACK_BYTES if grows else has <= wanted + _SLACK_BYTES

        what = f"has not {'taken' if grows else 'given back'} the memory that it should"
        async with deadline(MEMORY_TIMEOUT_S, f"{self.guest.spec.name} {what}"):
            await self.guest.monitor.poll(hotplug.QUERY_MEMORY, is_done)

    async def _add_cpus(self, cpus: int) -> None:
        found = await self.guest.monitor.execute(hotplug.QUERY_CPUS)
        for command in hotplug.plug_cpus(found, cpus - hotplug.cpus(found)):
            await self.guest.monitor.execute(command)
            self.guest.spec = replace(self.guest.spec, cpus=self.guest.spec.cpus + 1)
        if self.guest.spec.is_micro:
            await self._tell(replace(self.guest.spec, cpus=self._built.cpus), self.guest.spec)
        else:
            with contextlib.suppress(PeerError, TimedOut):  # many systems do it by themselves
                await self._run(["sh", "-c", _USE_CPUS], ANSWER_TIMEOUT_S)

    # the guest itself

    async def _tell(self, old: GuestSpec, new: GuestSpec) -> None:
        agent = await self.guest.agent_now(CONFIGURE_TIMEOUT_S)
        await configure(agent, new.name, change_lines(old, new))

    async def _run(self, argv: list[str], timeout_s: float) -> int:
        agent = await self.guest.agent_now(timeout_s)
        return (await agent.run(argv, stdin=b"", timeout_s=timeout_s)).exit_code

    async def _let_go(self, step: Step, what: str, commands: Iterable[qmp.Command]) -> None:
        """Of what was behind a device that the guest has let go of: it cannot be plugged in again."""
        self.guest.spec = changing.done(step, self.guest.spec)
        try:
            await self._plugs.let_go(commands)
        except VnetError as error:
            told = f"{self.guest.spec.name} has let go of {what}, and its QEMU has not: {error}"
            raise HalfChanged(told) from error

    # what is known of it

    @property
    def _plugs(self) -> Plugs:
        return Plugs(self.guest)

    @property
    def _places(self) -> Places:
        return self.guest.recorded.places

    @property
    def _built(self) -> Built:
        spec = self.guest.spec
        return self.guest.recorded.built or unchangeable(spec.cpus, spec.memory_bytes)

    @property
    def _group(self) -> cgroup.Cgroup:
        return cgroup.of(self.guest.recorded.cgroups)


async def set_link(guest: Guest, interface: str, *, is_up: bool) -> None:
    """Pulls the cable of a NIC, or plugs it in again; that of one that is so already stays."""
    record = guest.recorded
    await guest.monitor.execute(hotplug.set_link(record.places.nic(interface), is_up=is_up))
    others = tuple(name for name in record.links_down if name != interface)
    guest.note(links_down=others if is_up else (*others, interface))


def refuse_what_was_changed(guest: Guest, instead: str = "") -> None:
    """Raises HostError for a guest that is no longer the machine which its next start makes: memory that is
    saved of it could not be loaded there. `instead` says what can be done until then."""
    record = guest.recorded
    if record.built and (record.built, record.places) != (
        built_of(guest.spec, record.accel),
        places_of(guest.spec),
    ):
        raise HostError(
            f"{guest.spec.name} was changed while it ran: its memory can be kept again once it has been"
            f" restarted{instead}"
        )
