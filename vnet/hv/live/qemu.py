"""The QEMU of one guest, just started or found again: its process, its monitor, and what it tells unasked."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterable
from pathlib import Path

from vnet.base.errors import HostError, PeerError, TimedOut
from vnet.hv import monitor
from vnet.hv.disk import Disk
from vnet.hv.faults import DiskFault
from vnet.hv.live.deadline import deadline
from vnet.hv.live.faults import Faults
from vnet.hv.live.launcher import LOG
from vnet.hv.live.process import Process
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.vitals import Look
from vnet.hv.monitor import MonitorEvent
from vnet.hv.vitals import Vitals

GREET_TIMEOUT_S = 30.0
QUIT_TIMEOUT_S = 2.0
KILL_TIMEOUT_S = 10.0
_LAST_CHARACTERS = 2000


def last_words(run_dir: Path) -> str:
    """The end of what the QEMU of a guest wrote to its log; empty if there is none."""
    with contextlib.suppress(OSError):
        return (run_dir / LOG).read_text(errors="replace")[-_LAST_CHARACTERS:].strip()
    return ""


class Qemu:
    """One process from its start, or from when it was found, to when it is let go of.

    `powered_off` is set once the guest has switched itself off, `rebooted` once it begins to boot again,
    `panicked` once its kernel has given up.

    Args:
        name: of the guest, for what is said of it.
        run_dir: the guest's folder.
        process: it runs, or did a moment ago.
        on_fault: called from the event loop when a disk fails and the guest goes on.
    """

    def __init__(
        self, name: str, run_dir: Path, process: Process, on_fault: Callable[[DiskFault], None]
    ) -> None:
        self.process = process
        self.powered_off = asyncio.Event()
        self.rebooted = asyncio.Event()
        self.panicked = asyncio.Event()
        self.faults = Faults()
        self._name = name
        self._run_dir = run_dir
        self._on_fault = on_fault
        self._monitor: Monitor | None = None
        self._look: Look | None = None

    @property
    def monitor(self) -> Monitor:
        """The connection to its monitor. Raises PeerError when there is none."""
        if self._monitor is None:
            raise no_monitor(self._name)
        return self._monitor

    @property
    def last_words(self) -> str:
        """The end of its log."""
        return last_words(self._run_dir)

    async def connect(self) -> None:
        """Waits until it listens and has greeted. Raises HostError, with its last words, if it does not."""
        try:
            self._monitor = await Monitor.connect(
                self._run_dir / "qmp.sock",
                alive=self.process.alive,
                timeout_s=GREET_TIMEOUT_S,
                on_event=self._take,
            )
        except PeerError as error:
            raise HostError(f"QEMU for {self._name} did not start: {self.last_words or error}") from error

    def _take(self, event: MonitorEvent | DiskFault) -> None:
        if isinstance(event, DiskFault):
            if self.faults.meet(event) and not event.halts:
                self._on_fault(event)
            return
        if event is MonitorEvent.POWERED_OFF:
            self.powered_off.set()
        if event is MonitorEvent.PANICKED:
            self.panicked.set()
        if event is MonitorEvent.REBOOTED:
            self.rebooted.set()

    async def refuse_another(self, uuid: str) -> None:
        """Raises PeerError if it is not the guest with that UUID."""
        answer = await self.monitor.execute(monitor.QUERY_UUID)
        if not isinstance(answer, dict) or answer.get("UUID") != uuid:
            raise PeerError(f"the QEMU of {self._name} is another guest: {answer}")

    async def news(self, meanwhile: Coroutine[object, object, object]) -> None:
        """Waits until it has ended, or its guest switched itself off, boots again, panicked or was halted.

        `meanwhile` is work to be done until then; should it end, that is news too.
        """
        events = (self.powered_off, self.rebooted, self.panicked, self.faults.halted)
        await _first(self.process.wait(None), *(each.wait() for each in events), meanwhile)

    async def unless_it_panics(self, wait: Coroutine[object, object, None]) -> None:
        """Nobody waits for a kernel that has given up. Raises PeerError."""
        task = asyncio.create_task(wait)
        try:
            await _first(asyncio.wait([task]), self.panicked.wait())
            if not task.done():
                raise PeerError(
                    f"the kernel of {self._name} panicked while it booted (`vnet logs {self._name}`)"
                )
            task.result()
        finally:
            task.cancel()

    async def vitals(self, disks: Iterable[Disk]) -> Vitals:
        """How the guest gets on with memory and disks; nobody waits for a QEMU that hangs."""
        if self._monitor is None:
            return Vitals()
        if self._look is None:
            self._look = Look(self._monitor)
        return await self._look.look(disks)

    # ---- its end -----------------------------------------------------------------------------

    async def power_down(self, timeout_s: float) -> None:
        """Presses the power button. Raises TimedOut if the guest does not go down."""
        self.powered_off.clear()
        async with deadline(timeout_s, f"{self._name} did not power off"):
            # a QEMU that hangs does not even answer
            await self.monitor.execute_all((monitor.CONTINUE, monitor.POWER_DOWN))
            await _first(self.process.wait(None), self.powered_off.wait())

    async def quit(self) -> None:
        """Asks it to go. Raises TimedOut if it does not."""
        with contextlib.suppress(PeerError):
            await self.monitor.execute(monitor.QUIT)
        if not await self.process.wait(QUIT_TIMEOUT_S):
            raise TimedOut(f"the QEMU of {self._name} did not quit")

    async def kill(self) -> None:
        """Ends it by force, however long that takes."""
        self.process.kill()
        while not await self.process.wait(KILL_TIMEOUT_S):
            pass  # the kernel is still taking its memory apart; there is nothing else to do

    async def leave(self) -> None:
        """Lets go of it, whether it runs on or has ended."""
        if self._look:
            self._look.end()
        connection, self._monitor = self._monitor, None
        if connection:
            await connection.close()
        self.process.close()


def no_monitor(name: str) -> PeerError:
    """What there is to say when a guest has no QEMU that could be asked."""
    return PeerError(f"there is no connection to the QEMU of {name}")


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Waits for one of several, and ends the waiting for the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
