"""Sends the probes: the scripts of `vnet.fabric.probe` in the guests, round by round."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence

from vnet.base.errors import HostError
from vnet.fabric import probe
from vnet.fabric.live.parts import Guests
from vnet.fabric.probe import Attempt
from vnet.hv.spec import GuestState

SCRIPT_TIMEOUT_S = 120.0
MORE_ROUNDS = 2


async def run(
    tries: Sequence[Attempt], promised: Collection[Attempt], guests: Guests
) -> Mapping[Attempt, bool]:
    """Try every connection from inside the guests; says which ones got through.

    What was `promised` and did not get through is tried again: on a busy host a guest may be too slow
    to listen or to answer in time, and a lost packet is no broken promise. One that never gets
    through is. What gets through once has got through.

    Raises: HostError when a guest that is needed does not run.
    """
    await _all_run(tries, guests)
    through = dict(await _round(tries, guests))
    for _ in range(MORE_ROUNDS):
        again = [one for one in tries if one in promised and not through[one]]
        if again:
            through |= await _round(again, guests)
    return through


async def _round(tries: Sequence[Attempt], guests: Guests) -> Mapping[Attempt, bool]:
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
