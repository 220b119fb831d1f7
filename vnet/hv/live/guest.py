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
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, PeerError, TimedOut, VnetError
from vnet.hv import monitor
from vnet.hv.accel import Accel
from vnet.hv.argv import Machine, Memory, NicArgument, machine_of
from vnet.hv.identity import ENTROPY_BYTES, identity_lines
from vnet.hv.lifecycle import SHOWN, Action, Event, Phase, step
from vnet.hv.live import cgroup
from vnet.hv.live.agent_client import AgentClient
from vnet.hv.live.console import ConsoleTail
from vnet.hv.live.finding import find_recorded
from vnet.hv.live.image import Image
from vnet.hv.live.launcher import LOG, Confinement, launch_machine, open_vhost, opened
from vnet.hv.live.process import Process, start_ticks
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.record import Record, read, record_path
from vnet.hv.live.template import Template
from vnet.hv.live.users import claim_dir
from vnet.hv.monitor import MonitorEvent, RunState
from vnet.hv.spec import ExecResult, GuestEvent, GuestSpec, GuestState, GuestStatus

GREET_TIMEOUT_S = 30.0
LOAD_TIMEOUT_S = 20.0
CLONE_TIMEOUT_S = 30.0
BOOT_TIMEOUT_S = 60.0
CONFIGURE_TIMEOUT_S = 20.0
QUIT_TIMEOUT_S = 2.0
KILL_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class Means:
    """What a start needs from the manager besides the spec. `template` is None for a cold boot."""

    accel: Accel
    image: Image
    open_tap: Callable[[str], int]
    template: Template | None


