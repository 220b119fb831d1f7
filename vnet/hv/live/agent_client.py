"""The host's end of the agent in a guest: any number of commands at a time over one socket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path

from vnet.base.errors import PeerError, TimedOut
from vnet.hv import agent
from vnet.hv.spec import ExecResult

_SYNC_EVERY_S = 0.25
_FLUSH_AFTER = 4
"""So many unanswered signs before we assume that the guest still reads an older client's input."""
_KILL_GRACE_S = 3.0
_READ_BYTES = 1 << 16


class AgentClient:
    """A synchronised connection. When it breaks, all waiting commands fail with `PeerError`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._nonce = secrets.token_hex(8)
        self._reader, self._writer = reader, writer
        self._decoder = agent.Reader(self._nonce)
        self._synced = asyncio.Event()
        self._waiting: dict[str, asyncio.Future[agent.Done]] = {}
        self._sent = 0
        self._sending = asyncio.Lock()
        self._failure = ""
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path, *, timeout_s: float, fresh: bool = False) -> AgentClient:
        """Connects and waits until the guest answers.

        Args:
            path: the socket.
            timeout_s: how long to wait.
            fresh: nobody has spoken to this guest before, so there is nothing to flush out of it.

        Raises:
            PeerError: the socket cannot be reached or ended.
            TimedOut: the guest did not answer in time.
        """
        try:
            reader, writer = await asyncio.open_unix_connection(str(path))
        except OSError as error:
            raise PeerError(f"the agent's socket {path} cannot be reached: {error}") from error
        client = cls(reader, writer)
        try:
            await client._sync(timeout_s, fresh)
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def connected(self) -> bool:
        """Whether the guest has answered and the connection stands."""
        return self._synced.is_set() and not self._task.done()

    async def run(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest and waits for its end.

        Raises:
            PeerError: the connection broke.
            TimedOut: the command was ended after `timeout_s`, or the guest does not answer.
        """
        self._sent += 1
        command_id = f"{self._nonce}-{self._sent}"
        answer: asyncio.Future[agent.Done] = asyncio.get_running_loop().create_future()
        self._waiting[command_id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_run(command_id, argv, stdin)
                done = await asyncio.shield(answer)  # its end is waited for even after the time is over
        except TimeoutError as error:
            raise TimedOut(await self._end(command_id, answer, argv, timeout_s)) from error
        except asyncio.CancelledError:
            with contextlib.suppress(PeerError):
                self._write(agent.encode_kill(command_id))
            raise
        finally:
            del self._waiting[command_id]
        return ExecResult(done.exit_code, done.stdout, done.stderr)

    async def close(self) -> None:
        """Leaves; what runs in the guest goes on."""
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    async def _send_run(self, command_id: str, argv: list[str], stdin: bytes) -> None:
        """Whole messages only, one after the other; waits while the guest reads slower than we write."""
        async with self._sending:
            for piece in agent.encode_run(command_id, argv, stdin):
                self._write(piece)
                with contextlib.suppress(OSError):
                    await self._writer.drain()

    async def _end(
        self, command_id: str, answer: asyncio.Future[agent.Done], argv: list[str], timeout_s: float
    ) -> str:
        """Ends a command that takes too long; returns the text for the error."""
        with contextlib.suppress(PeerError):
            self._write(agent.encode_kill(command_id))
        text = f"`{' '.join(argv)}` did not end within {timeout_s:g} s"
        done, _ = await asyncio.wait([answer], timeout=_KILL_GRACE_S)
        if not done:
            return f"{text}, and the guest's agent does not answer"
        if answer.cancelled() or answer.exception():
            return text
        printed = (answer.result().stdout + answer.result().stderr)[-500:].decode(errors="replace").strip()
        return f"{text}; it was ended. Its last output:\n{printed}" if printed else f"{text}; it was ended"

    async def _sync(self, timeout_s: float, fresh: bool) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        tries = 0
        while not self._synced.is_set():
            if self._task.done():
                raise PeerError(self._failure or "the connection to the guest's agent ended")
            if asyncio.get_running_loop().time() > deadline:
                raise TimedOut(f"the guest's agent did not answer within {timeout_s:g} s")
            self._write(agent.encode_sync(self._nonce, flush=tries == _FLUSH_AFTER and not fresh))
            tries += 1
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._synced.wait(), _SYNC_EVERY_S)

    def _write(self, data: bytes) -> None:
        if self._writer.is_closing() or self._task.done():
            raise PeerError(self._failure or "the connection to the guest's agent has ended")
        self._writer.write(data)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(_READ_BYTES):
                for event in self._decoder.feed(data):
                    self._take(event)
            self._failure = "the guest's agent is gone: QEMU closed its socket"
        except (OSError, PeerError) as error:
            self._failure = str(error)
        finally:
            self._fail_all()

    def _take(self, event: agent.Event) -> None:
        if isinstance(event, agent.Synced):
            self._synced.set()
            return
        waiting = self._waiting.get(event.id)
        if waiting and not waiting.done():
            waiting.set_result(event)

    def _fail_all(self) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(PeerError(self._failure or "the connection to the agent was closed"))
