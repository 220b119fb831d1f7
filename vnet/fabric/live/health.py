"""The health of one fabric's VMs, asked of the guests."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Protocol

from vnet.base.errors import HostError, VnetError
from vnet.fabric.health import Health, State, begun, looked
from vnet.hv.spec import ExecResult, GuestState, GuestStatus
from vnet.topology.life import HealthCheck

LOOK_S = 0.25
TEXT_MAX = 500


class Guests(Protocol):
    """What is asked of guests; see `vnet.fabric.live.parts.Guests`."""

    async def status(self, name: str) -> GuestStatus: ...

    async def exec(
        self, name: str, argv: tuple[str, ...], timeout_s: float, stdin: bytes = b""
    ) -> ExecResult: ...


class Healths:
    """The health of one fabric's VMs, by name; of those only that have a check and run."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, Health]] = {}
        """With the process whose health it is: a VM that was started again begins anew."""
        self._looking: set[str] = set()

    @property
    def states(self) -> Mapping[str, Health]:
        """What is known."""
        return {name: health for name, (_, health) in self._known.items()}

    async def look(self, vm: str, check: HealthCheck, guests: Guests) -> Health | None:
        """The health of a VM, looked at anew if it is due; None of one that does not run."""
        status = await guests.status(vm)
        if status.state is not GuestState.RUNNING:
            self._known.pop(vm, None)
            return None
        pid, health = self._known.get(vm, (0, begun(time.monotonic())))
        if pid != status.pid:
            health = begun(time.monotonic())
        self._known[vm] = status.pid, health
        if health.due_s > time.monotonic() or vm in self._looking:
            return health
        self._looking.add(vm)
        try:
            fault = await _fault(vm, check, guests)
        finally:
            self._looking.discard(vm)
        health = looked(health, check, fault, time.monotonic())
        self._known[vm] = status.pid, health
        return health

    async def until_healthy(self, vm: str, check: HealthCheck, guests: Guests) -> None:
        """Waits. Raises HostError when the VM is unhealthy or has ended."""
        while True:
            health = await self.look(vm, check, guests)
            if health is None:
                raise HostError(f"{vm} has ended before it was healthy")
            if health.state is State.HEALTHY:
                return
            if health.state is State.UNHEALTHY:
                raise HostError(
                    f"{vm} is unhealthy: {health.text}; with `condition: started` in `depends_on` nobody"
                    " waits for that, and it stays to be looked at"
                )
            await asyncio.sleep(LOOK_S)


async def _fault(vm: str, check: HealthCheck, guests: Guests) -> str:
    """Why a check failed; empty when it succeeded."""
    try:
        done = await guests.exec(vm, check.argv, check.timeout_s)
    except VnetError as error:
        return str(error)[:TEXT_MAX]
    if done.exit_code == 0:
        return ""
    said = (done.stdout + done.stderr).decode(errors="replace").strip()
    return f"its check ended with {done.exit_code}{f': {said[-TEXT_MAX:]}' if said else ''}"
