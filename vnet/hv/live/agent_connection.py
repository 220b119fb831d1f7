"""What the connections to both kinds of agent have in common: a socket that is read until it breaks."""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from vnet.base.errors import PeerError, TimedOut
from vnet.hv.spec import ExecResult

_READ_BYTES = 1 << 16
PATIENCE_S = 3.0
"""How long a guest may leave the first connection unanswered before there is another."""

C = TypeVar("C", bound="AgentConnection")


class AgentConnection(ABC):
    """A synchronised connection. When it breaks, all waiting commands fail with `PeerError`."""

    sync_every_s: float
    """So often the agent is asked for the sign that it reads, until it gives it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._synced = asyncio.Event()
        self._failure = ""
        self._task = asyncio.create_task(self._read())

    @property
    def connected(self) -> bool:
        """Whether the guest has answered and the connection stands."""
        return self._synced.is_set() and not self._task.done() and not self._failure

    @abstractmethod
    async def run(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest and waits for its end.

        Raises:
            HostError: the agent refuses to run commands.
            PeerError: the connection broke.
            TimedOut: the command was ended after `timeout_s`, or the guest does not answer.
        """

    async def close(self) -> None:
        """Leaves; what runs in the guest goes on."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    # ---- for those who know the agent's language ---------------------------------------------

    @abstractmethod
    def _ask_for_sign(self) -> None:
        """Asks for the sign that the agent reads, if that is of any use by now."""

    @abstractmethod
    def _feed(self, data: bytes) -> None:
        """Takes what the agent has sent."""

    @abstractmethod
    def _fail_all(self, error: PeerError) -> None:
        """Whoever waits for an answer gets none."""

    async def answers(self, timeout_s: float) -> bool:
        """Whether the guest answers in time; if not the connection is closed.

        Raises:
            PeerError: the connection ended.
        """
        try:
            await self._sync(timeout_s)
        finally:
            if not self.connected:
                await self.close()
        return self.connected

    async def _sync(self, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._synced.is_set():
            if self._task.done():
                raise PeerError(self._failure)
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                return
            self._ask_for_sign()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(self.sync_every_s, left_s)):
                    await self._synced.wait()

    def _write(self, data: bytes) -> None:
        if self._writer.is_closing() or self._failure:
            raise PeerError(self._failure or "the connection to the guest's agent has ended")
        self._writer.write(data)

    async def _drain(self) -> None:
        """Waits while the guest reads slower than we write."""
        with contextlib.suppress(OSError):
            await self._writer.drain()

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(_READ_BYTES):
                self._feed(data)
            self._give_up("the guest's agent is gone: QEMU closed its socket")
        except OSError as error:
            self._give_up(f"the guest's agent is gone: {error.strerror or error}")
        except PeerError as error:
            self._give_up(str(error))
        finally:
            self._give_up("the connection to the agent was closed")

    def _give_up(self, why: str) -> None:
        """It is of no use any more; the first reason counts."""
        self._failure = self._failure or why
        self._fail_all(PeerError(self._failure))


async def until_answered(
    begin: Callable[[], Awaitable[C]], timeout_s: float, patience_s: float = PATIENCE_S
) -> C:
    """A connection that the guest answers; one that it does not is followed by another, with more patience.

    A guest that stood still when its last client went may hear nothing of the next one, until that goes too
    and its port tells it so (seen with QEMU 7.2 and Linux 6.1, one time in fifteen).

    Raises:
        PeerError: the socket cannot be reached or ended.
        TimedOut: the guest did not answer in time.
    """
    clock = asyncio.get_running_loop().time
    ends_s = clock() + timeout_s
    while (left_s := ends_s - clock()) > 0:
        connection = await begin()
        if await connection.answers(min(patience_s, left_s)):
            return connection
        patience_s *= 2
    raise TimedOut(f"the guest's agent did not answer within {timeout_s:g} s")


async def open_socket(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """An agent's socket. Raises PeerError if it cannot be reached."""
    try:
        return await asyncio.open_unix_connection(str(path))
    except OSError as error:
        raise PeerError(f"the agent's socket {path} cannot be reached: {error}") from error


def took_too_long(argv: list[str], timeout_s: float, done: ExecResult | None) -> str:
    """What is said of a command that did not end in time; `done` is how it was ended, if it was."""
    text = f"`{' '.join(argv)}` did not end within {timeout_s:g} s"
    if done is None:
        return f"{text}, and the guest's agent does not answer"
    printed = (done.stdout + done.stderr)[-500:].decode(errors="replace").strip()
    return f"{text}; it was ended. Its last output:\n{printed}" if printed else f"{text}; it was ended"
