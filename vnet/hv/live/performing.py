"""Each action of a guest's life: done when it returns, failed when it raises."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine

from vnet.base import objects
from vnet.base.errors import TimedOut, VnetError
from vnet.hv import monitor
from vnet.hv.faults import DiskFault
from vnet.hv.lifecycle import Action, Event
from vnet.hv.live import cgroup
from vnet.hv.live.body import Body
from vnet.hv.live.launching import Launch, Means, prepare
from vnet.hv.live.process import Process, start_ticks
from vnet.hv.live.qemu import Qemu
from vnet.hv.live.record import forget, record_path

Perform = Callable[[], Coroutine[object, object, Event | None]]
"""Performs an action; what has come of it is DONE unless it says otherwise."""


class Performer:
    """Acts on one guest. When, is up to `vnet.hv.lifecycle`.

    Args:
        guest: what there is of it; what becomes of it is written there.
        watch: runs beside a guest that is complete, until it is let go of.
        on_fault: called when a disk fails and the guest goes on.
    """

    def __init__(
        self,
        guest: Body,
        watch: Callable[[Qemu], Coroutine[object, object, None]],
        on_fault: Callable[[DiskFault], None],
    ) -> None:
        self.means: Means | None = None
        self.stop_timeout_s = 10.0
        self._guest = guest
        self._watch = watch
        self._on_fault = on_fault

    def actions(self) -> dict[Action, Perform]:
        """All that can be done."""
        return {
            Action.LAUNCH_CLONE: self._launch_clone,
            Action.LAUNCH_COLD: self._launch_cold,
            Action.LAUNCH_SAVED: self._launch_cold,
            Action.LOAD: self._load,
            Action.LOAD_SAVED: self._load_saved,
            Action.PLUG: self._plug,
            Action.AWAIT_AGENT: self._await_agent,
            Action.CONFIGURE: self._configure,
            Action.ANNOUNCE: self._announce,
            Action.PAUSE: self._pause,
            Action.RESUME: self._resume,
            Action.CONTINUE: self._continue,
            Action.RESET: self._reset,
            Action.FORGET: self._forget,
            Action.POWER_DOWN: self._power_down,
            Action.QUIT: self._quit,
            Action.KILL: self._kill,
            Action.CLEAN: self._clean,
        }

    # ---- starting ----------------------------------------------------------------------------

    async def _launch_clone(self) -> None:
        launch = self._prepare(warm=True)
        await self.own(await launch.clone()).connect()

    async def _launch_cold(self) -> None:
        launch = self._prepare(warm=False)
        await self.own(await launch.cold()).connect()

    def _prepare(self, *, warm: bool) -> Launch:
        """The record is written before anything runs."""
        assert self.means is not None
        self._guest.keep(prepare(self._guest.spec, self.means, warm=warm))
        return self._launch

    def own(self, process: Process) -> Qemu:
        """From here on a process is this guest's QEMU."""
        guest = self._guest
        guest.qemu = Qemu(guest.spec.name, guest.run_dir, process, self._on_fault)
        return guest.qemu

    async def _load(self) -> None:
        await self._launch.load_template(self._running)

    async def _load_saved(self) -> None:
        await self._launch.load_saved(self._running)

    async def _plug(self) -> None:
        await self._launch.plug(self._running)

    async def _await_agent(self) -> Event | None:
        guest, qemu, record = self._guest, self._running, self._guest.recorded
        if not guest.spec.is_micro:
            qemu.rebooted.clear()
            return Event.SILENT
        # one that goes on may still wait for the rest of somebody's message
        boot = guest.agent.await_boot(guest.spec, warm=record.warm, fresh=not record.origin)
        await qemu.unless_it_panics(boot)
        qemu.rebooted.clear()  # firmware resets once more while it boots again
        return None

    async def _configure(self) -> None:
        await self._guest.agent.configure(self._guest.spec)

    async def _announce(self) -> None:
        """Marks the guest as complete and begins to watch it."""
        ticks = start_ticks(self._running.process.pid)
        self._guest.note(ready=True, booting=False, ending=False, start_ticks=ticks)
        self._guest.stop_watching()
        self._guest.watching = asyncio.create_task(self._watch(self._running))

    # ---- standing still, booting again -------------------------------------------------------

    async def _pause(self) -> None:
        await self._guest.monitor.execute(monitor.STOP)

    async def _resume(self) -> None:
        self._running.faults.go_on()
        if self._guest.recorded.halted:
            self._guest.note(halted=False)
        await self._guest.monitor.execute(monitor.CONTINUE)
        self._guest.agent.tell_time()

    async def _continue(self) -> None:
        """With its own memory. What is kept of that does not belong to its disks from here on: whoever finds
        it lets it go on, and nobody begins with that again."""
        assert self.means is not None
        self._guest.note(ready=True, booting=True)
        await self._resume()
        await asyncio.to_thread(self.means.gone_on)

    async def _reset(self) -> None:
        await self._forget()
        try:
            await self._guest.monitor.execute(monitor.RESET)
        except VnetError:
            self._guest.note(booting=False)
            raise

    async def _forget(self) -> None:
        self._guest.note(booting=True)
        await self._guest.agent.close()

    # ---- ending ------------------------------------------------------------------------------

    async def _power_down(self) -> None:
        if self.stop_timeout_s <= 0:
            raise TimedOut("no time was given")
        self._keep_ending()
        await self._running.power_down(self.stop_timeout_s)

    async def _quit(self) -> None:
        self._keep_ending()
        await self._running.quit()

    async def _kill(self) -> None:
        if self._guest.qemu is not None:
            self._keep_ending()
            await self._guest.qemu.kill()

    async def _clean(self) -> None:
        """Forgets the connections and removes every trace but a crash's reason.

        The record goes last: who is killed before leaves one that says what else there is to remove.
        """
        guest, group = self._guest, self._group()
        await guest.leave()
        shutil.rmtree(guest.run_dir, ignore_errors=True)
        await asyncio.to_thread(group.remove)
        guest.record = None
        forget(record_path(guest.spec.fabric, guest.spec.name))
        for folder in (guest.run_dir.parent, guest.run_dir.parent.parent):
            with contextlib.suppress(OSError):  # unless something else is in there
                folder.rmdir()
        objects.vm_has_ended()

    def _keep_ending(self) -> None:
        """That it is ended on purpose: whoever finds it gone does not take it for crashed.

        It is ended all the same where nothing can be written.
        """
        if self._guest.record and not self._guest.record.ending:
            with contextlib.suppress(OSError):
                self._guest.note(ending=True)

    # ---- what is needed for it ---------------------------------------------------------------

    @property
    def _running(self) -> Qemu:
        assert self._guest.qemu is not None
        return self._guest.qemu

    @property
    def _launch(self) -> Launch:
        assert self.means is not None
        return Launch(self._guest.spec, self.means, self._guest.recorded)

    def _group(self) -> cgroup.Cgroup:
        """Of one without a record, what is there by its name."""
        spec, record = self._guest.spec, self._guest.record
        return cgroup.find(spec.fabric, spec.name) if record is None else cgroup.of(record.cgroups)
