"""What there is of one guest, and each action of its life: done when it returns, failed when it raises."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path

from vnet.base import objects, paths
from vnet.base.errors import TimedOut, VnetError
from vnet.hv import monitor
from vnet.hv.argv import places_of
from vnet.hv.disk import Plugged
from vnet.hv.faults import DiskFault
from vnet.hv.lifecycle import Action, Event
from vnet.hv.live import cgroup
from vnet.hv.live.agent_link import AgentLink
from vnet.hv.live.launching import Launch, Means, prepare
from vnet.hv.live.process import Process, start_ticks
from vnet.hv.live.qemu import Qemu, no_monitor
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.record import Record, forget, record_path
from vnet.hv.spec import GuestSpec

Perform = Callable[[], Coroutine[object, object, Event | None]]
"""Performs an action; what has come of it is DONE unless it says otherwise."""


class Performer:
    """Acts on one guest. When, is up to `vnet.hv.lifecycle`.

    Args:
        spec: what the guest is; its changes are written here.
        watch: runs beside a guest that is complete, until it is let go of.
        on_fault: called when a disk fails and the guest goes on.
    """

    def __init__(
        self,
        spec: GuestSpec,
        watch: Callable[[Qemu], Coroutine[object, object, None]],
        on_fault: Callable[[DiskFault], None],
    ) -> None:
        self.spec = spec
        self.record: Record | None = None
        self.means: Means | None = None
        self.qemu: Qemu | None = None
        self.agent = AgentLink()
        self.stop_timeout_s = 10.0
        self._watch = watch
        self._on_fault = on_fault
        self._watching: asyncio.Task[None] | None = None

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
            Action.RESET: self._reset,
            Action.FORGET: self._forget,
            Action.POWER_DOWN: self._power_down,
            Action.QUIT: self._quit,
            Action.KILL: self._kill,
            Action.CLEAN: self._clean,
        }

    @property
    def run_dir(self) -> Path:
        """The guest's own folder."""
        return paths.vm_run_dir(self.spec.fabric, self.spec.name)

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
        self._keep(prepare(self.spec, self.means, warm=warm))
        return self._launch

    def own(self, process: Process) -> Qemu:
        """From here on a process is this guest's QEMU."""
        self.qemu = Qemu(self.spec.name, self.run_dir, process, self._on_fault)
        return self.qemu

    async def _load(self) -> None:
        await self._launch.load_template(self._running)

    async def _load_saved(self) -> None:
        await self._launch.load_saved(self._running)

    async def _plug(self) -> None:
        await self._launch.plug(self._running)

    async def _await_agent(self) -> Event | None:
        qemu, record = self._running, self.recorded
        if not self.spec.is_micro:
            qemu.rebooted.clear()
            return Event.SILENT
        # one that goes on may still wait for the rest of somebody's message
        boot = self.agent.await_boot(self.spec, warm=record.warm, fresh=not record.origin)
        await qemu.unless_it_panics(boot)
        qemu.rebooted.clear()  # firmware resets once more while it boots again
        return None

    async def _configure(self) -> None:
        await self.agent.configure(self.spec)

    async def _announce(self) -> None:
        """Marks the guest as complete and begins to watch it."""
        ticks = start_ticks(self._running.process.pid)
        self.note(ready=True, booting=False, ending=False, start_ticks=ticks)
        self._stop_watching()
        self._watching = asyncio.create_task(self._watch(self._running))

    # ---- standing still, booting again -------------------------------------------------------

    async def _pause(self) -> None:
        await self.monitor.execute(monitor.STOP)

    async def _resume(self) -> None:
        self._running.faults.go_on()
        if self.recorded.halted:
            self.note(halted=False)
        await self.monitor.execute(monitor.CONTINUE)
        self.agent.tell_time()

    async def _reset(self) -> None:
        await self._forget()
        try:
            await self.monitor.execute(monitor.RESET)
        except VnetError:
            self.note(booting=False)
            raise

    async def _forget(self) -> None:
        self.note(booting=True)
        await self.agent.close()

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
        if self.qemu is not None:
            self._keep_ending()
            await self.qemu.kill()

    async def _clean(self) -> None:
        """Forgets the connections and removes every trace but a crash's reason.

        The record goes last: who is killed before leaves one that says what else there is to remove.
        """
        group = self._group()
        await self.leave()
        shutil.rmtree(self.run_dir, ignore_errors=True)
        await asyncio.to_thread(group.remove)
        self.record = None
        forget(record_path(self.spec.fabric, self.spec.name))
        for folder in (self.run_dir.parent, self.run_dir.parent.parent):
            with contextlib.suppress(OSError):  # unless something else is in there
                folder.rmdir()
        objects.vm_has_ended()

    async def leave(self) -> None:
        """Lets go of the process, whether it runs on or has ended."""
        self._stop_watching()
        qemu, self.qemu = self.qemu, None
        await self.agent.close()
        if qemu:
            await qemu.leave()

    def _stop_watching(self) -> None:
        if self._watching and self._watching is not asyncio.current_task():
            self._watching.cancel()
        self._watching = None

    def _keep_ending(self) -> None:
        """That it is ended on purpose: whoever finds it gone does not take it for crashed.

        It is ended all the same where nothing can be written.
        """
        if self.record and not self.record.ending:
            with contextlib.suppress(OSError):
                self.note(ending=True)

    # ---- what is known of it -----------------------------------------------------------------

    @property
    def monitor(self) -> Monitor:
        """The connection to its QEMU. Raises PeerError when there is none."""
        if self.qemu is None:
            raise no_monitor(self.spec.name)
        return self.qemu.monitor

    @property
    def plugged(self) -> tuple[Plugged, ...]:
        """Its disks as QEMU has them."""
        places = self.recorded.places if self.recorded.built else places_of(self.spec)
        return tuple(places.disk(each) for each in self.spec.disks)

    def note(self, **fields: object) -> None:
        """Changes what is kept of it beside its folder."""
        self._keep(replace(self.recorded, **fields))  # type: ignore[arg-type]

    def _keep(self, record: Record) -> None:
        self.record = record
        record.write(record_path(self.spec.fabric, self.spec.name))

    @property
    def recorded(self) -> Record:
        """What is kept of it beside its folder."""
        assert self.record is not None
        return self.record

    @property
    def _running(self) -> Qemu:
        assert self.qemu is not None
        return self.qemu

    @property
    def _launch(self) -> Launch:
        assert self.means is not None
        return Launch(self.spec, self.means, self.recorded)

    def _group(self) -> cgroup.Cgroup:
        """Of one without a record, what is there by its name."""
        if self.record is None:
            return cgroup.find(self.spec.fabric, self.spec.name)
        return cgroup.of(self.record.cgroups)
