"""The host's end of QEMU's guest agent: one command at a time over one socket, any number of them running."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping
from pathlib import Path

from vnet.base.errors import HostError, PeerError, TimedOut
from vnet.hv import guest_agent
from vnet.hv.guest_agent import Answer, Heard, Interface, Synced
from vnet.hv.spec import ExecResult

_SYNC_EVERY_S = 1.0
_ANSWER_TIMEOUT_S = 30.0
"""An agent that is silent for so long is taken for gone; its socket is connected anew."""
_KILL_GRACE_S = 3.0
_SLOWEST_BPS = 100_000
"""Bytes a second that a guest takes of a command's input, at least."""
_POLL_SHARE, _POLL_LEAST_S, _POLL_MOST_S = 0.2, 0.01, 2.0
"""How long a command has taken says how soon it is asked for: agents write each question into their log."""
_READ_BYTES = 1 << 16


class GuestAgentClient:
    """A synchronised connection. When it breaks, all waiting commands fail with `PeerError`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._decoder = guest_agent.Reader(secrets.randbelow(1 << 30))
        self._synced = asyncio.Event()
        self._heard = asyncio.Event()
        self._turn = asyncio.Lock()
        self._waiting: asyncio.Future[Answer] | None = None
        self._failure = ""
        self._background: set[asyncio.Future[object]] = set()
        self._task = asyncio.create_task(self._read())

    @classmethod
    async def connect(cls, path: Path, *, timeout_s: float, fresh: bool = False) -> GuestAgentClient:
        """Connects and waits until the guest answers; `fresh` is as in `AgentClient`, and of no use here.

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
            await client._sync(timeout_s)
        except BaseException:
            await client.close()
            raise
        return client

    @property
    def connected(self) -> bool:
        """Whether the guest has answered and the connection stands."""
        return self._synced.is_set() and not self._task.done() and not self._failure

    async def close(self) -> None:
        """Leaves; what runs in the guest goes on."""
        self._task.cancel()
        for task in self._background:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._writer.close()
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    # ---- commands ----------------------------------------------------------------------------

    async def run(self, argv: list[str], *, stdin: bytes, timeout_s: float) -> ExecResult:
        """Runs a command in the guest and waits for its end.

        Raises:
            HostError: the agent refuses to run commands.
            PeerError: the connection broke.
            TimedOut: the command was ended after `timeout_s`, or the guest does not answer.
        """
        begun = asyncio.ensure_future(self._begin(argv, stdin))
        try:
            async with asyncio.timeout(timeout_s):
                pid = await asyncio.shield(begun)
                return await self.ended(pid)
        except TimeoutError as error:
            raise TimedOut(await self._end(begun, argv, timeout_s)) from error
        except asyncio.CancelledError:
            self._let_go(begun)
            raise

    async def _begin(self, argv: list[str], stdin: bytes) -> int:
        line = guest_agent.encode_exec(argv, stdin)
        answer = await self._ask("guest-exec", line, _ANSWER_TIMEOUT_S + len(stdin) / _SLOWEST_BPS)
        return guest_agent.parse_pid(answer)

    async def begin(self, argv: list[str]) -> int:
        """Begins a command in the guest; returns its process's number."""
        return await asyncio.shield(asyncio.ensure_future(self._begin(argv, b"")))

    async def ended(self, pid: int) -> ExecResult:
        """Waits for a command's end."""
        began_s = time.monotonic()
        while True:
            value = await self.command("guest-exec-status", {"pid": pid})
            done = guest_agent.parse_ended(value)
            if done is not None:
                return done
            waited_s = time.monotonic() - began_s
            await asyncio.sleep(min(max(waited_s * _POLL_SHARE, _POLL_LEAST_S), _POLL_MOST_S))

    async def kill(self, pid: int) -> None:
        """Ends a command with all its children."""
        await self._ask("guest-exec", guest_agent.encode_kill(pid))

    def _let_go(self, begun: asyncio.Future[int]) -> None:
        """Nobody waits for a command any more: it is ended, also one that is only just beginning."""

        async def end() -> None:
            with contextlib.suppress(Exception):
                await self.kill(await begun)

        self._keep(asyncio.ensure_future(end()))

    async def _end(self, begun: asyncio.Future[int], argv: list[str], timeout_s: float) -> str:
        """Ends a command that takes too long; returns the text for the error."""
        text = f"`{' '.join(argv)}` did not end within {timeout_s:g} s"
        if not begun.done():
            self._let_go(begun)
            return f"{text}, and the guest's agent does not answer"
        try:
            async with asyncio.timeout(_KILL_GRACE_S):
                await self.kill(begun.result())
                done = await self.ended(begun.result())
        except (TimeoutError, TimedOut, PeerError):
            return f"{text}, and the guest's agent does not answer"
        printed = (done.stdout + done.stderr)[-500:].decode(errors="replace").strip()
        return f"{text}; it was ended. Its last output:\n{printed}" if printed else f"{text}; it was ended"

    async def ping(self, timeout_s: float = _ANSWER_TIMEOUT_S) -> None:
        """Returns when the agent has answered."""
        await self.command("guest-ping", timeout_s=timeout_s)

    async def interfaces(self) -> tuple[Interface, ...]:
        """The NICs and addresses that the guest has."""
        return guest_agent.parse_interfaces(await self.command("guest-network-get-interfaces"))

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

    async def set_time(self, time_ns: int) -> None:
        """Sets the guest's clock: after a pause it is behind."""
        await self.command("guest-set-time", {"time": time_ns})

    def tell_time(self, time_ns: int) -> None:
        """The same, without waiting: a guest that stood still may take its time."""
        self._keep(asyncio.ensure_future(self.set_time(time_ns)))

    async def shut_down(self) -> None:
        """Asks the guest to power off; there is no answer to that."""
        self._write(guest_agent.encode("guest-shutdown", {"mode": "powerdown"}))
        await self._drain()

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

    async def _drain(self) -> None:
        with contextlib.suppress(OSError):
            await self._writer.drain()

    def _keep(self, task: asyncio.Future[object]) -> None:
        self._background.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Future[object]) -> None:
        self._background.discard(task)
        if not task.cancelled():
            task.exception()  # who waited for it has been told

    async def _sync(self, timeout_s: float) -> None:
        deadline = asyncio.get_running_loop().time() + timeout_s
        while not self._synced.is_set():
            if self._task.done():
                raise PeerError(self._failure or "the connection to the guest's agent ended")
            left_s = deadline - asyncio.get_running_loop().time()
            if left_s <= 0:
                raise TimedOut(f"the guest's agent did not answer within {timeout_s:g} s")
            if not self._heard.is_set():
                self._write(guest_agent.encode_sync(self._decoder.next_number()))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._synced.wait(), min(_SYNC_EVERY_S, left_s))

    def _write(self, data: bytes) -> None:
        if self._writer.is_closing() or self._task.done() or self._failure:
            raise PeerError(self._failure or "the connection to the guest's agent has ended")
        self._writer.write(data)

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(_READ_BYTES):
                for event in self._decoder.feed(data):
                    self._take(event)
            self._give_up("the guest's agent is gone: QEMU closed its socket")
        except (OSError, PeerError) as error:
            self._give_up(str(error))
        finally:
            self._give_up("the connection to the agent was closed")

    def _take(self, event: guest_agent.Event) -> None:
        if isinstance(event, Heard):
            self._heard.set()
        elif isinstance(event, Synced):
            self._synced.set()
        elif self._waiting and not self._waiting.done():
            self._waiting.set_result(event)
        else:
            raise PeerError("the guest's agent answers what nobody asked")

    def _give_up(self, why: str) -> None:
        self._failure = self._failure or why
        if self._waiting and not self._waiting.done():
            self._waiting.set_exception(PeerError(self._failure))
