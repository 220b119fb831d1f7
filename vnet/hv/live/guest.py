"""One guest: performs what `vnet.hv.lifecycle` says and reports how it went.

Every action is a method; it returns when the action is done and raises if it failed. `drive` is the
loop that joins the two.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import shutil
import time
import uuid as uuids
from collections.abc import AsyncIterator, Callable, Collection, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import objects, paths
from vnet.base.errors import HostError, PeerError, TimedOut, VnetError
from vnet.hv import monitor, saving
from vnet.hv.accel import Accel
from vnet.hv.argv import DiskArgument, Machine, Memory, NicArgument, built_of, machine_of, places_of
from vnet.hv.disk import Plugged, plugged
from vnet.hv.identity import ENTROPY_BYTES, identity_lines
from vnet.hv.lifecycle import SHOWN, Action, Event, Phase, step
from vnet.hv.live import cgroup, console_log
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.boot import Prepared, open_for
from vnet.hv.live.console import ConsoleTail
from vnet.hv.live.disk import open_all, open_as_they_are, open_keys
from vnet.hv.live.finding import find_recorded
from vnet.hv.live.guest_agent import GuestAgentClient
from vnet.hv.live.image import Image
from vnet.hv.live.keys import read_key
from vnet.hv.live.launcher import LOG, Confinement, launch_machine, launch_opened, open_vhost, opened
from vnet.hv.live.process import Process, file_limit, start_ticks
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.record import Record, forget, read, record_path
from vnet.hv.live.saving import Saving, clear
from vnet.hv.live.template import Template
from vnet.hv.live.users import claim_dir
from vnet.hv.live.vitals import Look
from vnet.hv.monitor import MonitorEvent, RunState
from vnet.hv.spec import ExecResult, GuestEvent, GuestSpec, GuestState, GuestStatus, Happening
from vnet.hv.vitals import Vitals

GREET_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 20.0
CLONE_TIMEOUT_S = 30.0
BOOT_TIMEOUT_S = 60.0
CONFIGURE_TIMEOUT_S = 20.0
QUIT_TIMEOUT_S = 2.0
KILL_TIMEOUT_S = 10.0
SCREENSHOT_BYTES = 64 << 20
"""How long a file the QEMU of a guest with a screen may write."""


@dataclass(frozen=True, slots=True)
class Means:
    """What a start needs from the manager besides the spec. `template` is None for a cold boot.

    `image` is vnet's own guest, or what another one boots.
    """

    accel: Accel
    image: Image | Prepared
    open_tap: Callable[[str], int]
    template: Template | None
    saved: Path | None = None
    """Its own memory, if it goes on from there."""
    origin: str = ""
    """The wish that it is started from."""


class Guest:
    """A guest of one fabric. The manager holds `lock` during every operation."""

    def __init__(self, spec: GuestSpec, on_event: Callable[[GuestEvent], None]) -> None:
        self.spec = spec
        self.phase = Phase.ABSENT
        self.reason = ""
        self.record: Record | None = None
        self.process: Process | None = None
        self.agent: AgentClient | GuestAgentClient | None = None
        self.lock = asyncio.Lock()
        self.failed_in = Phase.ABSENT
        self.stop_timeout_s = 10.0
        self._held = ""
        self._on_event = on_event
        self._means: Means | None = None
        self._qmp: Monitor | None = None
        self._look: Look | None = None
        self._powered_off = asyncio.Event()
        self._rebooted = asyncio.Event()
        self._watch: asyncio.Task[None] | None = None
        self._agent_lock = asyncio.Lock()

    @property
    def run_dir(self) -> Path:
        """The guest's own folder."""
        return paths.vm_run_dir(self.spec.fabric, self.spec.name)

    @property
    def _agent_socket(self) -> Path:
        return self.run_dir / "agent.sock"

    @property
    def state(self) -> GuestState:
        """What a user sees of the phase."""
        return SHOWN[self.phase]

    async def drive(self, event: Event) -> VnetError | None:
        """Takes one event and does what follows from it, to the end. Returns what went wrong, if anything."""
        failure: VnetError | None = None
        while True:
            self.phase, action = step(self.phase, event)
            if action is Action.NOTHING:
                return failure
            try:
                event = await self._actions()[action]() or Event.DONE
            except VnetError as error:
                event, failure, self.failed_in = Event.FAILED, error, self.phase
            except OSError as error:
                event, self.failed_in = Event.FAILED, self.phase
                failure = HostError(f"{self.spec.name}: {action.value}: {error}")

    def _actions(self) -> dict[Action, Callable[[], Coroutine[object, object, Event | None]]]:
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

    # Starting

    async def start(self, means: Means, event: Event) -> None:
        """One attempt. On failure nothing is left and the reason is raised."""
        await self._begin(means, event, Phase.RUNNING)

    async def load(self, means: Means) -> None:
        """Starts it with its own memory, which was saved; it stands still. One attempt."""
        await self._begin(means, Event.START_SAVED, Phase.LOADED)

    async def go_on(self) -> None:
        """Lets one that was loaded go on; returns once it has its addresses. One attempt."""
        await self._begin(self._need(), Event.RESUME, Phase.RUNNING)

    async def _begin(self, means: Means, event: Event, goal: Phase) -> None:
        self._means, self.failed_in, self.reason = means, Phase.ABSENT, ""
        self._powered_off.clear()  # what the last run ended with
        try:
            failure = await self.drive(event)
        except BaseException:  # also a Ctrl-C: nothing half-made may run on
            await asyncio.shield(self._end_start())
            raise
        if self.phase is not goal:
            await self.look_for_saved()
            raise failure or HostError(f"{self.spec.name} ended while it was started")

    async def _end_start(self) -> None:
        await self.drive(Event.STOP)
        await self.look_for_saved()

    async def _launch_clone(self) -> None:
        template = self._need().template
        assert template is not None
        machine = replace(self._prepare(warm=True), memory=Memory.CLONE)
        await self._launch(machine, memory_fd=template.memory_fd)

    async def _launch_cold(self) -> None:
        """A cold boot, or with memory that will be loaded: then what was plugged in late is there at once."""
        machine = replace(self._prepare(warm=False), is_saved=self._need().saved is not None)
        descriptors: list[int] = []
        try:
            for nic in self.spec.nics:
                tap = await self._open_tap(nic.name)
                descriptors.append(tap)
                vhost = open_vhost()
                descriptors += [vhost] if vhost is not None else []
                machine = replace(machine, nics=(*machine.nics, NicArgument(nic.mac, tap, vhost)))
            await self._launch_with_disks(machine, descriptors)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _launch_with_disks(self, machine: Machine, descriptors: list[int]) -> None:
        prepared, as_they_are = self._need().image, machine.is_saved
        if not isinstance(prepared, Prepared):
            async with self._opened_disks() as disks:
                machine = replace(machine, disks=disks)
                await self._launch(machine, fds=(*descriptors, *(fd for each in disks for fd in each.fds)))
            return
        with contextlib.ExitStack() as stack:
            opened = await asyncio.to_thread(open_for, self.spec, prepared, stack, as_they_are=as_they_are)
            machine = replace(machine, pc=opened.pc, disks=opened.disks)
            await self._launch(machine, fds=(*descriptors, *opened.fds))

    @contextlib.asynccontextmanager
    async def _opened_disks(self) -> AsyncIterator[tuple[DiskArgument, ...]]:
        """Its disks, made where they are missing, and open as long as they are handed over."""
        spec = self.spec
        with contextlib.ExitStack() as stack:
            open_them = open_all if self._need().saved is None else open_as_they_are
            opened = await asyncio.to_thread(open_them, spec.fabric, spec.name, spec.disks, stack)
            keys = open_keys(spec.fabric, spec.name, spec.disks, stack)
            places = zip(plugged(spec.disks, len(spec.nics)), opened, keys, strict=True)
            yield tuple(DiskArgument(place, fd, key_fd=key) for place, fd, key in places)

    async def _open_tap(self, nic: str) -> int:
        return await asyncio.to_thread(self._need().open_tap, nic)

    def _prepare(self, *, warm: bool) -> Machine:
        """The folder, the record and the machine; the record is written before anything runs."""
        accel = self._need().accel.name
        user = claim_dir(self.run_dir)
        group = cgroup.create(self.spec.fabric, self.spec.name, self.spec.memory_bytes)
        record = Record(
            uuid=str(uuids.uuid4()),
            user=user,
            accel=accel,
            warm=warm,
            memory_bytes=self.spec.memory_bytes,
            cgroups=tuple(str(folder) for folder in group.folders),
            origin=self._need().origin,
            built=built_of(self.spec, accel),
            places=places_of(self.spec),
        )
        self._keep(record)
        return machine_of(
            self.spec,
            uuid=record.uuid,
            run_dir=str(self.run_dir),
            accel=accel,
            kernel="",
            initrd="",
        )

    async def _launch(
        self, machine: Machine, *, memory_fd: int | None = None, fds: tuple[int, ...] = ()
    ) -> None:
        means = self._need()
        disks = means.image.disks if isinstance(means.image, Prepared) else self.spec.disks
        least = SCREENSHOT_BYTES if machine.pc else 0
        file_bytes = max((least, *(disk.file_bytes for disk in disks)))
        confinement = Confinement(self._recorded().user, self._group(), means.accel, file_bytes)
        with console_log.begun(self.spec.fabric, self.spec.name, file_limit(file_bytes)) as log:
            machine = replace(machine, console_log_fd=log)
            if isinstance(means.image, Prepared):
                self.process = await launch_opened(machine, confinement, (*fds, log))
            else:
                self.process = await launch_machine(
                    machine, means.image, confinement, memory_fd=memory_fd, fds=(*fds, log)
                )
        await self._connect_monitor()

    async def _connect_monitor(self) -> None:
        process = self._running()
        try:
            self._qmp = await Monitor.connect(
                self.run_dir / "qmp.sock",
                alive=process.alive,
                timeout_s=GREET_TIMEOUT_S,
                on_event=self._take,
            )
        except PeerError as error:
            raise HostError(f"QEMU for {self.spec.name} did not start: {self._log() or error}") from error

    def _log(self) -> str:
        with contextlib.suppress(OSError):
            return (self.run_dir / LOG).read_text(errors="replace")[-2000:].strip()
        return ""

    async def _load(self) -> None:
        template = self._need().template
        assert template is not None
        with opened(template.state) as state:
            await self._monitor().execute_all(monitor.load_state(state))
        async with _limit(LOAD_TIMEOUT_S, f"{self.spec.name} did not load its template's state"):
            await self._monitor().poll(monitor.QUERY_STATUS, _is_loaded)

    async def _load_saved(self) -> None:
        """How long that takes is up to its size; QEMU ends when it cannot."""
        saved = self._need().saved
        assert saved is not None
        with opened(saved) as state:
            await self._monitor().execute_all(saving.load(state))
        try:
            await self._monitor().poll(monitor.QUERY_STATUS, _is_loaded)
        except PeerError as error:
            raise HostError(f"QEMU could not load the memory of {self.spec.name}: {self._log()}") from error

    async def _plug(self) -> None:
        for index, nic in enumerate(self.spec.nics):
            tap = await self._open_tap(nic.name)
            vhost = open_vhost()
            try:
                await self._monitor().execute_all(monitor.plug_nic(index, nic.mac, tap, vhost))
            finally:
                os.close(tap)
                if vhost is not None:
                    os.close(vhost)
        async with self._opened_disks() as disks:
            for disk in disks:
                key = None if disk.key_fd is None else read_key(disk.key_fd)
                await self._monitor().execute_all(monitor.plug_disk(disk.plugged, disk.fd, key))
        await self._monitor().execute(monitor.CONTINUE)

    async def _await_agent(self) -> Event | None:
        """A boot that hangs is explained by the end of its console."""
        if not self.spec.is_micro:
            self._rebooted.clear()
            return Event.SILENT
        is_new = not self._recorded().origin  # else it may still wait for the rest of somebody's message
        timeout_s = CLONE_TIMEOUT_S if self._recorded().warm else BOOT_TIMEOUT_S
        console = ConsoleTail(self.run_dir / "console.sock")
        try:
            self.agent = await AgentClient.connect(self._agent_socket, timeout_s=timeout_s, fresh=is_new)
        except TimedOut as error:
            raise TimedOut(f"{self.spec.name}: {error}; its console ends with:\n{console.text}") from error
        finally:
            await console.close()
        self._rebooted.clear()  # firmware resets once more while it boots again
        return None

    async def _configure(self) -> None:
        assert self.agent is not None
        lines = identity_lines(self.spec, time.time() + 0.5, secrets.token_bytes(ENTROPY_BYTES))
        done = await self.agent.run(["/sbin/configure"], stdin=lines, timeout_s=CONFIGURE_TIMEOUT_S)
        if done.exit_code:
            text = (done.stderr + done.stdout).decode(errors="replace").strip()
            raise PeerError(f"{self.spec.name} could not configure itself ({done.exit_code}): {text}")

    async def _announce(self) -> None:
        """Marks the guest as complete and begins to watch it."""
        process = self._running()
        ticks = start_ticks(process.pid)
        self._keep(replace(self._recorded(), ready=True, booting=False, ending=False, start_ticks=ticks))
        self._stop_watching()
        self._watch = asyncio.create_task(self._watch_process(process))

    @property
    def monitor(self) -> Monitor:
        """The connection to its QEMU. Raises PeerError when there is none."""
        return self._monitor()

    def note(self, **fields: object) -> None:
        """Changes what is kept of it beside its folder."""
        self._keep(replace(self._recorded(), **fields))  # type: ignore[arg-type]

    def _keep(self, record: Record) -> None:
        self.record = record
        record.write(record_path(self.spec.fabric, self.spec.name))

    # Finding it again

    async def adopt(self) -> bool:
        """Takes over a QEMU of an earlier manager; whatever is half-made or ended is cleaned up.

        Returns:
            Whether the guest is there, paused or not.
        """
        if self.phase in (Phase.RUNNING, Phase.PAUSED):
            if self._running().alive():
                return True
            await self.drive(Event.DIED)  # nobody has noticed yet
            return False
        self.record = read(record_path(self.spec.fabric, self.spec.name))
        self.process = find_recorded(self.run_dir, self.record) if self.record else None
        if self.process and self._recorded().ready and not self._is_replaced():
            with contextlib.suppress(VnetError):
                await self._check_identity()
                await self._catch_up()
                return self.phase in (Phase.RUNNING, Phase.PAUSED)
        if self.process:
            self.process.kill()
            await self.process.wait(KILL_TIMEOUT_S)
        if self.record or self.run_dir.exists():
            await self.drive(self._ended())
        await self.look_for_saved()
        return False

    def _is_replaced(self) -> bool:
        """Whether it is to begin anew from what was saved, and its QEMU was about to be ended."""
        wish = files.next_of(self.spec.fabric, self.spec.name)
        if wish and wish.token == self._recorded().origin:
            files.fulfilled(wish, self.spec.name)
            return False
        return wish is not None

    async def look_for_saved(self) -> None:
        """One that is off is suspended if its memory is kept, and only then."""
        wish = files.next_of(self.spec.fabric, self.spec.name)
        is_kept = wish is not None and wish.memory
        if self.phase in (Phase.ABSENT, Phase.CRASHED) and is_kept:
            self.reason = ""
            await self.drive(Event.FOUND_SUSPENDED)
        if self.phase is Phase.SUSPENDED and not is_kept:
            await self.drive(Event.FORGOTTEN)

    def _ended(self) -> Event:
        """What has become of a guest whose traces are there and whose QEMU is not."""
        if self.process or self.record is None or not self.record.ready or self.record.ending:
            return Event.STOP  # half-made, or ended by us
        self.reason = self._log() or "QEMU ended while no daemon ran"
        return Event.FOUND_DEAD

    async def _check_identity(self) -> None:
        await self._connect_monitor()
        answer = await self._monitor().execute(monitor.QUERY_UUID)
        if not isinstance(answer, dict) or answer.get("UUID") != self._recorded().uuid:
            raise PeerError(f"the QEMU of {self.spec.name} is another guest: {answer}")

    async def _catch_up(self) -> None:
        """Events are not replayed: what happened while nobody listened is asked for."""
        if self._recorded().saving:
            await self._end_saving()
        status = monitor.parse_status(await self._monitor().execute(monitor.QUERY_STATUS))
        if self._recorded().booting:
            await self._monitor().execute(monitor.CONTINUE)
            await self.drive(Event.ADOPT_BOOTING)
        elif status is RunState.PAUSED:
            await self.drive(Event.ADOPT_PAUSED)
        else:
            await self.drive(Event.ADOPT)
        if status is RunState.POWERED_OFF:
            await self.drive(Event.POWERED_OFF)

    # Being saved: `vnet.hv.live.snapshots` says when

    async def saving(self, snapshot: str, file: Path | None) -> Saving:
        """Ready to be saved, its memory to a file unless that is None; `saved` or `suspend` has to follow."""
        runs = self.phase is Phase.RUNNING
        self._keep(replace(self._recorded(), saving=snapshot, saving_runs=runs))
        await self.drive(Event.SAVE)
        return Saving(self.spec.name, self._monitor(), self.plugged, snapshot, file, runs)

    @property
    def plugged(self) -> tuple[Plugged, ...]:
        """Its disks as QEMU has them."""
        places = self._recorded().places if self._recorded().built else places_of(self.spec)
        return tuple(places.disk(each) for each in self.spec.disks)

    async def saved(self) -> None:
        """It is as it was, whether that went well or not."""
        await self.drive(Event.SAVED)
        self._keep(replace(self._recorded(), saving=""))

    async def suspend(self) -> None:
        """Its memory is kept: its QEMU ends."""
        await self.drive(Event.SUSPEND)

    async def forget_disks(self, snapshot: str, names: Collection[str]) -> None:
        """Drops what its disks keep of a snapshot, as far as they do."""
        for disk in self.plugged:
            with contextlib.suppress(HostError):
                if disk.disk.name in names:
                    await self._monitor().execute(saving.drop_disk(disk, snapshot))

    async def _end_saving(self) -> None:
        """An earlier manager was killed while it saved this guest, at whatever point."""
        record, fabric, name = self._recorded(), self.spec.fabric, self.spec.name
        found = files.find(fabric, record.saving)
        is_there = found is not None and bool(found.name)
        disks = () if is_there else self.plugged
        await clear(self._monitor(), disks, record.saving, runs=record.saving_runs)
        if is_there:
            files.set_head(fabric, name, record.saving)
        self._keep(replace(record, saving=""))

    # Standing still, booting again

    async def pause(self) -> None:
        """Its processors stand still."""
        await self._ask(Event.PAUSE)

    async def resume(self) -> None:
        """They go on."""
        await self._ask(Event.RESUME)

    async def reset(self) -> None:
        """It boots again, also if it was paused; returns once it has its addresses.

        One that does not come back is ended.
        """
        if self.phase is Phase.PAUSED:
            await self._ask(Event.RESUME)
        await self._ask(Event.RESET)
        if self.phase is not Phase.RUNNING:
            raise HostError(f"{self.spec.name} ended while it booted again")

    async def _ask(self, event: Event) -> None:
        """What is begun is done to its end: a caller who goes away meanwhile waits for it."""
        driving = asyncio.ensure_future(self.drive(event))
        try:
            failure = await asyncio.shield(driving)
        except asyncio.CancelledError:
            await asyncio.wait([driving])
            raise
        if failure is not None:
            raise failure

    async def _pause(self) -> None:
        await self._monitor().execute(monitor.STOP)

    async def _resume(self) -> None:
        await self._monitor().execute(monitor.CONTINUE)
        if isinstance(self.agent, GuestAgentClient) and self.agent.connected:
            self.agent.tell_time(time.time_ns())

    async def _reset(self) -> None:
        await self._forget()
        try:
            await self._monitor().execute(monitor.RESET)
        except VnetError:
            self._keep(replace(self._recorded(), booting=False))
            raise

    async def _forget(self) -> None:
        self._keep(replace(self._recorded(), booting=True))
        agent, self.agent = self.agent, None
        if agent:
            await agent.close()

    # Ending

    async def stop(self, timeout_s: float) -> None:
        """Presses the power button, and kills a guest that does not go down in time."""
        self.stop_timeout_s = timeout_s
        await self.drive(Event.STOP)

    def _keep_ending(self) -> None:
        """That it is ended on purpose: whoever finds it gone does not take it for crashed.

        It is ended all the same where nothing can be written.
        """
        if self.record and not self.record.ending:
            with contextlib.suppress(OSError):
                self._keep(replace(self.record, ending=True))

    async def _power_down(self) -> None:
        if self.stop_timeout_s <= 0:
            raise TimedOut("no time was given")
        self._keep_ending()
        self._powered_off.clear()
        async with _limit(self.stop_timeout_s, f"{self.spec.name} did not power off"):
            # a QEMU that hangs does not even answer
            await self._monitor().execute_all((monitor.CONTINUE, monitor.POWER_DOWN))
            await _first(self._running().wait(None), self._powered_off.wait())

    async def _quit(self) -> None:
        self._keep_ending()
        with contextlib.suppress(PeerError):
            await self._monitor().execute(monitor.QUIT)
        if not await self._running().wait(QUIT_TIMEOUT_S):
            raise TimedOut(f"the QEMU of {self.spec.name} did not quit")

    async def _kill(self) -> None:
        if self.process is None:
            return
        self._keep_ending()
        self.process.kill()
        while not await self.process.wait(KILL_TIMEOUT_S):
            pass  # the kernel is still taking its memory apart; there is nothing else to do

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
        if self._look:
            self._look.end()
        agent, qmp, process = self.agent, self._qmp, self.process
        self.agent = self._qmp = self.process = None
        if agent:
            await agent.close()
        if qmp:
            await qmp.close()
        if process:
            process.close()

    def _stop_watching(self) -> None:
        if self._watch and self._watch is not asyncio.current_task():
            self._watch.cancel()
        self._watch = None

    # What happens unasked

    def _take(self, event: MonitorEvent) -> None:
        if event is MonitorEvent.POWERED_OFF:
            self._powered_off.set()
        if event is MonitorEvent.PANICKED:
            self._report(Happening.PANICKED, "its kernel panicked")
        if event is MonitorEvent.REBOOTED:
            self._rebooted.set()

    async def _watch_process(self, process: Process) -> None:
        """Sees QEMU's death, and that the guest switched itself off or boots again, while nobody else is at
        work on it."""
        await _first(
            process.wait(None),
            self._powered_off.wait(),
            self._rebooted.wait(),
            console_log.keep_short(self.spec.fabric, self.spec.name),
        )
        async with self.lock:
            if self.phase not in (Phase.RUNNING, Phase.PAUSED) or self.process is not process:
                return
            if process.alive() and self._powered_off.is_set():
                await self.drive(Event.POWERED_OFF)
                self._report(Happening.STOPPED, "switched itself off")
                return
            if process.alive():
                await self._follow_reboot()
                return
            self.reason = self._log() or "QEMU ended without a word (killed?)"
            await self.drive(Event.DIED)
            self._report(Happening.DIED, f"QEMU died: {self.reason}")

    async def _follow_reboot(self) -> None:
        failure = await self.drive(Event.REBOOTED)
        if failure:
            self._report(Happening.STOPPED, f"rebooted and did not come back: {failure}")
        else:
            self._report(Happening.REBOOTED, "rebooted")

    def _report(self, what: Happening, text: str) -> None:
        self._on_event(GuestEvent(self.spec.fabric, self.spec.name, what, self.state, text))

    # What is known

    async def exec(self, argv: list[str], stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest, over a new connection if the last one broke."""
        return await (await self.connected_agent(timeout_s)).run(argv, stdin=stdin, timeout_s=timeout_s)

    async def connected_agent(self, timeout_s: float) -> AgentClient | GuestAgentClient:
        """The agent's connection, made if there is none; waits for a start that is under way.

        A guest that does not answer must not keep others from stopping it: `lock` is not held meanwhile.
        """
        async with self.lock:
            self.check_running()
        agent = await self.agent_now(timeout_s)
        self.check_running()
        return agent

    async def agent_now(self, timeout_s: float) -> AgentClient | GuestAgentClient:
        """The same for who is at work on the guest and holds `lock`."""
        async with self._agent_lock:
            if self.agent is None or not self.agent.connected:
                if self.agent:
                    await self.agent.close()
                self.agent = await self._connect_agent(timeout_s)
            return self.agent

    async def _connect_agent(self, timeout_s: float) -> AgentClient | GuestAgentClient:
        """vnet's own agent, or the one that distributions bring."""
        if self.spec.is_micro:
            return await AgentClient.connect(self._agent_socket, timeout_s=timeout_s)
        try:
            return await GuestAgentClient.connect(self._agent_socket, timeout_s=timeout_s)
        except TimedOut as error:
            name = self.spec.name
            raise TimedOut(
                f"{name}: {error}. Is it still booting (`vnet logs {name}`)? Without qemu-guest-agent in it "
                f"there is `vnet console {name}`, `vnet screenshot {name}`, and its network"
            ) from error

    def check_running(self) -> None:
        """Refuses what needs a running guest."""
        if self.phase not in (Phase.RUNNING, Phase.SAVING):
            name, state = self.spec.name, self.state
            how = "resume" if state is GuestState.PAUSED else "start"
            raise HostError(f"{name} is {state.value}: {how} it with `vnet {how} {name}`")

    async def vitals(self) -> Vitals:
        """How it gets on with memory and disks. Needs no `lock`; nobody waits for a QEMU that hangs."""
        if self._qmp is None or self.phase not in (Phase.RUNNING, Phase.PAUSED):
            return Vitals()
        if self._look is None or self._look.monitor is not self._qmp:
            self._look = Look(self._qmp)
        return await self._look.look(self.spec.disks)

    def hold(self, why: str) -> None:
        """Keep it from being started as long as there is a reason; raises HostError if there is one."""
        if why:
            self.refuse_while_held()
        self._held = why

    def refuse_while_held(self) -> None:
        """Refuses what needs its disks."""
        if self._held:
            raise HostError(f"{self.spec.name}: {self._held}; wait for its end, or break it off")

    def status(self) -> GuestStatus:
        """What is known without asking anybody."""
        process, record = self.process, self.record
        if process is None or record is None:
            return GuestStatus(
                self.spec.name, self.state, memory_bytes=self.spec.memory_bytes, reason=self.reason
            )
        return GuestStatus(
            name=self.spec.name,
            state=self.state,
            pid=process.pid,
            accel=record.accel,
            warm=record.warm,
            restored=bool(record.origin),
            uptime_s=process.uptime_s(),
            agent=self.agent is not None and self.agent.connected,
            memory_bytes=record.memory_bytes,
            resident_bytes=process.resident_bytes(),
            built=record.built,
            links_down=record.links_down,
            has_agent=self.spec.is_micro,
        )

    def _need(self) -> Means:
        assert self._means is not None
        return self._means

    def _recorded(self) -> Record:
        assert self.record is not None
        return self.record

    def _running(self) -> Process:
        assert self.process is not None
        return self.process

    def _monitor(self) -> Monitor:
        if self._qmp is None:
            raise PeerError(f"there is no connection to the QEMU of {self.spec.name}")
        return self._qmp

    def _group(self) -> cgroup.Cgroup:
        """Of one without a record, what is there by its name."""
        if self.record is None:
            return cgroup.find(self.spec.fabric, self.spec.name)
        return cgroup.of(self.record.cgroups)


async def _first(*waits: Coroutine[object, object, object]) -> None:
    """Waits for one of several, and ends the waiting for the others."""
    tasks = [asyncio.create_task(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()


def _is_loaded(answer: object) -> bool:
    return monitor.parse_status(answer) is not RunState.INCOMING


@contextlib.asynccontextmanager
async def _limit(timeout_s: float, text: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise TimedOut(f"{text} within {timeout_s:g} s") from error
