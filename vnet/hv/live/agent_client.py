"""The host's end of the agent in a guest: any number of commands at a time over one socket."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from pathlib import Path

from vnet.base.errors import PeerError, TimedOut
from vnet.hv import agent
from vnet.hv.live.agent_connection import (
    PATIENCE_S,
    AgentConnection,
    open_socket,
    took_too_long,
    until_answered,
)
from vnet.hv.spec import ExecResult

_FLUSH_AFTER = 4
"""So many unanswered signs before we assume that the guest still reads an older client's input."""
_KILL_GRACE_S = 3.0


class AgentClient(AgentConnection):
    """Speaks with vnet's own agent.

    Args:
        reader: of the socket.
        writer: of the socket.
        fresh: nobody has spoken to this guest before, so there is nothing to flush out of it.
    """

    sync_every_s = 0.25

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, fresh: bool) -> None:
        super().__init__(reader, writer)
        self._nonce = secrets.token_hex(8)
        self._decoder = agent.Reader(self._nonce)
        self._waiting: dict[str, asyncio.Future[ExecResult]] = {}
        self._fresh, self._asked, self._sent = fresh, 0, 0
        self._sending = asyncio.Lock()

    @classmethod
    async def connect(cls, path: Path, *, timeout_s: float, fresh: bool = False) -> AgentClient:
        """Connects and waits until the guest answers.

        Raises:
            PeerError: the socket cannot be reached or ended.
            TimedOut: the guest did not answer in time.
        """

        async def begin() -> AgentClient:
            return cls(*await open_socket(path), fresh=fresh)

        return await until_answered(begin, timeout_s, timeout_s if fresh else PATIENCE_S)

    async def run(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> ExecResult:
        """See `AgentConnection.run`; this agent refuses nothing."""
        self._sent += 1
        command_id = f"{self._nonce}-{self._sent}"
        answer: asyncio.Future[ExecResult] = asyncio.get_running_loop().create_future()
        self._waiting[command_id] = answer
        try:
            async with asyncio.timeout(timeout_s):
                await self._send_run(command_id, argv, stdin)
                return await asyncio.shield(answer)  # its end is waited for even after the time is over
        except TimeoutError as error:
            done = await self._end(command_id, answer)
            raise TimedOut(took_too_long(argv, timeout_s, done)) from error
        except asyncio.CancelledError:
            with contextlib.suppress(PeerError):
                self._write(agent.encode_kill(command_id))
            raise
        finally:
            del self._waiting[command_id]

    async def _send_run(self, command_id: str, argv: list[str], stdin: bytes) -> None:
        """Whole messages only, one after the other."""
        async with self._sending:
            for piece in agent.encode_run(command_id, argv, stdin):
                self._write(piece)
                await self._drain()

    async def _end(self, command_id: str, answer: asyncio.Future[ExecResult]) -> ExecResult | None:
        """Ends a command that takes too long; None if the agent does not say that it has ended."""
        with contextlib.suppress(PeerError):
            self._write(agent.encode_kill(command_id))
        try:
            async with asyncio.timeout(_KILL_GRACE_S):
                return await asyncio.shield(answer)
        except (PeerError, TimeoutError):
            return None

    def _ask_for_sign(self) -> None:
        flush = self._asked == _FLUSH_AFTER and not self._fresh
        self._write(agent.encode_sync(self._nonce, flush=flush))
        self._asked += 1

    def _feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, agent.Synced):
                self._synced.set()
                continue
            waiting = self._waiting.get(event.id)
            if waiting and not waiting.done():
                waiting.set_result(ExecResult(event.exit_code, event.stdout, event.stderr))

    def _fail_all(self, error: PeerError) -> None:
        for waiting in self._waiting.values():
            if not waiting.done():
                waiting.set_exception(error)
