"""`python -m tests.net.recovery_child DIRECTORY [FILE]`: a daemon without guests, to be killed.

It takes over what is there, or brings up what FILE declares, says so, and tends it until it is ended.
With FILE `-`, it takes the fabric down again and leaves.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests.unit.fabric.fakes import FakeGuests, World
from vnet.base import paths
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.host import uptime_s
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.rule_log import RuleLog
from vnet.fabric.live.services import HostServices
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.live.tending import tend
from vnet.fabric.live.wiring import tidy
from vnet.fabric.progress import silent
from vnet.fabric.store import Source


def make_engine(directory: Path) -> Engine:
    world = World()

    def parts(fabric: str) -> Parts:
        log, name = RuleLog(paths.log_dir(fabric)), paths.netns(fabric)
        switch, services = HostSwitch(fabric, log.see), HostServices(fabric, name)
        return Parts(HostNetwork(name), switch, FakeGuests(world, fabric), log, services)

    clock: Callable[[], datetime] = partial(datetime.now, UTC)
    here = Host(lambda: None, lambda: 8 << 30, lambda: "boot", tidy, clock, uptime_s)
    return Engine(SqliteStore(directory / "state" / "vnet.db"), parts, here, lambda declared: ())


async def main(directory: Path, file: str = "") -> None:
    engine = make_engine(directory)
    await engine.adopt()
    if file == "-":
        for name in tuple(engine.fabrics):
            await engine.down(name, silent)
        await engine.close()
        return
    if file:
        await engine.up(Source(file, Path(file).read_text()), silent)
    assert all(not fabric.trouble for fabric in engine.fabrics.values())
    print("ready", flush=True)
    await tend(engine)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
