"""The dumb loop: carries out the actions of a plan in order, guests side by side.

`Performer` is the counterpart of `plan.step`: one action, one call to a neighbour.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

from vnet.base.errors import HostError, VnetError
from vnet.fabric import actions as act
from vnet.fabric.events import Kind
from vnet.fabric.guest_changes import differences
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Progress, Report, Status
from vnet.fabric.state import HOSTS_OWN, Guest
from vnet.fabric.store import Record, Store
from vnet.hv.changing import HalfChanged
from vnet.hv.live.tasks import to_its_end
from vnet.hv.spec import GuestState
from vnet.topology.inventory import Awaited

Tell = Callable[[Kind, str, str, str, Mapping[str, Any]], None]
"""What happened is told so: kind, text, fabric, subject, fields (`vnet.fabric.events`)."""


def nobody(kind: Kind, text: str, fabric: str, subject: str, fields: Mapping[str, Any]) -> None:
    """Nobody wants to know."""


STOP_TIMEOUT_S = 10.0
"""What a guest that takes a new start has to power off, before it is ended."""
GUESTS_AT_ONCE = 16
"""Booting more side by side gains nothing and makes each slower to answer."""

_PLURAL = {
    act.CreatePort: "create {} ports",
    act.AttachPort: "attach {} ports",
    act.LimitPort: "change the limits of {} ports",
    act.ResizePort: "change the MTU of {} ports",
    act.LayLine: "change the rates of {} ports",
    act.DetachPort: "detach {} ports",
    act.RemovePort: "remove {} ports",
}


@dataclass(frozen=True, slots=True)
class Performer:
    """Carries out single actions on one fabric. `enforced` is called when its flows have been changed."""

    fabric: str
    parts: Parts
    store: Store
    record: Callable[[], Record]
    """The fabric's, as it is when it is asked."""
    enforced: Callable[[], None] = lambda: None
    tell: Tell = nobody

    async def perform(self, action: act.Action, note: Callable[[str], None]) -> str:
        """Do it. Returns a remark for the progress line, mostly none."""
        network, switch = self.parts.network, self.parts.switch
        match action:
            case act.CreateNamespace():
                await network.create()
            case act.RemoveNamespace():
                await network.remove()
            case act.CreateSwitch():
                await switch.open()
            case act.DestroySwitch():
                await switch.destroy()
                self.enforced()
            case act.CreatePort(port):
                await network.create_port(port.ifname)
            case act.RemovePort(port):
                await network.remove_port(port.ifname)
            case act.AttachPort(port, limits, mtu_bytes):
                if mtu_bytes != HOSTS_OWN:
                    await network.resize_port(port.ifname, mtu_bytes)
                await switch.attach(port, limits)
            case act.LimitPort(port, limits):
                await switch.limit(port, limits)
            case act.ResizePort(port, mtu_bytes):
                await network.resize_port(port.ifname, mtu_bytes)
                await switch.look()
            case act.LayLine(port, line):
                await switch.lay(port, line)
            case act.DetachPort(port):
                await switch.detach(port)
            case act.ApplyFlows(put, remove):
                await switch.change(put, remove)
                self.enforced()
            case act.PutMirror(mirror):
                await switch.put_mirror(mirror, self.record)
            case act.RemoveMirror(mirror):
                await switch.remove_mirror(mirror.name)
            case act.PutService(service):
                await self.parts.services.put(service)
            case act.RemoveService(service):
                await self.parts.services.remove(service.network)
            case act.PutGateway(gateway):
                return await self.parts.gateways.put(gateway)
            case act.RemoveGateway(gateway):
                await self.parts.gateways.remove(gateway.router)
            case act.PutCable(cable):
                await self.parts.cables.put(cable)
            case act.RemoveCable(cable):
                await self.parts.cables.remove(cable.uplink)
            case act.PutEndpoint(endpoint):
                await self.parts.endpoints.put(endpoint)
            case act.RemoveEndpoint(endpoint):
                await self.parts.endpoints.remove(endpoint.name)
            case act.StartGuest(guest):
                await self._await(guest.awaits)
                return await self._start(guest, note)
            case act.ChangeGuest(was, guest):
                await to_its_end(self._change(was, guest))
            case act.RestartGuest(was, guest):
                await self._await(await self._running(guest.awaits))
                await self._stop(was)
                return await self._start(guest, note)
            case act.SuspendGuest(guest):
                await self.suspend(guest)
            case act.DestroyGuest(guest):
                await self.parts.guests.destroy(guest.name)
                self.store.remove_guest(self.fabric, guest.name)
                why = {"why": "removed"}
                self.tell(Kind.VM_STOPPED, f"{guest.name} was removed", self.fabric, guest.name, why)
        return ""

    async def _start(self, guest: Guest, note: Callable[[str], None]) -> str:
        self.store.save_guest(self.fabric, guest)
        how = await self.parts.guests.start(guest, note)
        self.tell(Kind.VM_STARTED, f"{guest.name} runs", self.fabric, guest.name, {"how": how})
        return how

    async def _stop(self, guest: Guest) -> None:
        await self.parts.guests.stop(guest.name, STOP_TIMEOUT_S)
        why = {"why": "restarted for a change"}
        self.tell(Kind.VM_STOPPED, f"{guest.name} is started again", self.fabric, guest.name, why)

    async def suspend(self, guest: Guest) -> int:
        """Let it end with its memory kept. Returns what that takes, in bytes."""
        memory_bytes = await self.parts.guests.suspend(guest)
        fields = {"memory_bytes": memory_bytes}
        self.tell(Kind.VM_SUSPENDED, f"{guest.name} is suspended", self.fabric, guest.name, fields)
        return memory_bytes

    async def _change(self, was: Guest, guest: Guest) -> None:
        """A daemon that is killed meanwhile leaves a note of what it was, for the next one to go on from."""
        self.store.save_guest(self.fabric, replace(guest, changed_from=replace(was, built=None)))
        await self._become(was, guest, self.parts.guests.change(guest))

    async def take_up(self, torn: Guest) -> None:
        """Complete a change that a daemon was killed in, or undo it; where neither works it stays marked.

        A guest that has ended since has nothing of it: its next start makes it what it is to be.
        """
        assert torn.changed_from is not None
        status = await self.parts.guests.status(torn.name)
        was, guest = replace(torn.changed_from, built=status.built), replace(torn, changed_from=None)
        if status.state not in ALIVE:
            self.store.save_guest(self.fabric, guest)
            return
        try:
            await self._become(was, guest, self.parts.guests.take_up(was, guest))
        except VnetError as error:
            what = "could be neither completed nor" if isinstance(error, HalfChanged) else "was"
            text = f"a change of {guest.name} that was broken off {what} undone: {error}"
            self.tell(Kind.VM_CHANGED, text, self.fabric, guest.name, {"what": []})

    async def _become(self, was: Guest, guest: Guest, change: Awaitable[None]) -> None:
        try:
            await change
        except HalfChanged:
            raise
        except VnetError:
            self.store.save_guest(self.fabric, was)
            raise
        self.store.save_guest(self.fabric, guest)
        what = [each.what for each in differences(was, guest)]
        text = f"{guest.name} was changed while it runs: {', '.join(what)}"
        self.tell(Kind.VM_CHANGED, text, self.fabric, guest.name, {"what": what})

    async def _running(self, awaited: Iterable[Awaited]) -> list[Awaited]:
        """Of those that a guest waits for, those that run: the others are started after it."""
        found = [(each, await self.parts.guests.status(each.vm)) for each in awaited]
        return [each for each, status in found if status.state is GuestState.RUNNING]

    async def _await(self, awaited: Iterable[Awaited]) -> None:
        """Until those are healthy that a guest waits for; they have been started."""
        for each in awaited:
            if each.health is not None:
                await self.parts.health.until_healthy(each.vm, each.health, self.parts.guests)


