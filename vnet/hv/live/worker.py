"""QEMUs without a machine, each for one operation on disks: started, ended, swept up after a dead daemon."""

from __future__ import annotations

import asyncio
import contextlib
import uuid as uuids
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, PeerError, VnetError
from vnet.hv.live.cgroup import Cgroup
from vnet.hv.live.process import Process, find, launch
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.users import claim_dir, release
from vnet.hv.monitor import QUIT
from vnet.hv.worker import command_line

_GREET_TIMEOUT_S = 30.0
_END_TIMEOUT_S = 10.0
_LOG = "qemu.log"


@dataclass(frozen=True, slots=True)
class Worker:
    """One that runs."""

    monitor: Monitor
    process: Process


@contextlib.asynccontextmanager
async def working(file_bytes: int) -> AsyncIterator[Worker]:
    """One, ended whatever happens. `file_bytes` is how long it may make a file."""
    uuid = str(uuids.uuid4())
    folder = paths.workers_run_dir() / uuid
    user = await asyncio.to_thread(claim_dir, folder)
    process: Process | None = None
    try:
        words = command_line(uuid, str(folder))
        log, group = folder / _LOG, Cgroup(())
        process = await asyncio.to_thread(
            launch, words, user=user, groups=(), fds=(), log=log, cgroup=group, file_bytes=file_bytes
        )
        monitor = await _connected(folder, process)
        try:
            yield Worker(monitor, process)
        finally:
            await asyncio.shield(_quit(monitor, process))
    finally:
        await asyncio.shield(_end(folder, process))


async def _connected(folder: Path, process: Process) -> Monitor:
    try:
        return await Monitor.connect(folder / "qmp.sock", alive=process.alive, timeout_s=_GREET_TIMEOUT_S)
    except PeerError as error:
        said = (folder / _LOG).read_text(errors="replace")[-2000:].strip()
        raise HostError(f"a QEMU to copy disks did not start: {said or error}") from error


async def _quit(monitor: Monitor, process: Process) -> None:
    """Let it end well: what it has counted is written to the disks then."""
    with contextlib.suppress(VnetError):
        await monitor.execute(QUIT)
    await process.wait(_END_TIMEOUT_S)
    await monitor.close()


async def _end(folder: Path, process: Process | None) -> None:
    if process is not None:
        process.kill()
        await process.wait(_END_TIMEOUT_S)
        process.close()
    release(folder)


async def sweep() -> None:
    """End those of a daemon that died; nobody hears them any more."""
    for folder in paths.workers_run_dir().glob("*/"):
        user = folder.stat().st_uid
        process = find(folder / "pid", user=user)
        if process is not None:
            with contextlib.suppress(VnetError):
                await _quit(await _connected(folder, process), process)
        await _end(folder, process)
