"""The history's file, used by a thread of its own: what cannot be kept is told, and stops nobody."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from vnet.base.errors import InputError
from vnet.fabric.events import Kind
from vnet.fabric.live.history_file import HistoryDamaged, HistoryFile, HistoryStopped

T = TypeVar("T")
log = logging.getLogger(__name__)

LIMIT_MIB = 64
RETRY_S = 30.0
"""After which writing is tried again that was refused."""

Tell = Callable[[Kind, str, Mapping[str, str]], None]


def tell_nobody(kind: Kind, text: str, fields: Mapping[str, str]) -> None:
    """Nobody wants to hear of events."""


def limit_bytes() -> int:
    """What the history may take on disk: VNET_HISTORY_MIB, 0 for none. Raises InputError."""
    text = os.environ.get("VNET_HISTORY_MIB", str(LIMIT_MIB))
    if not text.isdecimal():
        raise InputError(f"VNET_HISTORY_MIB={text}: write a number of MiB, 0 for no history")
    return int(text) << 20


class History:
    """The file and its thread. Writing never raises: what cannot be kept is told by `trouble`."""

    def __init__(self, path: Path, size_bytes: int, tell: Tell = tell_nobody) -> None:
        self.path, self.limit_bytes, self._tell = path, size_bytes, tell
        self.trouble = "" if size_bytes else "history is off (VNET_HISTORY_MIB=0)"
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="history")
        self._file: HistoryFile | None = None
        self._stopped_ns = 0
        self._retry_s = 0.0

    @property
    def is_on(self) -> bool:
        """Whether anything is to be kept at all."""
        return bool(self.limit_bytes)

    @property
    def stopped(self) -> str:
        """Why nothing is kept that should be; empty if all is well."""
        return self.trouble if self.is_on else ""

    async def ask(self, call: Callable[[HistoryFile], T]) -> T:
        """Use the file, in turn with all others. Raises HistoryStopped."""
        if not self.is_on:
            raise HistoryStopped(self.trouble)
        return await asyncio.get_running_loop().run_in_executor(self._worker, self._use, call)

    def _use(self, call: Callable[[HistoryFile], T]) -> T:
        try:
            return call(self._opened())
        except HistoryDamaged as error:
            log.warning("%s; it is put aside, history begins anew", error)
            file, self._file = self._opened(), None
            file.give_up()
            return call(self._opened())

    def _opened(self) -> HistoryFile:
        if self._file is None:
            self._file = HistoryFile(self.path, self.limit_bytes)
        return self._file

    async def keep(self, call: Callable[[HistoryFile], None]) -> bool:
        """Write; whether that was done. What is refused is not tried again: `trouble` says so, and a gap."""
        if not self.is_on or (self.trouble and time.monotonic() < self._retry_s):
            return False
        try:
            if self.trouble:
                since_ns, why = self._stopped_ns, self.trouble
                await self.ask(lambda file: file.miss("", since_ns, time.time_ns(), why))
                log.warning("history is kept again")
                self._tell(Kind.HISTORY_GOES_ON, "history is kept again", {"why": why})
                self.trouble = ""
            await self.ask(call)
        except HistoryStopped as error:
            if not self.trouble:
                self._stopped_ns = time.time_ns()
                text = f"{error}; history stops, nothing else does"
                log.warning("%s", text)
                self._tell(Kind.HISTORY_STOPPED, text, {"why": str(error)})
            self.trouble, self._retry_s = str(error), time.monotonic() + RETRY_S
            return False
        return True

    async def close(self) -> None:
        """Finish what is being written, and let go of the file."""

        def end() -> None:
            if self._file is not None:
                self._file.close()

        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._worker, end)
        self._worker.shutdown()