@dataclass(frozen=True, slots=True)
class Step:
    """Actions that are told as one line, the `number`-th of `of`."""

    number: int
    what: str
    actions: tuple[act.Action, ...]
    of: int = 0


def steps(actions: Iterable[act.Action]) -> tuple[Step, ...]:
    """The actions as a person counts them: six ports in a row are one step, each guest is its own."""
    lines = [line for kind, group in groupby(actions, type) for line in _lines(kind, tuple(group))]
    numbered = enumerate(lines, 1)
    return tuple(Step(number, what, members, len(lines)) for number, (what, members) in numbered)


def _lines(kind: type, members: tuple[act.Action, ...]) -> Iterator[tuple[str, tuple[act.Action, ...]]]:
    if kind in _PLURAL and len(members) > 1:
        yield _PLURAL[kind].format(len(members)), members
    else:
        yield from ((str(member), (member,)) for member in members)


_STARTS = act.StartGuest | act.RestartGuest
_OF_GUESTS = _STARTS | act.ChangeGuest | act.DestroyGuest


def _of_guests(step: Step) -> bool:
    return isinstance(step.actions[0], _OF_GUESTS)


def _guest(step: Step) -> Guest:
    (action,) = step.actions
    assert isinstance(action, _OF_GUESTS)
    return action.guest


