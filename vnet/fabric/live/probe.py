"""Sends the probes: the scripts of `vnet.fabric.probe` in the guests, round by round."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from vnet.base.errors import HostError
from vnet.fabric import probe
from vnet.fabric.live.parts import Guests
from vnet.fabric.probe import Attempt
from vnet.hv.spec import GuestState

SCRIPT_TIMEOUT_S = 120.0


async def run(tries: Sequence[Attempt], guests: Guests) -> Mapping[Attempt, bool]:
    """Try every connection from inside the guests; says which ones got through.

    Raises: HostError when a guest that is needed does not run.
    """
    await _all_run(tries, guests)
    try:
        await _everywhere(probe.listeners(tries), guests)
        outputs = await _everywhere(probe.clients(tries), guests)
    finally:
        heard = await _everywhere(probe.collectors(tries), guests)
    return probe.passed(tries, outputs, heard)


async def _all_run(tries: Sequence[Attempt], guests: Guests) -> None:
    needed = sorted({vm for one in tries for vm in (one.source_vm, one.target_vm)})
    down = [vm for vm in needed if (await guests.status(vm)).state is not GuestState.RUNNING]
    if down:
        raise HostError(f"cannot probe: {', '.join(down)} not running; start with `vnet start` or `vnet up`")


async def _everywhere(scripts: Mapping[str, str], guests: Guests) -> Mapping[str, str]:
    """What each guest's script printed."""

    async def one(vm: str, script: str) -> str:
        result = await guests.exec(vm, ("sh", "-c", script), SCRIPT_TIMEOUT_S)
        return result.stdout.decode(errors="replace")

    texts = await asyncio.gather(*(one(vm, script) for vm, script in scripts.items()))
    return dict(zip(scripts, texts, strict=True))
