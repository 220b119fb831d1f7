"""One guest being saved: its memory comes through a pipe, so that what does not fit on the disk ends the
saving and not the guest, and so that a daemon that is killed ends it too."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base.errors import HostError, TimedOut, VnetError
from vnet.hv import monitor, saving
from vnet.hv.disk import Plugged
from vnet.hv.live.qmp import Monitor
from vnet.hv.monitor import RunState
from vnet.hv.saving import Course, Stage

_POLL_S = 0.004
_BLOCK_BYTES = 1 << 20
_PIPE_BYTES = 1 << 20
_END_TIMEOUT_S = 30.0


class Sink:
    """Writes what comes out of a pipe to a file, in a thread of its own. `hold` lets the writer wait."""

    def __init__(self, file: Path) -> None:
        self.size_bytes = 0
        self.error: OSError | None = None
        self._flowing = threading.Event()
        self._flowing.set()
        self._output = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self._source, self.inlet = os.pipe2(os.O_CLOEXEC)
        _widen(self.inlet)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins; the inlet is QEMU's alone from here on."""
        os.close(self.inlet)
        self._thread.start()

    def hold(self, held: bool) -> None:
        """Lets the writer wait, or go on."""
        if held:
            self._flowing.clear()
        else:
            self._flowing.set()

    async def ended(self) -> None:
        """Waits until the writer has closed its end. Raises HostError if something was not written."""
        self.hold(False)
        await asyncio.to_thread(self._thread.join, _END_TIMEOUT_S)
        if self._thread.is_alive():
            raise TimedOut("QEMU did not end what it wrote")
        if self.error is not None:
            raise HostError(f"memory cannot be written: {self.error.strerror}{_hint(self.error)}")

    def _run(self) -> None:
        try:
            while self._flowing.wait() and (count := self._move()):
                self.size_bytes += count
        except OSError as error:
            self.error = error
        finally:
            os.close(self._source)  # QEMU, if it still writes, is told so
            os.close(self._output)

    def _move(self) -> int:
        return os.splice(self._source, self._output, _BLOCK_BYTES)


def _widen(descriptor: int) -> None:
    with suppress(OSError):  # the user's limit is reached: it is only slower
        fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


def _hint(error: OSError) -> str:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    return "; free space, for instance with `vnet snapshot prune`" if full else ""


@dataclass(slots=True)
class Saving:
    """The steps, in the order in which they are called. `undo` may come after any of them.

    `file` is where its memory goes, None for its disks only; `runs` tells whether it runs: if not, it stands
    still and will afterwards.
    """

    name: str
    qmp: Monitor
    disks: Sequence[Plugged]
    snapshot: str
    file: Path | None
    runs: bool
    live: bool
    """Whether its memory is written while it runs."""
    pause_s: float = 0.0
    _sink: Sink | None = None
    _stopped_at_s: float = 0.0

    @property
    def memory_bytes(self) -> int:
        """What its memory takes."""
        return self._sink.size_bytes if self._sink else 0

    async def copy(self, hurry: asyncio.Event | None = None) -> None:
        """Writes memory while it runs, until little is left.

        Args:
            hurry: shared by those who are saved together, and set once one of them stands still. Until then
                those who are near wait for the others, and run on.
        """
        if self.file is None or not self.live:
            return
        await self._begin(self.file)
        while not (hurry and hurry.is_set()):
            looked_at_s = time.monotonic()
            now = await self._course()
            if now.stage is Stage.READY:
                self._stopped_at_s = looked_at_s
                if hurry:
                    hurry.set()
                return
            if now.is_endless:
                return
            if hurry and now.is_near:
                self._need().hold(True)
                return
            await asyncio.sleep(_POLL_S)

    async def _begin(self, file: Path) -> None:
        self._sink = Sink(file)
        try:
            await self.qmp.execute_all(saving.begin(self._sink.inlet))
        finally:
            self._sink.start()

    async def stop(self) -> None:
        """It stands still from here on."""
        self._stopped_at_s = self._stopped_at_s or time.monotonic()
        if self.runs:
            await self.qmp.execute(monitor.STOP)

    async def take(self) -> None:
        """Keeps its disks as they are now, and writes the rest of its memory."""
        if self.file and not self._sink:
            await self._begin(self.file)
        if self._sink:
            self._sink.hold(False)
            await self._until(Stage.READY)
        await self.qmp.execute_all(saving.keep_disks(self.disks, self.snapshot))
        if self._sink:
            await self.qmp.execute(saving.SWITCH_OVER)
            await self._until(Stage.COMPLETED)

    async def _until(self, stage: Stage) -> None:
        while (await self._course()).stage is not stage:  # noqa: ASYNC110 (QEMU tells no one)
            await asyncio.sleep(_POLL_S)

    async def go_on(self) -> None:
        """It is as it was before."""
        await self.qmp.execute(monitor.CONTINUE)
        if not self.runs:
            await self.qmp.execute(monitor.STOP)  # QEMU gave its disks away; only `cont` takes them back
        self.pause_s = time.monotonic() - self._stopped_at_s

    async def ended(self) -> None:
        """All is in the file."""
        if self._sink:
            await self._sink.ended()

    async def _course(self) -> Course:
        now = saving.course(await self.qmp.execute(monitor.QUERY_MIGRATE))
        if now.stage in (Stage.FAILED, Stage.CANCELLED, Stage.CANCELLING):
            if self._sink:
                with suppress(TimedOut):
                    await self._sink.ended()
            raise HostError(f"QEMU could not save {self.name}: {now.error or now.stage.value}")
        return now

    def _need(self) -> Sink:
        assert self._sink is not None
        return self._sink

    async def undo(self) -> None:
        """It goes on, and nothing of it was kept. What is no longer there needs no undoing."""
        if self._sink:
            self._sink.hold(False)
        with suppress(VnetError):
            await clear(self.qmp, self.disks, self.snapshot, runs=self.runs)
        if self._sink:
            with suppress(VnetError):
                await self._sink.ended()


async def _cancelled(qmp: Monitor) -> None:
    while not (now := saving.course(await qmp.execute(monitor.QUERY_MIGRATE))).has_ended:
        if now.stage is Stage.CANCELLING:
            with suppress(HostError):  # it has ended by now
                await qmp.execute(saving.WAKE_CANCELLED)
        await asyncio.sleep(_POLL_S)


async def clear(qmp: Monitor, disks: Sequence[Plugged], snapshot: str, *, runs: bool) -> None:
    """Breaks off a saving, forgets what it kept of the disks, and lets the guest go on if it ran before."""
    await qmp.execute(saving.CANCEL)
    with suppress(HostError):  # it has it no more
        await qmp.execute(saving.CLOSE)
    try:
        async with asyncio.timeout(_END_TIMEOUT_S):
            await _cancelled(qmp)
    except TimeoutError as error:
        raise TimedOut("QEMU does not break off what it saves") from error
    state = monitor.parse_status(await qmp.execute(monitor.QUERY_STATUS))
    if state is RunState.SAVED or (runs and state is not RunState.RUNNING):
        await qmp.execute(monitor.CONTINUE)
        if not runs:
            await qmp.execute(monitor.STOP)
    for disk in disks:
        with suppress(HostError):  # it had not been kept yet
            await qmp.execute(saving.drop_disk(disk, snapshot))