def _awaited(step: Step) -> tuple[str, ...]:
    """The VMs that are started before the one that a step starts."""
    is_start = isinstance(step.actions[0], _STARTS)
    return tuple(each.vm for each in _guest(step).awaits) if is_start else ()


async def carry_out(actions: Sequence[act.Action], performer: Performer, report: Report) -> None:
    """Carry out a plan. The first failure ends it, after what runs beside it has been cancelled."""
    for kind, group in groupby(steps(actions), lambda step: (_of_guests(step), type(step.actions[0]))):
        if kind[0]:
            await _side_by_side(group, performer, report)
        else:
            for step in group:
                await _step(step, performer, report)


async def undo(actions: Sequence[act.Action], performer: Performer, report: Report) -> tuple[str, ...]:
    """Carry out a plan as far as it goes: a failure is remembered and the rest still done.

    But no guest is started or changed when its rules could not be put in force.
    """
    failures = []
    enforced = True
    for step in steps(actions):
        if not enforced and isinstance(step.actions[0], _STARTS | act.ChangeGuest):
            failures.append(f"{step.what}: its rules are not in force")
            continue
        try:
            await _step(step, performer, report)
        except VnetError as error:
            failures.append(f"{step.what}: {error}")
            enforced = enforced and not isinstance(step.actions[0], act.ApplyFlows)
    return tuple(failures)


async def _side_by_side(together: Iterable[Step], performer: Performer, report: Report) -> None:
    limit = asyncio.Semaphore(GUESTS_AT_ONCE)
    done: dict[str, asyncio.Event] = {}

    async def limited(step: Step) -> None:
        for earlier in _awaited(step):
            if earlier in done:  # else it runs already
                await done[earlier].wait()
        async with limit:
            await _step(step, performer, report)
        done[_guest(step).name].set()

    try:
        async with asyncio.TaskGroup() as tasks:
            for step in (steps := tuple(together)):
                done[_guest(step).name] = asyncio.Event()
            for step in steps:
                tasks.create_task(limited(step))
    except BaseExceptionGroup as group:  # not `except*`, which would wrap what is raised in a group again
        expected, bugs = group.split(VnetError)
        if bugs is not None or expected is None:
            raise
        raise _first(expected) from None


def _first(group: BaseExceptionGroup) -> VnetError:
    """One error that says all: the failures that came together, each on its line."""
    errors = [error for error in group.exceptions if isinstance(error, VnetError)]
    if len(errors) == 1:
        return errors[0]
    return HostError("\n".join(str(error) for error in errors))


async def _step(step: Step, performer: Performer, report: Report) -> None:
    def note(text: str) -> None:
        report(Progress(step.number, text, Status.NOTE))

    with telling(report, step.number, step.what, step.of) as remark:
        for action in step.actions:
            remark.text = await performer.perform(action, note)
