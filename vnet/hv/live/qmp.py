"""A connection to QEMU's monitor: commands in order, the few events that matter, plain errors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError

from vnet.base.errors import HostError, PeerError
from vnet.hv.faults import DiskFault
from vnet.hv.monitor import Command, MonitorEvent, parse_event

logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)  # an ended QEMU is no news to be logged there

_RETRY_S = 0.01
_GREETING_S = 5.0
"""Once a QEMU under load said nothing for 30 s to who had connected while it was starting."""
_POLL_S = 0.005
_COMMAND_TIMEOUT_S = 30.0


class Monitor:
    """One client of one QMP socket."""

    def __init__(self, client: QMPClient, on_event: Callable[[MonitorEvent | DiskFault], None]) -> None:
        self._client = client
        self._on_event = on_event
        self._lock = asyncio.Lock()
        self._listener = EventListener()
        client.register_listener(self._listener)
        self._reader = asyncio.create_task(self._read_events())

    @classmethod
    async def connect(
        cls,
        path: Path,
        *,
        alive: Callable[[], bool],
        timeout_s: float,
        on_event: Callable[[MonitorEvent | DiskFault], None] = lambda event: None,
    ) -> Monitor:
        """Waits until QEMU listens and has greeted us. One that says nothing is asked again.

        Args:
            path: the socket.
            alive: whether QEMU still runs; if not, waiting is over.
            timeout_s: how long to wait in all.
            on_event: called from the event loop.

        Raises:
            PeerError: QEMU ended, or did not greet in time.
        """
        now_s = asyncio.get_running_loop().time
        deadline = now_s() + timeout_s
        while True:
            client = QMPClient("vnet")
            try:
                async with asyncio.timeout_at(min(deadline, now_s() + _GREETING_S)):
                    await client.connect(str(path))
                return cls(client, on_event)
            except TimeoutError as error:
                if not alive() or now_s() > deadline:
                    raise PeerError(f"QEMU did not greet on {path} within {timeout_s:.0f} s") from error
            except (QMPError, OSError) as error:
                if not alive() or now_s() > deadline:
                    raise PeerError(f"QEMU's monitor {path} cannot be reached: {error}") from error
            await asyncio.sleep(_RETRY_S)

    async def execute(self, command: Command) -> object:
        """Sends one command and returns QEMU's answer.

        Raises:
            HostError: QEMU refused the command.
            PeerError: the connection ended or QEMU does not answer.
        """
        async with self._lock:
            try:
                async with asyncio.timeout(_COMMAND_TIMEOUT_S):
                    if command.fd is not None:
                        self._client.send_fd_scm(command.fd)
                    return await self._client.execute(command.name, dict(command.arguments))
            except ExecuteError as error:
                raise HostError(f"QEMU refused {_shown(command)}: {error}") from error
            except TimeoutError as error:
                raise PeerError(f"QEMU did not answer {_shown(command)}") from error
            except (QMPError, OSError, AssertionError) as error:
                raise PeerError(f"QEMU went away during {_shown(command)}: {error}") from error

    async def execute_all(self, commands: Iterable[Command]) -> None:
        """Sends commands one after the other, until one is refused."""
        for command in commands:
            await self.execute(command)

    async def poll(self, command: Command, done: Callable[[object], bool]) -> object:
        """Asks again and again until the answer is `done`; how long is up to the caller."""
        while not done(answer := await self.execute(command)):  # noqa: ASYNC110 (QEMU tells no one)
            await asyncio.sleep(_POLL_S)
        return answer

    async def close(self) -> None:
        """Leaves; QEMU goes on. An end that QEMU was first with is no error."""
        self._reader.cancel()
        with contextlib.suppress(QMPError, OSError, EOFError):
            await self._client.disconnect()
        with contextlib.suppress(asyncio.CancelledError):
            await self._reader

    async def _read_events(self) -> None:
        async for message in self._listener:
            event = parse_event(message)
            if event is not None:
                self._on_event(event)


def _shown(command: Command) -> str:
    arguments: Mapping[str, object] = {} if command.is_secret else command.arguments
    return f"`{command.name}`" + (f" {dict(arguments)}" if arguments else "")
