"""Guests of an earlier manager: taken over where they run, cleaned up after where they do not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from vnet.base.errors import VnetError
from vnet.hv import faults, monitor
from vnet.hv.faults import DiskFault
from vnet.hv.lifecycle import Event
from vnet.hv.live import saved_start
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.finding import find_recorded
from vnet.hv.live.guest import Guest
from vnet.hv.live.qemu import KILL_TIMEOUT_S, Qemu, last_words
from vnet.hv.live.record import read, record_path
from vnet.hv.live.saving import clear
from vnet.hv.monitor import RunState


@dataclass(frozen=True, slots=True)
class Adopter:
    """Finds out what has become of one guest. Who calls holds its lock."""

    guest: Guest

    async def adopt(self) -> bool:
        """Takes over a QEMU of an earlier manager; whatever is half-made or ended is cleaned up.

        Returns:
            Whether the guest is there, paused or not.
        """
        guest = self.guest
        if guest.is_up:
            if guest.process and guest.process.alive():
                return True
            await guest.drive(Event.DIED)  # nobody has noticed yet
            return False
        qemu, is_replaced = await self._find(), self._is_replaced()
        if qemu and self.guest.recorded.ready and not is_replaced:
            with contextlib.suppress(VnetError):
                await self._take_over(qemu)
                return guest.is_up
        if qemu:
            qemu.process.kill()
            await qemu.process.wait(KILL_TIMEOUT_S)
        if guest.record or guest.run_dir.exists():
            await guest.drive(self._ended(qemu))
        await guest.look_for_saved()
        return False

    async def _find(self) -> Qemu | None:
        """What is on record counts, also of one that we have half started ourselves."""
        guest = self.guest
        guest.record = read(record_path(guest.spec.fabric, guest.spec.name))
        process = find_recorded(guest.run_dir, guest.record) if guest.record else None
        await guest.leave()
        return guest.performer.own(process) if process else None

    def _is_replaced(self) -> bool:
        """Whether it is to begin anew from what was saved, and its QEMU was about to be ended."""
        spec, record = self.guest.spec, self.guest.record
        wish = saved_start.wish_of(spec)
        if wish and record and record.ready and record.origin == wish.token:
            saved_start.fulfilled(wish, spec)  # it has gone on, whatever became of it since
            return False
        return wish is not None

    async def _take_over(self, qemu: Qemu) -> None:
        """Events are not replayed: what happened while nobody listened is asked for."""
        guest = self.guest
        await qemu.connect()
        await qemu.refuse_another(self.guest.recorded.uuid)
        if self.guest.recorded.saving:
            await self._end_saving(qemu)
        status = monitor.parse_status(await qemu.monitor.execute(monitor.QUERY_STATUS))
        if self.guest.recorded.booting:
            await qemu.monitor.execute(monitor.CONTINUE)
            await guest.drive(Event.ADOPT_BOOTING)
        elif status is RunState.PAUSED:
            await guest.drive(Event.ADOPT_PAUSED)
        elif status is RunState.DISK_FAILED:
            await self._take_over_halted(qemu)
        else:
            await guest.drive(Event.ADOPT)
        if status is RunState.POWERED_OFF:
            await guest.drive(Event.POWERED_OFF)
        if status is RunState.PANICKED:
            qemu.panicked.set()  # seen by who watches it now

    async def _take_over_halted(self, qemu: Qemu) -> None:
        """It stands still for a disk; that is told unless an earlier manager has."""
        fault = faults.found(await qemu.monitor.execute(monitor.QUERY_BLOCK))
        qemu.faults.meet(fault or DiskFault("", "I/O error", halts=True))
        qemu.faults.halted.clear()
        await self.guest.drive(Event.ADOPT_PAUSED)
        if not self.guest.recorded.halted:
            self.guest.tell_halted()

    async def _end_saving(self, qemu: Qemu) -> None:
        """An earlier manager was killed while it saved this guest, at whatever point."""
        record, spec = self.guest.recorded, self.guest.spec
        found = files.find(spec.fabric, record.saving)
        is_there = found is not None and bool(found.name)
        disks = () if is_there else self.guest.plugged
        await clear(qemu.monitor, disks, record.saving, runs=record.saving_runs)
        if is_there:
            files.set_head(spec.fabric, spec.name, record.saving)
        self.guest.note(saving="")

    def _ended(self, qemu: Qemu | None) -> Event:
        """What has become of a guest whose traces are there and whose QEMU is not, or is no more."""
        record = self.guest.record
        if qemu or record is None or not record.ready or record.ending:
            return Event.STOP  # half-made, or ended by us
        self.guest.reason = last_words(self.guest.run_dir) or "QEMU ended while no daemon ran"
        return Event.FOUND_DEAD
