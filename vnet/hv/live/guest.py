"""One guest: drives it through what `vnet.hv.lifecycle` says, and is what others call.

`Performer` performs each action, `drive` is the loop that joins the two. What there is of a guest is its
`Body`. How QEMU is started is in `launching`, what can be done with it in `qemu`, how a guest is found again
in `adopting`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection
from pathlib import Path

from vnet.base import paths
from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import HostError, VnetError
from vnet.hv import faults, saving
from vnet.hv.faults import DiskFault
from vnet.hv.lifecycle import SHOWN, Action, Event, Phase, step
from vnet.hv.live import console_log
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.agent_connection import AgentConnection
from vnet.hv.live.body import Body
from vnet.hv.live.launching import Means
from vnet.hv.live.performing import Performer
from vnet.hv.live.qemu import Qemu
from vnet.hv.live.saving import Saving
from vnet.hv.live.tasks import to_its_end
from vnet.hv.spec import ExecResult, GuestEvent, GuestSpec, GuestState, GuestStatus, Happening
from vnet.hv.vitals import Vitals


class Guest(Body):
    """A guest of one fabric: what there is of it, and the phase of its life.

    The manager holds `lock` during every operation.
    """

    def __init__(self, spec: GuestSpec, on_event: Callable[[GuestEvent], None]) -> None:
        super().__init__(spec)
        self.phase = Phase.ABSENT
        self.reason = ""
        self.lock = asyncio.Lock()
        self.failed_in = Phase.ABSENT
        self._held = ""
        self.copied = ""
        """What copies its disks while it is up, in words; empty if nobody does."""
        self.performer = Performer(self, self._watch, self._tell_fault)
        self._on_event = on_event

    async def drive(self, event: Event) -> VnetError | None:
        """Takes one event and does what follows from it, to the end. Returns what went wrong, if anything."""
        failure: VnetError | None = None
        while True:
            self.phase, action = step(self.phase, event)
            if action is Action.NOTHING:
                return failure
            try:
                event = await self.performer.actions()[action]() or Event.DONE
            except VnetError as error:
                event, failure, self.failed_in = Event.FAILED, error, self.phase
            except OSError as error:
                event, self.failed_in = Event.FAILED, self.phase
                failure = HostError(f"{self.spec.name}: {action.value}: {error}")

    # Starting

    async def start(self, means: Means, event: Event) -> None:
        """One attempt. On failure nothing is left and the reason is raised."""
        self.performer.means = means
        await self._begin(event, Phase.RUNNING)

    async def load(self, means: Means) -> None:
        """Starts it with its own memory, which was saved; it stands still. One attempt."""
        self.performer.means = means
        await self._begin(Event.START_SAVED, Phase.LOADED)

    async def go_on(self) -> None:
        """Lets one that was loaded go on; returns once it has its addresses. One attempt."""
        await self._begin(Event.RESUME, Phase.RUNNING)

    async def _begin(self, event: Event, goal: Phase) -> None:
        self.failed_in, self.reason = Phase.ABSENT, ""
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

    async def look_for_saved(self) -> None:
        """One that is off is suspended if its memory is kept, and only then."""
        wish = files.next_of(self.spec.fabric, self.spec.name)
        is_kept = wish is not None and wish.memory
        if self.phase in (Phase.ABSENT, Phase.CRASHED) and is_kept:
            self.reason = ""
            await self.drive(Event.FOUND_SUSPENDED)
        if self.phase is Phase.SUSPENDED and not is_kept:
            await self.drive(Event.FORGOTTEN)

    # Being saved: `vnet.hv.live.snapshots` says when

    async def saving(self, snapshot: str, file: Path | None, *, disks: bool, live: bool) -> Saving:
        """Ready to be saved; `saved` or `suspend` has to follow.

        Args:
            snapshot: what its disks keep their contents under, if `disks` are kept.
            file: where its memory goes; None if it is not kept.
            disks: whether they keep their contents too.
            live: whether its memory is written while it runs.
        """
        runs = self.phase is Phase.RUNNING
        self.note(saving=snapshot, saving_runs=runs)
        await self.drive(Event.SAVE)
        kept = self.plugged if disks else ()
        return Saving(self.spec.name, self.monitor, kept, snapshot, file, runs, live)

    @property
    def goes_on(self) -> bool:
        """Whether its processors run; while it is being saved, whether they did before."""
        if self.phase is Phase.SAVING:
            return self.record is not None and self.record.saving_runs
        return self.phase is Phase.RUNNING

    async def saved(self) -> None:
        """It is as it was, whether that went well or not."""
        await self.drive(Event.SAVED)
        self.note(saving="")

    async def suspend(self) -> None:
        """Its memory is kept: its QEMU ends."""
        await self.drive(Event.SUSPEND)

    async def forget_disks(self, snapshot: str, names: Collection[str]) -> None:
        """Drops what its disks keep of a snapshot, as far as they do."""
        for disk in self.plugged:
            with contextlib.suppress(HostError):
                if disk.disk.name in names:
                    await self.monitor.execute(saving.drop_disk(disk, snapshot))

    # Standing still, booting again

    async def pause(self) -> None:
        """Its processors stand still."""
        await self._ask(Event.PAUSE)

    async def resume(self) -> None:
        """They go on. Raises HostError for one that stands still for a disk, and does so again at once."""
        qemu, tries_again = self.qemu, self.is_halted
        await self._ask(Event.RESUME)
        if qemu is not None and tries_again and await qemu.faults.shows_again():
            qemu.faults.halted.clear()
            await self.drive(Event.HALTED)
            raise HostError(f"{self.spec.name} stands still again: {self._trouble}")

    async def try_again(self) -> None:
        """Lets one go on that stands still for a disk, unless a user wants it to; raises as `resume` does."""
        qemu = self.qemu
        if self.phase is Phase.RUNNING and qemu is not None and qemu.faults.halted.is_set():
            qemu.faults.halted.clear()
            await self.drive(Event.HALTED)
        if self._awaits_room:
            await self.resume()

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
        failure = await to_its_end(self.drive(event))
        if failure is not None:
            raise failure

    # Ending

    async def stop(self, timeout_s: float) -> None:
        """Presses the power button, and kills a guest that does not go down in time.

        That is not taken back when who asked for it goes away meanwhile: the guest may be at it.
        """
        self.performer.stop_timeout_s = timeout_s
        await to_its_end(self.drive(Event.STOP))

    # What happens unasked

    async def _watch(self, qemu: Qemu) -> None:
        """Sees QEMU's death, and that the guest switched itself off or boots again, while nobody else is at
        work on it."""
        await qemu.news(meanwhile=console_log.keep_short(self.spec.fabric, self.spec.name))
        async with self.lock:
            if self.is_up and self.qemu is qemu:
                await self._follow(qemu)

    async def _follow(self, qemu: Qemu) -> None:
        """What comes of the news."""
        if not qemu.process.alive():
            self.reason = qemu.last_words or "QEMU ended without a word (killed?)"
            await self.drive(Event.DIED)
            self._report(Happening.DIED, f"QEMU died: {self.reason}")
        elif qemu.powered_off.is_set():
            await self.drive(Event.POWERED_OFF)
            self._report(Happening.STOPPED, "switched itself off")
        elif qemu.panicked.is_set():
            await self._end_panicked(qemu)
        elif qemu.faults.halted.is_set():
            qemu.faults.halted.clear()
            await self.drive(Event.HALTED)
            self.tell_halted()
        else:
            await self._follow_reboot()

    async def _follow_reboot(self) -> None:
        failure = await self.drive(Event.REBOOTED)
        if failure and self.phase is Phase.ABSENT:
            self.reason = f"it rebooted and did not come back: {failure}"
            await self.drive(Event.FOUND_DEAD)
        if failure:
            self._report(Happening.STOPPED, f"rebooted and did not come back: {failure}")
        else:
            self._report(Happening.REBOOTED, "rebooted")

    async def _end_panicked(self, qemu: Qemu) -> None:
        """A kernel that has given up does nothing any more: it has crashed, as if its QEMU had died."""
        await qemu.kill()
        name = self.spec.name
        self.reason = f"its kernel panicked: `vnet logs {name}` says why; `--previous` once it runs again"
        await self.drive(Event.DIED)
        self._report(Happening.PANICKED, self.reason)

    def tell_halted(self) -> None:
        """It stands still for a disk: told once, also if this manager is not the last."""
        self.note(halted=True)
        self._report(Happening.HALTED, self._trouble, self._disk(self._fault))

    def _tell_fault(self, fault: DiskFault) -> None:
        self._report(Happening.DISK_FAILED, self._words(fault), self._disk(fault))

    def _report(self, what: Happening, text: str, disk: str = "") -> None:
        self._on_event(GuestEvent(self.spec.fabric, self.spec.name, what, self.state, text, disk))

    # What is known

    async def exec(self, argv: list[str], stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest, over a new connection if the last one broke."""
        return await (await self.connected_agent(timeout_s)).run(argv, stdin=stdin, timeout_s=timeout_s)

    async def connected_agent(self, timeout_s: float) -> AgentConnection:
        """The agent's connection, made if there is none; waits for a start that is under way.

        A guest that does not answer must not keep others from stopping it: `lock` is not held meanwhile.
        """
        async with self.lock:
            self.check_running()
        agent = await self.agent_now(timeout_s)
        self.check_running()
        return agent

    async def agent_now(self, timeout_s: float) -> AgentConnection:
        """The same for who is at work on the guest and holds `lock`."""
        return await self.agent.now(self.spec, timeout_s)

    @property
    def is_up(self) -> bool:
        """Whether it is there, paused or not, and nobody is at work on it."""
        return self.phase in (Phase.RUNNING, Phase.PAUSED)

    def check_up(self) -> None:
        """Refuses what needs a guest that is there, paused or not."""
        if self.phase is not Phase.PAUSED:
            self.check_running()

    def check_running(self) -> None:
        """Refuses what needs a running guest."""
        if self.phase not in (Phase.RUNNING, Phase.SAVING):
            name, state = self.spec.name, self.state
            how = "resume" if state is GuestState.PAUSED else "start"
            raise HostError(f"{name} is {state.value}: {how} it with `vnet {how} {name}`")

    async def vitals(self) -> Vitals:
        """How it gets on with memory and disks. Needs no `lock`; nobody waits for a QEMU that hangs."""
        if self.qemu is None or not self.is_up:
            return Vitals()
        return await self.qemu.vitals(self.spec.disks)

    def hold(self, why: str) -> None:
        """Keep it from being started as long as there is a reason; raises HostError if there is one."""
        if why:
            self.refuse_while_held()
        self._held = why

    def refuse_while_held(self) -> None:
        """Refuses what needs its disks."""
        self._refuse(self._held)

    def refuse_while_copied(self) -> None:
        """Refuses what QEMU does not do with disks that it copies."""
        self._refuse(self.copied)

    def _refuse(self, why: str) -> None:
        if why:
            raise HostError(f"{self.spec.name}: {why}; wait for its end, or break it off")

    @property
    def _fault(self) -> DiskFault | None:
        qemu = self.qemu
        return qemu.faults.latest if qemu else None

    @property
    def _trouble(self) -> str:
        """What became of a disk, in words; empty if all are well."""
        return self._words(self._fault) if self._fault else ""

    def _disk(self, fault: DiskFault | None) -> str:
        return faults.disk_name(fault, self.plugged) if fault else ""

    def _words(self, fault: DiskFault) -> str:
        name = self._disk(fault)
        location = next((each.location for each in self.spec.disks if each.name == name), DEFAULT_LOCATION)
        folder = paths.disks_dir(location) / self.spec.fabric / self.spec.name
        return faults.in_words(fault, self.spec.name, name, str(folder))

    @property
    def is_halted(self) -> bool:
        """Whether it stands still for a disk."""
        return bool(self.halted_by)

    @property
    def halted_by(self) -> str:
        """What QEMU says of the disk that it stands still for; "" if it does not."""
        qemu = self.qemu
        fault = qemu.faults.latest if qemu is not None and qemu.faults.is_halted else None
        return fault.text if fault is not None else ""

    @property
    def _awaits_room(self) -> bool:
        qemu = self.qemu
        return self.phase is Phase.PAUSED and qemu is not None and qemu.faults.awaits_room

    def stay_halted(self) -> None:
        """One that stands still for a disk does so until a user says otherwise."""
        if self.qemu:
            self.qemu.faults.stays = True

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
            agent=self.agent.connected,
            memory_bytes=record.memory_bytes,
            resident_bytes=process.resident_bytes(),
            built=record.built,
            links_down=record.links_down,
            has_agent=self.spec.is_micro,
            reason=self._trouble,
            is_failing=self._fault is not None,
            awaits_room=self._awaits_room,
        )

    @property
    def state(self) -> GuestState:
        """What a user sees of the phase."""
        return SHOWN[self.phase]
