"""The host's end of QEMU's guest agent: one command at a time over one socket, any number of them running."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from vnet.base.errors import HostError, PeerError, TimedOut, VnetError
from vnet.hv import guest_agent
from vnet.hv.guest_agent import Answer, Heard, Synced
from vnet.hv.live.agent_connection import AgentConnection, open_socket, took_too_long, until_answered
from vnet.hv.spec import ExecResult

_ANSWER_TIMEOUT_S = 30.0
"""An agent that is silent for so long is taken for gone; its socket is connected anew."""
_KILL_GRACE_S = 3.0
_SLOWEST_BPS = 100_000
"""Bytes a second that a guest takes of a command's input, at least."""
_POLL_SHARE, _POLL_LEAST_S, _POLL_MOST_S = 0.2, 0.01, 2.0
"""How long a command has taken says how soon it is asked for: agents write each question into their log."""


class GuestAgentClient(AgentConnection):
    """Speaks with QEMU's guest agent, which distributions bring."""

    sync_every_s = 1.0

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(reader, writer)
        self._decoder = guest_agent.Reader(secrets.randbelow(1 << 30))
        self._heard = False
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[Answer] | None = None
        self._background: set[asyncio.Future[object]] = set()

    @classmethod
    async def connect(cls, path: Path, *, timeout_s: float) -> GuestAgentClient:
        """Connects and waits until the guest answers.

        Raises:
            PeerError: the socket cannot be reached or ended.
            TimedOut: the guest did not answer in time.
        """

        async def begin() -> GuestAgentClient:
            return cls(*await open_socket(path))

        return await until_answered(begin, timeout_s)

    async def close(self) -> None:
        """Leaves; what runs in the guest goes on, and nobody waits for answers any more."""
        for task in self._background:
            task.cancel()
        await super().close()

    # ---- commands ----------------------------------------------------------------------------

    async def run(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> ExecResult:
        """See `AgentConnection.run`."""
        begun = asyncio.ensure_future(self._begin(argv, stdin))
        try:
            async with asyncio.timeout(timeout_s):
                pid = await asyncio.shield(begun)
                return await self._ended(pid)
        except TimeoutError as error:
            raise TimedOut(took_too_long(argv, timeout_s, await self._end(begun))) from error
        except asyncio.CancelledError:
            self._let_go(begun)
            raise

    async def _begin(self, argv: list[str], stdin: bytes) -> int:
        line = guest_agent.encode_exec(argv, stdin)
        answer = await self._ask("guest-exec", line, _ANSWER_TIMEOUT_S + len(stdin) / _SLOWEST_BPS)
        return guest_agent.parse_pid(answer)

    async def _ended(self, pid: int) -> ExecResult:
        """Waits for a command's end."""
        began_s = time.monotonic()
        while True:
            value = await self.command("guest-exec-status", {"pid": pid})
            done = guest_agent.parse_ended(value)
            if done is not None:
                return done
            waited_s = time.monotonic() - began_s
            await asyncio.sleep(min(max(waited_s * _POLL_SHARE, _POLL_LEAST_S), _POLL_MOST_S))

    async def _kill(self, pid: int) -> None:
        """Ends a command with all its children."""
        await self._ask("guest-exec", guest_agent.encode_kill(pid))

    def _let_go(self, begun: asyncio.Future[int]) -> None:
        """Nobody waits for a command any more: it is ended, also one that is only just beginning."""

        async def end() -> None:
            with contextlib.suppress(VnetError):
                await self._kill(await begun)

        self._keep(asyncio.ensure_future(end()))

    async def _end(self, begun: asyncio.Future[int]) -> ExecResult | None:
        """Ends a command that takes too long; None if the agent does not say that it has ended."""
        if not begun.done():
            self._let_go(begun)
            return None
        try:
            async with asyncio.timeout(_KILL_GRACE_S):
                await self._kill(begun.result())
                return await self._ended(begun.result())
        except (TimeoutError, TimedOut, PeerError):
            return None

    async def freeze(self, timeout_s: float = 60.0) -> int:
        """Brings file systems to a state that a copy of the disks can begin with; returns how many.

        The agent refuses most other commands until `thaw`.
        """
        return guest_agent.parse_count(await self.command("guest-fsfreeze-freeze", timeout_s=timeout_s))

    async def thaw(self, timeout_s: float = 60.0) -> int:
        """Lets file systems go on; returns how many were frozen."""
        return guest_agent.parse_count(await self.command("guest-fsfreeze-thaw", timeout_s=timeout_s))

    async def frozen(self) -> bool:
        """Whether file systems are frozen."""
        return await self.command("guest-fsfreeze-status") == "frozen"

    async def thaw_what_was_left(self) -> None:
        """A daemon that was killed may have left it frozen: it takes no commands until it is told to thaw."""
        with contextlib.suppress(HostError):  # one that knows nothing of it, or may not
            if await self.frozen():
                await self.thaw()

    def tell_time(self, time_ns: int) -> None:
        """Sets the guest's clock, behind after a pause; nobody waits for a guest that stood still."""
        self._keep(asyncio.ensure_future(self.command("guest-set-time", {"time": time_ns})))

    async def command(
        self,
        name: str,
        arguments: Mapping[str, object] | None = None,
        timeout_s: float = _ANSWER_TIMEOUT_S,
    ) -> object:
        """Any command, and its answer's value; one that is broken off meanwhile is answered all the same."""
        asked = asyncio.ensure_future(self._ask(name, guest_agent.encode(name, arguments), timeout_s))
        self._keep(asked)
        return await asyncio.shield(asked)

    # ---- the connection ----------------------------------------------------------------------

    async def _ask(self, name: str, line: bytes, timeout_s: float = _ANSWER_TIMEOUT_S) -> object:
        """Answers have no names: one command at a time, and who does not answer is not asked again."""
        async with self._turn:
            waiting: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
            self._write(line)
            self._waiting = waiting
            try:
                async with asyncio.timeout(timeout_s):
                    await self._drain()
                    answer = await waiting
            except TimeoutError as error:
                self._give_up(f"the guest's agent did not answer {name} within {timeout_s:g} s")
                raise TimedOut(self._failure) from error
            except asyncio.CancelledError:
                self._give_up("the connection to the guest's agent was broken off")
                raise
            finally:
                self._waiting = None
        return guest_agent.result(name, answer)

    def _keep(self, task: asyncio.Future[object]) -> None:
        self._background.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[object]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # who waited for it has been told

    def _ask_for_sign(self) -> None:
        if not self._heard:
            self._write(guest_agent.encode_sync(self._decoder.next_number()))

    def _feed(self, data: bytes) -> None:
        for event in self._decoder.feed(data):
            if isinstance(event, Heard):
                self._heard = True
            elif isinstance(event, Synced):
                self._synced.set()
            elif self._waiting and not self._waiting.done():
                self._waiting.set_result(event)
            else:
                raise PeerError("the guest's agent answers what nobody asked")

    def _fail_all(self, error: PeerError) -> None:
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(error)
