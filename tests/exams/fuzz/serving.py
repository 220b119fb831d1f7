"""A switch on a unix socket, in a thread, whose complaints are heard."""

from __future__ import annotations

import asyncio
import logging
import tempfile
import threading
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self, TypeVar

from vnet.switch.datapath import Datapath
from vnet.switch.live.server import SwitchServer

T = TypeVar("T")
PATIENCE_S = 10.0


class Serving:
    """Use as a context; the datapath stays the caller's."""

    def __init__(self, datapath: Datapath) -> None:
        self.datapath = datapath
        self.complaints: list[str] = []
        """What was logged as an error, or ended a task: a bug, as nothing here may break."""
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="vnet-fuzz-"))
            self.path = Path(folder) / "switch.sock"
            self._listen_for_complaints()
            self._loop = asyncio.new_event_loop()
            stack.callback(self._loop.close)
            self._loop.set_exception_handler(lambda _, context: self.complaints.append(str(context)))
            thread = threading.Thread(target=self._loop.run_forever)
            thread.start()
            stack.callback(thread.join, PATIENCE_S)
            stack.callback(self._loop.call_soon_threadsafe, self._loop.stop)
            self.server = SwitchServer(self.datapath, "fuzz", 0x42)
            stack.callback(lambda: self.run(self.server.stop()))
            self.run(self.server.start(self.path))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE_S)

    def _listen_for_complaints(self) -> None:
        handler = _Handler(self.complaints)
        for name in ("vnet", "asyncio"):
            logger = logging.getLogger(name)
            logger.addHandler(handler)
            self._stack.callback(logger.removeHandler, handler)


class _Handler(logging.Handler):
    """Keeps errors, with their tracebacks."""

    def __init__(self, complaints: list[str]) -> None:
        super().__init__(logging.ERROR)
        self._complaints = complaints
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self._complaints.append(self.format(record))