class Guest:
    """A guest of one fabric. The manager holds `lock` during every operation."""

    def __init__(self, spec: GuestSpec, on_event: Callable[[GuestEvent], None]) -> None:
        self.spec = spec
        self.phase = Phase.ABSENT
        self.reason = ""
        self.record: Record | None = None
        self.process: Process | None = None
        self.agent: AgentClient | None = None
        self.lock = asyncio.Lock()
        self.failure: VnetError | None = None
        self.failed_in = Phase.ABSENT
        self.stop_timeout_s = 10.0
        self._on_event = on_event
        self._means: Means | None = None
        self._qmp: Monitor | None = None
        self._powered_off = asyncio.Event()
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

    async def drive(self, event: Event) -> None:
        """Takes one event and does what follows from it, to the end."""
        while True:
            self.phase, action = step(self.phase, event)
            if action is Action.NOTHING:
                return
            try:
                await self._actions()[action]()
                event = Event.DONE
            except VnetError as error:
                event, self.failure, self.failed_in = Event.FAILED, error, self.phase
            except OSError as error:
                event, self.failed_in = Event.FAILED, self.phase
                self.failure = HostError(f"{self.spec.name}: {action.value}: {error}")

    def _actions(self) -> dict[Action, Callable[[], Coroutine[object, object, None]]]:
        return {
            Action.LAUNCH_CLONE: self._launch_clone,
            Action.LAUNCH_COLD: self._launch_cold,
            Action.LOAD: self._load,
            Action.PLUG: self._plug,
            Action.AWAIT_AGENT: self._await_agent,
            Action.CONFIGURE: self._configure,
            Action.ANNOUNCE: self._announce,
            Action.POWER_DOWN: self._power_down,
            Action.QUIT: self._quit,
            Action.KILL: self._kill,
            Action.CLEAN: self._clean,
        }

    # Starting

    async def start(self, means: Means, event: Event) -> None:
        """One attempt. On failure nothing is left and the reason is raised."""
        self._means, self.failure, self.failed_in, self.reason = means, None, Phase.ABSENT, ""
        self._powered_off.clear()  # what the last run ended with
        try:
            await self.drive(event)
        except BaseException:  # also a Ctrl-C: nothing half-made may run on
            await asyncio.shield(self.drive(Event.STOP))
            raise
        if self.phase is not Phase.RUNNING:
            raise self.failure or HostError(f"{self.spec.name} ended while it was started")

    async def _launch_clone(self) -> None:
        template = self._need().template
        assert template is not None
        machine = replace(self._prepare(warm=True), memory=Memory.CLONE)
        await self._launch(machine, memory_fd=template.memory_fd)

    async def _launch_cold(self) -> None:
        machine = self._prepare(warm=False)
        descriptors: list[int] = []
        try:
            for nic in self.spec.nics:
                tap = await self._open_tap(nic.name)
                descriptors.append(tap)
                vhost = open_vhost()
                descriptors += [vhost] if vhost is not None else []
                machine = replace(machine, nics=(*machine.nics, NicArgument(nic.mac, tap, vhost)))
            await self._launch(machine, fds=tuple(descriptors))
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    async def _open_tap(self, nic: str) -> int:
        return await asyncio.to_thread(self._need().open_tap, nic)

    def _prepare(self, *, warm: bool) -> Machine:
        """The folder, the record and the machine; the record is written before anything runs."""
        accel = self._need().accel.name
        user = claim_dir(self.run_dir)
        group = cgroup.create(self.spec.fabric, self.spec.name, self.spec.memory_bytes)
        self.record = Record(
            uuid=str(uuids.uuid4()),
            user=user,
            accel=accel,
            warm=warm,
            memory_bytes=self.spec.memory_bytes,
            cgroups=tuple(str(folder) for folder in group.folders),
        )
        self.record.write(record_path(self.spec.fabric, self.spec.name))
        return machine_of(
            self.spec,
            uuid=self.record.uuid,
            run_dir=str(self.run_dir),
            accel=accel,
            kernel="",
            initrd="",
        )

    async def _launch(
        self, machine: Machine, *, memory_fd: int | None = None, fds: tuple[int, ...] = ()
    ) -> None:
        means = self._need()
        confinement = Confinement(self._recorded().user, self._group(), means.accel)
        self.process = await launch_machine(machine, means.image, confinement, memory_fd=memory_fd, fds=fds)
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
        await self._monitor().execute(monitor.CONTINUE)

    async def _await_agent(self) -> None:
        """A boot that hangs is explained by the end of its console."""
        timeout_s = CLONE_TIMEOUT_S if self._recorded().warm else BOOT_TIMEOUT_S
        console = ConsoleTail(self.run_dir / "console.sock")
        try:
            self.agent = await AgentClient.connect(self._agent_socket, timeout_s=timeout_s, fresh=True)
        except TimedOut as error:
            raise TimedOut(f"{self.spec.name}: {error}; its console ends with:\n{console.text}") from error
        finally:
            await console.close()

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
        self.record = replace(self._recorded(), ready=True, start_ticks=start_ticks(process.pid))
        self.record.write(record_path(self.spec.fabric, self.spec.name))
        self._watch = asyncio.create_task(self._watch_process(process))

    # Finding it again

    async def adopt(self) -> bool:
        """Takes over a QEMU of an earlier manager; whatever is half-made or ended is cleaned up.

        Returns:
            Whether the guest runs.
        """
        if self.phase is Phase.RUNNING:
            if self._running().alive():
                return True
            await self.drive(Event.DIED)  # nobody has noticed yet
            return False
        self.record = read(record_path(self.spec.fabric, self.spec.name))
        self.process = find_recorded(self.run_dir, self.record) if self.record else None
        if self.process and self._recorded().ready:
            with contextlib.suppress(VnetError):
                await self._check_identity()
                await self.drive(Event.ADOPT)
                await self._catch_up()
                return self.state is GuestState.RUNNING
        if self.process:
            self.process.kill()
            await self.process.wait(KILL_TIMEOUT_S)
        if self.record or self.run_dir.exists():
            await self.drive(Event.STOP)
        return False

    async def _check_identity(self) -> None:
        await self._connect_monitor()
        answer = await self._monitor().execute(monitor.QUERY_UUID)
        if not isinstance(answer, dict) or answer.get("UUID") != self._recorded().uuid:
            raise PeerError(f"the QEMU of {self.spec.name} is another guest: {answer}")

    async def _catch_up(self) -> None:
        """Events are not replayed: what happened while nobody listened is asked for."""
        status = monitor.parse_status(await self._monitor().execute(monitor.QUERY_STATUS))
        if status is RunState.POWERED_OFF:
            await self.drive(Event.POWERED_OFF)

    # Ending

    async def stop(self, timeout_s: float) -> None:
        """Presses the power button, and kills a guest that does not go down in time."""
        self.stop_timeout_s = timeout_s
        await self.drive(Event.STOP)

    async def _power_down(self) -> None:
        if self.stop_timeout_s <= 0:
            raise TimedOut("no time was given")
        self._powered_off.clear()
        async with _limit(self.stop_timeout_s, f"{self.spec.name} did not power off"):
            await self._monitor().execute(monitor.POWER_DOWN)  # a QEMU that hangs does not even answer
            await self._until_down(self._running())

    async def _until_down(self, process: Process) -> None:
        """Waits until the guest has switched itself off or QEMU has died."""
        died = asyncio.create_task(process.wait(None))
        off = asyncio.create_task(self._powered_off.wait())
        try:
            await asyncio.wait((died, off), return_when=asyncio.FIRST_COMPLETED)
        finally:
            died.cancel()
            off.cancel()

    async def _quit(self) -> None:
        with contextlib.suppress(PeerError):
            await self._monitor().execute(monitor.QUIT)
        if not await self._running().wait(QUIT_TIMEOUT_S):
            raise TimedOut(f"the QEMU of {self.spec.name} did not quit")

    async def _kill(self) -> None:
        if self.process is None:
            return
        self.process.kill()
        while not await self.process.wait(KILL_TIMEOUT_S):
            pass  # the kernel is still taking its memory apart; there is nothing else to do

    async def _clean(self) -> None:
        """Forgets the connections and removes every trace but a crash's reason."""
        group = self._group()
        await self.leave()
        self.record = None
        shutil.rmtree(self.run_dir, ignore_errors=True)
        record_path(self.spec.fabric, self.spec.name).unlink(missing_ok=True)
        for folder in (self.run_dir.parent, self.run_dir.parent.parent):
            with contextlib.suppress(OSError):  # unless something else is in there
                folder.rmdir()
        await asyncio.to_thread(group.remove)

    async def leave(self) -> None:
        """Lets go of the process, whether it runs on or has ended."""
        self._stop_watching()
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
            self._report("its kernel panicked")

    async def _watch_process(self, process: Process) -> None:
        """Sees QEMU's death, or that the guest switched itself off, while nobody else is at work on it."""
        await self._until_down(process)
        async with self.lock:
            if self.phase is not Phase.RUNNING or self.process is not process:
                return
            if process.alive():
                await self.drive(Event.POWERED_OFF)
                self._report("switched itself off")
                return
            self.reason = self._log() or "QEMU ended without a word (killed?)"
            await self.drive(Event.DIED)
            self._report(f"QEMU died: {self.reason}")

    def _report(self, text: str) -> None:
        self._on_event(GuestEvent(self.spec.fabric, self.spec.name, self.state, text))

    # What is known

    async def exec(self, argv: list[str], stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest, over a new connection if the last one broke."""
        return await (await self.connected_agent(timeout_s)).run(argv, stdin=stdin, timeout_s=timeout_s)

    async def connected_agent(self, timeout_s: float) -> AgentClient:
        """The agent's connection, made if there is none; waits for a start that is under way.

        A guest that does not answer must not keep others from stopping it: `lock` is not held meanwhile.
        """
        async with self.lock:
            self.check_running()
        async with self._agent_lock:
            if self.agent is None or not self.agent.connected:
                if self.agent:
                    await self.agent.close()
                self.agent = await AgentClient.connect(self._agent_socket, timeout_s=timeout_s)
            self.check_running()
            return self.agent

    def check_running(self) -> None:
        """Refuses what needs a running guest."""
        if self.phase is not Phase.RUNNING:
            name, state = self.spec.name, self.state.value
            raise HostError(f"{name} is {state}: start it with `vnet start {name}`")

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
            uptime_s=process.uptime_s(),
            agent=self.agent is not None and self.agent.connected,
            memory_bytes=record.memory_bytes,
            resident_bytes=process.resident_bytes(),
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
        return cgroup.Cgroup(tuple(Path(text) for text in self.record.cgroups) if self.record else ())


def _is_loaded(answer: object) -> bool:
    return monitor.parse_status(answer) is not RunState.INCOMING


@contextlib.asynccontextmanager
async def _limit(timeout_s: float, text: str) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise TimedOut(f"{text} within {timeout_s:g} s") from error
