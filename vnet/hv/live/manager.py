"""All guests of this host: started, found again, stopped. One per daemon."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, TimedOut, VnetError
from vnet.hv import admission
from vnet.hv.accel import Accel
from vnet.hv.argv import Machine, command_line, machine_of
from vnet.hv.lifecycle import Event, Phase, attempts
from vnet.hv.live import console_log, image, kvm, record, saved_start, screen
from vnet.hv.live.adopting import Adopter
from vnet.hv.live.boot import Prepared, Preparer
from vnet.hv.live.changing import Changer, set_link
from vnet.hv.live.guest import Guest
from vnet.hv.live.launching import Means
from vnet.hv.live.template import Template, Templates
from vnet.hv.snapshot import Build
from vnet.hv.spec import ExecResult, GuestEvent, GuestSpec, GuestStatus
from vnet.hv.vitals import Vitals

STOP_TIMEOUT_S = 10.0
EXEC_TIMEOUT_S = 60.0

_STARTS_PER_CPU = 2
"""More starts at a time only make each of them slower, up to its deadline."""

Progress = Callable[[str], None]


def _silent(_: object) -> None:
    """Nobody listens."""


class HvManager:
    """Owns the guests. Its end ends no guest: `close` lets go of them, a new manager adopts them.

    Operations on one guest follow one another; different guests are worked on at the same time.

    Args:
        on_event: told what happens to guests unasked (QEMU died, the guest switched itself off).
        warm: whether guests are cloned from templates; if not, each is booted.
    """

    def __init__(self, on_event: Callable[[GuestEvent], None] = _silent, *, warm: bool = True) -> None:
        self._on_event = on_event
        self._warm = warm
        self._guests: dict[tuple[str, str], Guest] = {}
        self._starts = asyncio.Semaphore(_STARTS_PER_CPU * (os.cpu_count() or 1))
        self._image_lock = asyncio.Lock()
        self._preparer = Preparer()
        self._templates = Templates()
        self._accel: Accel | None = None
        self._starting_bytes = 0

    @property
    def accel(self) -> Accel:
        """What QEMU runs guests with on this host, and why."""
        if self._accel is None:
            self._accel = kvm.choose()
        return self._accel

    def admit(self, specs: Iterable[GuestSpec]) -> None:
        """Refuses guests that do not all fit into memory. Nothing is made.

        Raises:
            AdmissionError: with the sum.
        """
        running = [
            admission.Commitment(status.memory_bytes, status.resident_bytes)
            for status in (guest.status() for guest in self._guests.values())
            if status.pid
        ]
        wanted = [(spec.name, spec.memory_bytes) for spec in specs]
        admission.admit(wanted, running, _available_bytes() - self._starting_bytes)

    async def start(
        self, spec: GuestSpec, open_tap: Callable[[str], int], progress: Progress = _silent
    ) -> GuestStatus:
        """Starts a guest and returns once it has its addresses. A running one is left as it is.

        Args:
            spec: the guest.
            open_tap: gives an open descriptor of the TAP for a NIC's name (`web-1.eth0`); it becomes ours.
                Called in a thread, again at a second attempt.
            progress: told in words what takes time.

        Raises:
            AdmissionError: it does not fit into memory.
            HostError, PeerError, TimedOut: it did not start; nothing of it is left.
        """
        guest = self.guest(spec)
        async with guest.lock:
            if await Adopter(guest).adopt():
                return guest.status()
            guest.refuse_while_held()
            guest.spec = spec
            async with self.room(spec):
                await self._start(guest, open_tap, progress)
            return guest.status()

    @asynccontextmanager
    async def room(self, spec: GuestSpec) -> AsyncIterator[None]:
        """For a guest that is being started: its memory, and its turn. Raises AdmissionError."""
        self.admit([spec])
        command_line(self.machine(spec))  # socket paths too long are refused before anything is made
        committed = spec.memory_bytes + admission.OVERHEAD_BYTES
        self._starting_bytes += committed
        try:
            async with self._starts:
                yield
        finally:
            self._starting_bytes -= committed

    async def stop(self, fabric: str, name: str, timeout_s: float = STOP_TIMEOUT_S) -> None:
        """Switches a guest off: by its power button, by force after `timeout_s`; one that is off stays so."""
        guest = self.guest_named(fabric, name)
        async with guest.lock:
            await Adopter(guest).adopt()
            await guest.stop(timeout_s)

    async def pause(self, fabric: str, name: str) -> None:
        """Lets a guest's processors stand still; one that does already is left as it is."""
        guest = self._known(fabric, name)
        async with guest.lock:
            if guest.phase is not Phase.PAUSED:
                guest.check_running()
                await guest.pause()
            guest.stay_halted()

    async def resume(self, fabric: str, name: str) -> None:
        """Lets a paused guest go on; one that runs is left as it is."""
        guest = self._known(fabric, name)
        async with guest.lock:
            if guest.phase is Phase.PAUSED:
                await guest.resume()
            guest.check_running()

    async def reset(self, fabric: str, name: str) -> None:
        """Presses a guest's reset button; returns once it has its addresses again."""
        guest = self._known(fabric, name)
        async with guest.lock:
            guest.check_up()
            await guest.reset()

    async def change(self, spec: GuestSpec, open_tap: Callable[[str], int]) -> None:
        """Makes a guest that runs what `spec` says, while it goes on; see `Changer.change`."""
        guest = self._known(spec.fabric, spec.name)
        async with guest.lock:
            guest.check_running()
            await Changer(guest, open_tap).change(spec)

    async def take_up(self, old: GuestSpec, new: GuestSpec, open_tap: Callable[[str], int]) -> None:
        """Completes a change that an earlier manager was killed in, or takes it back."""
        guest = self._known(new.fabric, new.name)
        async with guest.lock:
            await Changer(guest, open_tap).take_up(old, new)

    async def set_link(self, fabric: str, name: str, interface: str, *, is_up: bool) -> None:
        """Pulls the cable of a guest's NIC, or plugs it in again; a new start of the guest plugs all in."""
        guest = self._known(fabric, name)
        async with guest.lock:
            guest.check_up()
            await set_link(guest, interface, is_up=is_up)

    async def destroy(self, fabric: str, name: str) -> None:
        """Ends a guest at once and forgets it: no process, socket, folder, log or control group is left."""
        await self.stop(fabric, name, timeout_s=0)
        await asyncio.to_thread(saved_start.forget, fabric, name)
        self._guests.pop((fabric, name), None)
        await asyncio.to_thread(console_log.remove, fabric, name)

    async def adopt(self, fabric: str, specs: Sequence[GuestSpec]) -> tuple[GuestStatus, ...]:
        """Takes over the guests that an earlier manager left running; cleans up the half-made ones.

        Guests on disk that are not in `specs` are not touched; `left_over` names them.
        """
        assert all(spec.fabric == fabric for spec in specs)
        return tuple(await asyncio.gather(*(self._adopt(spec) for spec in specs)))

    def left_over(self, fabric: str, specs: Iterable[GuestSpec]) -> tuple[str, ...]:
        """Guests that were started once and are in no spec; `destroy` removes them."""
        known = {spec.name for spec in specs}
        return tuple(name for name in record.names(fabric) if name not in known)

    async def exec(
        self,
        fabric: str,
        name: str,
        argv: list[str],
        stdin: bytes = b"",
        timeout_s: float = EXEC_TIMEOUT_S,
    ) -> ExecResult:
        """Runs a command in a guest; without `stdin` its standard input is empty.

        Raises:
            TimedOut: it was ended after `timeout_s`.
            PeerError: the guest's agent went away.
        """
        return await self._known(fabric, name).exec(argv, stdin, timeout_s)

    async def status(self, fabric: str, name: str) -> GuestStatus:
        """What is known of a guest."""
        return self._known(fabric, name).status()

    async def vitals(self, fabric: str, name: str) -> Vitals:
        """What a guest and its QEMU tell of memory and disks; nothing of one that does not run."""
        guest = self._guests.get((fabric, name))
        return await guest.vitals() if guest else Vitals()

    async def console_path(self, fabric: str, name: str) -> Path:
        """The unix socket of the guest's serial console; it takes one client at a time."""
        guest = self._known(fabric, name)
        guest.check_running()
        return guest.run_dir / "console.sock"

    def vnc_socket(self, fabric: str, name: str) -> Path:
        """The unix socket on which VNC is spoken with the guest."""
        return screen.vnc_socket(self._known(fabric, name))

    async def picture(self, fabric: str, name: str) -> bytes:
        """What is on the guest's screen, as PNG."""
        return await screen.picture(self._known(fabric, name))

    async def wait_ready(self, fabric: str, name: str, deadline_s: float) -> None:
        """Waits until a guest that is being started runs and its agent answers.

        Raises:
            TimedOut: it does not within `deadline_s`.
        """
        try:
            async with asyncio.timeout(deadline_s):
                agent = await self._known(fabric, name).connected_agent(deadline_s)
                await agent.run(["true"], stdin=b"", timeout_s=deadline_s)
        except TimeoutError as error:
            raise TimedOut(f"{name} was not ready within {deadline_s:g} s") from error

    async def close(self) -> None:
        """Lets go of all guests; they run on."""
        for guest in self._guests.values():
            async with guest.lock:
                await guest.leave()
        self._guests.clear()
        self._templates.close()

    async def _start(self, guest: Guest, open_tap: Callable[[str], int], progress: Progress) -> None:
        means = await self.means(guest.spec, open_tap, progress)
        wish = await asyncio.to_thread(saved_start.wish_of, guest.spec)
        if wish and wish.memory:
            await self.refuse_memory(guest.spec)
            await saved_start.load(wish, guest, means)
            await saved_start.go_on(wish, guest)
            return
        if wish:
            await asyncio.to_thread(saved_start.take_back, wish, guest.spec)
        await self._boot(guest, means, progress)
        if wish:
            await asyncio.to_thread(saved_start.fulfilled, wish, guest.spec)

    async def refuse_memory(self, spec: GuestSpec) -> None:
        """Raises HostError if memory that a guest is to go on from cannot be loaded into what is declared."""
        wish = await asyncio.to_thread(saved_start.wish_of, spec)
        if wish and wish.memory:
            build, machine = await self.build(), self.machine(spec)
            await asyncio.to_thread(saved_start.refuse, wish, spec, build, machine)

    async def means(self, spec: GuestSpec, open_tap: Callable[[str], int], progress: Progress) -> Means:
        """What a start needs, but for a template."""
        return Means(self.accel, await self.image_of(spec, progress), open_tap)

    async def _boot(self, guest: Guest, means: Means, progress: Progress) -> None:
        if isinstance(means.image, Prepared):
            await guest.start(means, Event.START_COLD)
            return
        template = await self._template(guest.spec, means.image, progress)
        tries = attempts(template=template is not None)
        for number, event in enumerate(tries, start=1):
            try:
                is_clone = event is Event.START_CLONE
                await guest.start(replace(means, template=template if is_clone else None), event)
                return
            except VnetError as error:
                if template is not None and guest.failed_in is Phase.LOADING:
                    self._templates.forget(template)  # QEMU cannot read it: the next guest gets a new one
                if number == len(tries):
                    raise
                progress(f"{guest.spec.name}: {error}; booting it instead")

    async def image_of(self, spec: GuestSpec, progress: Progress) -> image.Image | Prepared:
        """What a guest boots, made or imported if it is not there."""
        if not spec.boot.is_micro:
            return await self._preparer.prepare(spec, progress)
        async with self._image_lock:
            return await asyncio.to_thread(image.ensure, progress)

    async def _template(self, spec: GuestSpec, made: image.Image, progress: Progress) -> Template | None:
        """The template for a guest; without one it is booted, which only takes longer."""
        if not self._warm:
            return None
        try:
            return await self._templates.get(self.machine(spec), made, self.accel, progress)
        except VnetError as error:
            progress(f"no template for warm clones: {error}")
            return None

    def machine(self, spec: GuestSpec) -> Machine:
        """The machine for a guest, without what is plugged in."""
        run_dir = str(paths.vm_run_dir(spec.fabric, spec.name))
        return machine_of(spec, uuid="", run_dir=run_dir, accel=self.accel.name, kernel="", initrd="")

    async def _adopt(self, spec: GuestSpec) -> GuestStatus:
        guest = self.guest(spec)
        async with guest.lock:
            await Adopter(guest).adopt()
            return guest.status()

    def guest(self, spec: GuestSpec) -> Guest:
        """The one guest of that name."""
        return self._guests.setdefault((spec.fabric, spec.name), Guest(spec, self._on_event))

    def guest_named(self, fabric: str, name: str) -> Guest:
        """The same where nobody may know more of it than its name."""
        return self.guest(GuestSpec(fabric, name, "micro", 1, 0, ()))

    async def build(self) -> Build:
        """What memory that is saved on this host is bound to."""
        return await self._templates.build(self.accel.name)

    def _known(self, fabric: str, name: str) -> Guest:
        guest = self._guests.get((fabric, name))
        if guest is None:
            raise HostError(f"{name} of {fabric} is not running: start it with `vnet start {name}`")
        return guest


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise HostError("/proc/meminfo has no MemAvailable")
