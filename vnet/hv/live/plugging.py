"""Devices of a guest that runs: taken out, and let go of with what is behind them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable
from dataclasses import dataclass

from vnet.base.errors import HostError, TimedOut, VnetError
from vnet.hv import hotplug
from vnet.hv import monitor as qmp
from vnet.hv.live.deadline import deadline
from vnet.hv.live.guest import Guest

UNPLUG_TIMEOUT_S = 10.0
_PAUSES_S = (0.01, 0.05, 0.1, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Plugs:
    """Those of one guest. Who calls holds its lock."""

    guest: Guest

    async def present(self) -> frozenset[str]:
        """The devices that are plugged in, by name."""
        return hotplug.devices(await self.guest.monitor.execute(hotplug.QUERY_DEVICES))

    async def unplug(self, device: str, what: str) -> None:
        """The guest lets go of a device; one that does not keeps it. Raises TimedOut, HostError."""
        refused: HostError | None = None
        try:
            await self.guest.monitor.execute(hotplug.unplug(device))
        except HostError as error:  # which is also said of one that is on its way out
            refused = error
        try:
            async with deadline(UNPLUG_TIMEOUT_S, f"{self.guest.spec.name} does not let go of {what}"):
                await self.guest.monitor.poll(
                    hotplug.QUERY_DEVICES, lambda found: device not in hotplug.devices(found)
                )
        except TimedOut as error:
            raise refused or error from None

    def note_gone(self, interface: str) -> None:
        """A NIC is there no more; the next one of that name has its cable plugged in."""
        record = self.guest.recorded
        down = tuple(name for name in record.links_down if name != interface)
        self.guest.note(places=record.places.without_nic(interface), links_down=down)

    async def let_go(self, commands: Iterable[qmp.Command]) -> None:
        """Of what was behind a device: QEMU still uses it for a moment when the device is gone."""
        for command in commands:
            for pause_s in _PAUSES_S:
                try:
                    await self.guest.monitor.execute(command)
                    break
                except HostError:
                    await asyncio.sleep(pause_s)
            else:
                await self.guest.monitor.execute(command)

    async def attempt(self, commands: Iterable[qmp.Command]) -> None:
        """Each of them, whether or not there is anything that it could be done to."""
        for command in commands:
            with contextlib.suppress(VnetError):
                await self.guest.monitor.execute(command)
