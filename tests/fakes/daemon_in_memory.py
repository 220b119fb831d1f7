"""`python -m tests.fakes.daemon_in_memory DIRECTORY`: vnetd on a host in memory, to try the command line."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from tests.unit.fabric.fakes import World, make_engine
from vnet.api.daemon import _serve
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.host import uptime_s
from vnet.fabric.live.service import Service


async def main(directory: Path) -> None:
    """Serve the socket that the environment names, until told to end."""
    engine = make_engine(World(), directory)
    engine.host = replace(engine.host, uptime_s=uptime_s)
    engine.events = EventLog(directory / "events")
    await _serve(Service(engine), auto=False)
    await engine.close()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
