"""The end of a guest's serial console, kept while it boots: what a boot that hangs said last."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

_TAIL_BYTES = 4096


class ConsoleTail:
    """Listens to a console until it is closed. The socket takes one client, so only during a boot."""

    def __init__(self, path: Path) -> None:
        self._tail = b""
        self._task = asyncio.create_task(self._listen(path))

    @property
    def text(self) -> str:
        """What the guest printed last."""
        return self._tail.decode(errors="replace").strip()

    async def close(self) -> None:
        """Leaves the console to the next client."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _listen(self, path: Path) -> None:
        with contextlib.suppress(OSError):
            reader, writer = await asyncio.open_unix_connection(str(path))
            try:
                while data := await reader.read(_TAIL_BYTES):
                    self._tail = (self._tail + data)[-_TAIL_BYTES:]
            finally:
                writer.close()
