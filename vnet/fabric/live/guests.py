"""The `Guests` of one fabric: a view on the host's one `HvManager`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, suppress
from pathlib import Path

from vnet.base.errors import HostError, VnetError
from vnet.fabric.guest_changes import spec_of
from vnet.fabric.state import Guest, ifname
from vnet.hv.live import blocks, saved_start
from vnet.hv.live.blocks import Blocks
from vnet.hv.live.manager import HvManager
from vnet.hv.live.snapshots import Snapshots
from vnet.hv.spec import ExecResult, GuestSpec, GuestState, GuestStatus
from vnet.hv.stored import Stored
from vnet.hv.vitals import Vitals

AGENT_TIMEOUT_S = 30.0


class HostGuests:
    """See `vnet.fabric.live.parts.Guests`. The manager outlives it."""

    def __init__(self, fabric: str, manager: HvManager, open_tap: Callable[[str], int]) -> None:
        self.fabric = fabric
        self._manager, self._open_tap = manager, open_tap
        self._greetings: set[asyncio.Task[None]] = set()
        self.snapshots = Snapshots(manager, fabric, lambda nic: open_tap(ifname(nic)))

    async def adopt(self, guest: Guest) -> None:
        """Take over a guest that an earlier daemon started."""
        (status,) = await self._manager.adopt(self.fabric, [self.spec(guest)])
        if status.state in (GuestState.RUNNING, GuestState.STARTING):
            task = asyncio.ensure_future(self._greet(guest.name))
            self._greetings.add(task)
            task.add_done_callback(self._greetings.discard)

    async def recover(self) -> None:
        """Undo snapshots that an earlier daemon did not finish."""
        await self.snapshots.recover()

    async def _greet(self, name: str) -> None:
        """Speak to an adopted guest's agent once, so that its state is known; nobody waits for it."""
        with suppress(VnetError):
            await self._manager.wait_ready(self.fabric, name, AGENT_TIMEOUT_S)

    async def start(self, guest: Guest, note: Callable[[str], None]) -> str:
        """Start it and wait until its agent answers."""
        spec = self.spec(guest)
        status = await self._manager.start(spec, lambda nic: self._open_tap(ifname(nic)), note)
        how = "went on" if status.restored else "warm clone" if status.warm else "booted"
        return f"{how}, {status.accel}"

    def spec(self, guest: Guest) -> GuestSpec:
        """The guest as the manager of VMs is asked for it."""
        return spec_of(self.fabric, guest)

    async def change(self, guest: Guest) -> None:
        """Make it another while it runs."""
        await self._manager.change(self.spec(guest), lambda nic: self._open_tap(ifname(nic)))

    async def take_up(self, was: Guest, guest: Guest) -> None:
        """Complete a change that an earlier daemon was killed in."""
        spec = self.spec(guest)
        await self._manager.take_up(self.spec(was), spec, lambda nic: self._open_tap(ifname(nic)))

    async def set_link(self, name: str, interface: str, *, is_up: bool) -> None:
        """Pull the cable of a NIC, or plug it in again."""
        await self._manager.set_link(self.fabric, name, interface, is_up=is_up)

    async def stop(self, name: str, timeout_s: float) -> None:
        """Power it off."""
        await self._manager.stop(self.fabric, name, timeout_s)

    async def pause(self, name: str) -> None:
        """Let it stand still."""
        await self._manager.pause(self.fabric, name)

    async def resume(self, name: str) -> None:
        """Let it go on."""
        await self._manager.resume(self.fabric, name)

    async def refuse_memory(self, guest: Guest) -> None:
        """Raises HostError if the memory that is kept of it cannot be loaded into what is declared."""
        await self._manager.refuse_memory(self.spec(guest))

    async def forget_memory(self, name: str) -> None:
        """It boots at its next start."""
        await asyncio.to_thread(saved_start.without_memory, self.fabric, name)

    async def suspend(self, guest: Guest) -> int:
        """Keep its memory, and end it."""
        return (await self.snapshots.suspend(self.spec(guest))).memory_bytes

    async def reset(self, name: str) -> None:
        """Press its reset button."""
        await self._manager.reset(self.fabric, name)

    async def destroy(self, name: str) -> None:
        """End it and remove its run directory."""
        await self._manager.destroy(self.fabric, name)

    async def status(self, name: str) -> GuestStatus:
        """How it is; a guest nobody started is stopped."""
        try:
            return await self._manager.status(self.fabric, name)
        except HostError:
            return GuestStatus(name, GuestState.STOPPED)

    async def vitals(self, name: str) -> Vitals:
        """What it and its QEMU tell of memory and disks."""
        return await self._manager.vitals(self.fabric, name)

    async def exec(
        self, name: str, argv: tuple[str, ...], timeout_s: float, stdin: bytes = b""
    ) -> ExecResult:
        """Run a command in it."""
        return await self._manager.exec(self.fabric, name, list(argv), stdin, timeout_s)

    async def console(self, name: str) -> Path:
        """The unix socket of its serial console."""
        return await self._manager.console_path(self.fabric, name)

    async def vnc_socket(self, name: str) -> Path:
        """The unix socket on which VNC is spoken with it."""
        return self._manager.vnc_socket(self.fabric, name)

    async def picture(self, name: str) -> bytes:
        """What is on its screen, as PNG."""
        return await self._manager.picture(self.fabric, name)

    def blocks(self, guest: Guest, why: str) -> AbstractAsyncContextManager[Blocks]:
        """Its disks, to be copied."""
        return blocks.opened(self._manager, self.spec(guest), why)

    def at_rest(self, guest: Guest, why: str) -> AbstractAsyncContextManager[Stored | None]:
        """It is not started meanwhile."""
        return blocks.at_rest(self._manager, self.spec(guest), why)

    def held(self, guest: Guest, why: str) -> AbstractAsyncContextManager[None]:
        """It is not started meanwhile."""
        return blocks.held(self._manager, self.spec(guest), why)

    async def close(self) -> None:
        """The manager itself lets go of all guests at once."""
        for task in self._greetings:
            task.cancel()
        await asyncio.gather(*self._greetings, return_exceptions=True)
