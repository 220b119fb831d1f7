"""A change that an earlier manager was killed in: the step that was under way is noted if it was done, else
undone, and what the machine has is found out.

Each step is noted in the guest's record once it is done, so whatever is plugged in and not noted, or noted
and gone, is of that one step. A device that is there is whole: if it is of the change, it is noted. Of one
that has not come to be, or has gone, what was behind it is let go of, which is known by its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vnet.base.errors import HostError
from vnet.hv import hotplug, monitor
from vnet.hv.built import Built, Places
from vnet.hv.changing import Has
from vnet.hv.disk import SERIAL_LENGTH, Disk, Plugged
from vnet.hv.live.guest import Guest
from vnet.hv.live.plugging import Plugs
from vnet.hv.spec import GuestSpec


@dataclass(frozen=True, slots=True)
class Unfinished:
    """What there is of one guest. Who calls holds its lock; its machine can change."""

    guest: Guest
    plugs: Plugs
    built: Built
    known: tuple[GuestSpec, ...]
    """What it was and what it was to be."""

    async def clear(self) -> None:
        """Notes the step that was under way, or undoes it.

        Raises: TimedOut when the guest keeps what it was given; HostError for one that an earlier version
            started, whose places nobody knows.
        """
        if self.guest.recorded.built is None:
            raise HostError("it was started by an earlier version")
        present = await self.plugs.present()
        for slot in range(self.built.slots):
            await self._clear_nic(slot, is_plugged=f"nic{slot}" in present)
            await self._clear_disk(slot, is_plugged=f"blk{slot}" in present)
        added = self.guest.recorded.memory_bytes - self.built.memory_bytes
        is_growable = hotplug.MEMORY_ID in present
        await self.plugs.attempt((hotplug.ask_memory(added) if is_growable else hotplug.drop_memory(),))

    async def _clear_nic(self, slot: int, *, is_plugged: bool) -> None:
        noted = [name for name, each in self._places.nics if each == slot]
        if is_plugged and (noted or await self._notes_nic(slot)):
            return
        if is_plugged:
            await self.plugs.unplug(f"nic{slot}", "a NIC that it was just given")
        await self.plugs.attempt((*hotplug.drop_nic(slot), *hotplug.forget_tap(slot)))
        for name in noted:
            self.plugs.note_gone(name)

    async def _clear_disk(self, index: int, *, is_plugged: bool) -> None:
        noted = [name for name, each, _ in self._places.disks if each == index]
        if is_plugged and (noted or await self._notes_disk(index)):
            return
        if is_plugged:
            await self.plugs.unplug(f"blk{index}", "a disk that it was just given")
        close, *rest = hotplug.drop_disk(Plugged(Disk("", 0, encrypt=True), index, 0), is_based=True)
        if close.arguments["node-name"] in await self._formats():
            await self.plugs.let_go((close,))
        await self.plugs.attempt(rest)
        for name in noted:
            self.guest.note(places=self._places.without_disk(name))

    async def _notes_nic(self, slot: int) -> bool:
        """Whether a NIC that is plugged in is of the change; then it is noted."""
        mac = hotplug.mac(await self.guest.monitor.execute(hotplug.query_mac(slot)))
        names = {nic.interface for spec in self.known for nic in spec.nics if nic.mac == mac}
        for name in sorted(names - {each for each, _ in self._places.nics}):
            places = self._places.with_nic(name)
            if (name, slot) in places.nics:
                self.guest.note(places=places)
                return True
        return False

    async def _notes_disk(self, index: int) -> bool:
        """The same of a disk."""
        serial = await self.guest.monitor.execute(hotplug.query_serial(index))
        names = {
            each.name for spec in self.known for each in spec.disks if each.name[:SERIAL_LENGTH] == serial
        }
        for name in sorted(names - {each for each, *_ in self._places.disks}):
            places = self._places.with_disk(name)
            if (name, index) == places.disks[-1][:2]:
                self.guest.note(places=places)
                return True
        return False

    async def has(self) -> Has:
        """What the machine has once that is clear."""
        execute, places = self.guest.monitor.execute, self._places
        formats = await self._formats()
        return Has(
            hotplug.cpus(await execute(hotplug.QUERY_CPUS)),
            tuple(
                [(name, hotplug.mac(await execute(hotplug.query_mac(slot)))) for name, slot in places.nics]
            ),
            tuple(f"{name}.{formats.get(f'disk{index}')}" for name, index, _ in places.disks),
        )

    async def refuse_gaps(self) -> None:
        """Raises HostError when something has gone that is noted: it was on its way out already."""
        noted = [f"nic{slot}" for _, slot in self._places.nics]
        noted += [f"blk{index}" for _, index, _ in self._places.disks]
        gone = sorted(set(noted) - await self.plugs.present())
        if gone:
            raise HostError(f"{self.guest.spec.name} has let go of {', '.join(gone)}")

    async def _formats(self) -> Mapping[str, str]:
        return hotplug.formats(await self.guest.monitor.execute(monitor.QUERY_NODES))

    @property
    def _places(self) -> Places:
        return self.guest.recorded.places
