"""Looks after VMs while the daemon runs: their health by their own checks, new starts of those that end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from contextlib import suppress

from vnet.base.errors import VnetError
from vnet.fabric import restart
from vnet.fabric.events import Kind
from vnet.fabric.health import Health, State
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.health import LOOK_S
from vnet.fabric.live.observe import ALIVE
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.live.snapshots import complete_restores
from vnet.fabric.restart import Tries
from vnet.topology.inventory import Vm
from vnet.topology.life import HealthCheck

log = logging.getLogger(__name__)

RESTART_LOOK_S = 0.5


# ---- health ----------------------------------------------------------------------------------


async def look_after(registry: Registry) -> None:
    """For ever: look at every VM that has a check, side by side."""
    tasks: set[asyncio.Task[None]] = set()
    while True:
        await asyncio.sleep(LOOK_S)
        for fabric in tuple(registry.fabrics.values()):
            for vm, check in checks(fabric).items():
                health = fabric.parts.health.states.get(vm)
                if health is None or health.due_s <= time.monotonic():
                    task = asyncio.create_task(_look(registry, fabric, vm, check))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)


def checks(fabric: Fabric) -> Mapping[str, HealthCheck]:
    """The health checks of a fabric's VMs."""
    return {vm.name: vm.life.health for vm in fabric.vms if vm.life.health is not None}


async def _look(registry: Registry, fabric: Fabric, vm: str, check: HealthCheck) -> None:
    before = fabric.parts.health.states.get(vm)
    with suppress(VnetError):
        health = await fabric.parts.health.look(vm, check, fabric.parts.guests)
        if health is not None and (before is None or before.state is not health.state):
            _tell(registry, fabric.record.name, vm, health)


def _tell(registry: Registry, fabric: str, vm: str, health: Health) -> None:
    if health.state is State.HEALTHY:
        registry.events.tell(Kind.VM_HEALTHY, f"{vm} is healthy", fabric, vm)
    elif health.state is State.UNHEALTHY:
        text = f"{vm} is unhealthy: {health.text}"
        registry.events.tell(Kind.VM_UNHEALTHY, text, fabric, vm, {"why": health.text})


# ---- new starts ------------------------------------------------------------------------------


async def start_automatically(engine: Engine) -> None:
    """Start the VMs that are to run without being asked for, side by side."""
    await complete_restores(engine)
    found = [(name, vm) for name, fabric in engine.fabrics.items() for vm in sorted(fabric.automatic)]
    for failure in await asyncio.gather(
        *(engine.start_again(*each) for each in found), return_exceptions=True
    ):
        if isinstance(failure, BaseException):
            log.warning("a VM that is to be started automatically: %s", failure)


async def restart_ended(engine: Engine) -> None:
    """For ever: start VMs again that have ended and whose policy says so, side by side.

    Who was stopped or removed in between is counted from the beginning.
    """
    await start_automatically(engine)
    looks: dict[tuple[str, str], asyncio.Task[Tries]] = {}
    async with asyncio.TaskGroup() as tasks:
        while True:
            await asyncio.sleep(RESTART_LOOK_S)
            looked_after = set()
            for fabric in engine.fabrics.values():
                for vm in _restarted(fabric):
                    key = fabric.record.name, vm.name
                    looked_after.add(key)
                    last = looks.get(key)
                    if last is None or last.done():
                        tries = last.result() if last else Tries()
                        looks[key] = tasks.create_task(_try(engine, fabric, vm, tries))
            looks = {key: look for key, look in looks.items() if key in looked_after}


async def _try(engine: Engine, fabric: Fabric, vm: Vm, tries: Tries) -> Tries:
    try:
        return await _turn(engine, fabric, vm, tries)
    except Exception:  # a bug met with one VM must not leave the others alone
        log.exception("cannot restart %s of %s", vm.name, fabric.record.name)
        return tries


def _restarted(fabric: Fabric) -> list[Vm]:
    """Those that are to run and are looked after."""
    busy = fabric.record.stopped | {guest.name for guest in fabric.starting}
    return [vm for vm in fabric.vms if vm.name not in busy]


async def _turn(engine: Engine, fabric: Fabric, vm: Vm, tries: Tries) -> Tries:
    """Look once at one VM."""
    policy, status = vm.life.restart, await fabric.parts.guests.status(vm.name)
    if status.state in ALIVE:
        return restart.seen_running(tries, status.uptime_s)
    if not restart.wants(policy, status.state) or restart.is_exhausted(policy, tries):
        return tries
    tries = restart.seen_ended(tries, time.monotonic())
    if time.monotonic() < tries.due_s:
        return tries
    name = fabric.record.name
    try:
        if not await engine.start_again(name, vm.name):
            return Tries()
        text = f"{vm.name} had ended and was started again"
        engine.events.tell(Kind.VM_RESTARTED, text, name, vm.name, {"tries": tries.made + 1})
    except VnetError as error:
        log.warning("%s of %s ended and cannot be started again: %s", vm.name, name, error)
    return restart.started(tries)
