"""Asks QEMUs now and then how their guests get on. Who wants to know never waits for one that hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import replace

from vnet.base.errors import HostError, VnetError
from vnet.hv import vitals
from vnet.hv.disk import Disk
from vnet.hv.live.qmp import Monitor
from vnet.hv.vitals import DiskNumbers, GuestMemory, Vitals

FRESH_S = 0.2
"""What was told less long ago is told again."""
PATIENCE_S = 0.25
"""How long anybody waits for an answer that is not there yet."""


class Look:
    """What is known of the QEMU behind one monitor. At most one question is under way, in its own task."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self._told = Vitals()
        self._asked_s = 0.0
        self._asking: asyncio.Task[None] | None = None
        self._names: dict[str, str] = {}
        self._guest_is_asked = False

    async def look(self, disks: Iterable[Disk]) -> Vitals:
        """How the guest gets on, as far as its QEMU says so in time."""
        if self._asking is None and time.monotonic() - self._told.told_s > FRESH_S:
            self._asked_s = time.monotonic()
            self._asking = asyncio.create_task(self._ask(tuple(disks)))
        if self._asking is not None:
            await asyncio.wait([self._asking], timeout=PATIENCE_S)
        silent_s = time.monotonic() - self._asked_s if self._asking else 0.0
        return replace(self._told, silent_s=round(silent_s, 1))

    def end(self) -> None:
        """Nobody asks any more."""
        if self._asking:
            self._asking.cancel()

    async def _ask(self, disks: tuple[Disk, ...]) -> None:
        """One that went away has told nothing new."""
        try:
            memory, left_bytes = await self._balloon()
            found = await self._disks(disks)
            self._told = Vitals(memory, left_bytes, found, time.monotonic())
        except VnetError:
            pass
        finally:
            self._asking = None

    async def _balloon(self) -> tuple[GuestMemory | None, int]:
        """What a guest told before the first look is old: a clone's is its template's.

        A guest that an older vnet started has no balloon.
        """
        try:
            memory = vitals.memory_of(await self.monitor.execute(vitals.QUERY_MEMORY))
            if not self._guest_is_asked:
                await self.monitor.execute(vitals.ASK_GUEST)
                self._guest_is_asked, memory = True, None
            return memory, vitals.left_bytes_of(await self.monitor.execute(vitals.QUERY_BALLOON))
        except HostError:
            return None, 0

    async def _disks(self, disks: tuple[Disk, ...]) -> tuple[DiskNumbers, ...]:
        devices = tuple(vitals.devices_of(await self.monitor.execute(vitals.QUERY_DISKS)))
        for device in devices:
            if device.path not in self._names:
                serial = await self.monitor.execute(vitals.query_serial(device.path))
                self._names[device.path] = vitals.name_of(serial, device.path, disks)
            if not device.is_counted:
                await self.monitor.execute(vitals.count_latencies(device.path))
        return tuple(vitals.disk_of(self._names[each.path], each) for each in devices)
