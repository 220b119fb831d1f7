"""The agent on sockets: asyncio for controllers, one worker thread for the datapath.

All calls of the agent are made in the event loop. The datapath's calls block, so they run in the
worker, one at a time, and the loop goes on answering echoes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import stat
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vnet.base.errors import AdmissionError, HostError
from vnet.openflow.message import BadRequest, ErrorType, FlowModFailed, PacketIn
from vnet.switch.agent import Agent
from vnet.switch.datapath import Change, Datapath, Refused
from vnet.switch.jobs import CloseConnection, Commit, Counters, Event, Kind, ReadCounters, Refusal, SendPacket

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

READ_BYTES = 1 << 16
"""Read at once from one connection: its share of a turn of the loop."""
FLUSH_S = 2.0
"""How long a connection that is being closed may take to read what is left."""
_BACKLOG = 64


@dataclass(slots=True)
class _Link:
    """The I/O of one connection."""

    writer: asyncio.StreamWriter
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    has_output: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False


class SwitchServer:
    """Serves one switch's OpenFlow. `start` before anything else; the datapath stays the caller's."""

    def __init__(self, datapath: Datapath, name: str, datapath_id: int) -> None:
        self._datapath, self._name, self._datapath_id = datapath, name, datapath_id
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"datapath-{name}")
        self._agent: Agent | None = None
        self._links: dict[int, _Link] = {}
        self._numbers = count(1)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._socket_path: Path | None = None
        self._socket_inode = 0

    # -- for the daemon ---------------------------------------------------------------------------

    async def start(self, socket_path: Path) -> None:
        """Take over the flows now in force and listen.

        Raises: AdmissionError if somebody listens there already or something else has the name,
        HostError if the socket cannot be made.
        """
        await self._take_over()
        listener = _bind(socket_path)
        self._socket_path, self._socket_inode = socket_path, socket_path.stat().st_ino
        self._servers.append(await asyncio.start_unix_server(self._serve, sock=listener))

    async def start_tcp(self, host: str, port: int) -> int:
        """Listen on TCP too; the port number, which the kernel chooses if `port` is 0."""
        await self._take_over()
        server = await asyncio.start_server(self._serve, host, port)
        self._servers.append(server)
        return int(server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close all connections and the sockets; what was handed to the datapath is finished first."""
        self._agent = None  # whatever ends from here on asks nothing more of the datapath
        for server in self._servers:
            server.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)
        self._remove_socket()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make another call of the datapath on its thread, in turn with the agent's own."""
        answer: T = await self._in_worker(partial(call, *args, **kwargs))
        return answer

    def port_changed(self) -> None:
        """Ports came, went or changed: read them again and tell the controllers."""
        self._spawn(self._read_ports())

    def packet_in(self, packet: PacketIn) -> None:
        """A packet for the controllers. Call in the event loop."""
        if self._agent is not None:
            self._agent.packet_in(packet, self._now())
            self._pump()

    # -- starting and stopping --------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _take_over(self) -> None:
        if self._agent is None:
            flows = await self._in_worker(self._datapath.flows)
            ports = await self._in_worker(self._datapath.ports)
            self._agent = Agent(self._datapath_id, self._name, flows, ports, self._now())
            self._pump()

    async def _in_worker(self, call: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    async def _read_ports(self) -> None:
        ports = await self._in_worker(self._datapath.ports)
        if self._agent is not None:
            self._agent.ports_changed(ports, self._now())
            self._pump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("switch %s: %s", self._name, error, exc_info=error)

    def _remove_socket(self) -> None:
        """Unless another process has put its own there."""
        path = self._socket_path
        with suppress(FileNotFoundError):
            if path is not None and path.stat().st_ino == self._socket_inode:
                path.unlink()

    # -- connections ------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._agent is None:
            writer.close()
            return
        number, link = next(self._numbers), _Link(writer)
        self._links[number] = link
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._agent.connected(number, self._now())
        sending = asyncio.create_task(self._send(number, link))
        receiving = asyncio.create_task(self._receive(number, link, reader))
        self._pump()
        with suppress(
            asyncio.CancelledError
        ):  # by `stop`; asyncio 3.11 reports a cancelled callback as an error
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        await self._end(number, link, sending, receiving)
        self._tasks.discard(task)

    async def _end(self, number: int, link: _Link, *tasks: asyncio.Task[None]) -> None:
        for task in tasks:
            task.cancel()
        del self._links[number]
        link.writer.transport.abort()
        if self._agent is not None:
            self._agent.closed(number, self._now())
            self._pump()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _receive(self, number: int, link: _Link, reader: asyncio.StreamReader) -> None:
        while True:
            await link.may_read.wait()
            try:
                data = await reader.read(READ_BYTES)
            except ConnectionError:
                return
            if not data or self._agent is None:
                return
            self._agent.receive(number, data, self._now())
            self._pump()

    async def _send(self, number: int, link: _Link) -> None:
        while True:
            await link.has_output.wait()
            link.has_output.clear()
            while self._agent is not None and (data := self._agent.data_to_send(number)):
                link.writer.write(data)
                self._pump()
                try:
                    await link.writer.drain()
                except ConnectionError:
                    return
            if link.closing:
                link.writer.close()
                await link.writer.wait_closed()
                return

    # -- the agent's wishes -----------------------------------------------------------------------

    def _pump(self) -> None:
        """After every call of the agent: carry out its events, wake whom it has work for."""
        agent = self._agent
        if agent is None:
            return
        while (event := agent.next_event()) is not None:
            self._carry_out(event)
        for number, link in self._links.items():
            if agent.has_data_to_send(number):
                link.has_output.set()
            (link.may_read.set if agent.wants_data(number) else link.may_read.clear)()
        self._set_timer(agent.timer())

    def _set_timer(self, moment: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if moment is not None:
            self._timer = asyncio.get_running_loop().call_at(moment, self._tick)

    def _tick(self) -> None:
        if self._agent is not None:
            self._agent.tick(self._now())
            self._pump()

    def _carry_out(self, event: Event) -> None:
        if isinstance(event, CloseConnection):
            self._close(event.connection)
        else:
            self._spawn(self._ask(event))

    def _close(self, number: int) -> None:
        link = self._links.get(number)
        if link is not None:
            link.closing = True
            link.has_output.set()
            asyncio.get_running_loop().call_later(FLUSH_S, link.writer.transport.abort)

    async def _ask(self, event: Commit | ReadCounters | SendPacket) -> None:
        """Have the worker do what the agent asked for, and tell the agent."""
        outcome = await self._in_worker(partial(_execute, self._datapath, event))
        agent = self._agent
        if agent is None:
            return
        if isinstance(outcome, tuple):
            agent.refused(event.token, outcome, self._now())
        elif outcome is None:
            agent.committed(event.token, self._now())
        else:
            agent.counters(event.token, outcome, self._now())
        self._pump()


# -- in the worker --------------------------------------------------------------------------------


def _execute(
    datapath: Datapath, event: Commit | ReadCounters | SendPacket
) -> Counters | tuple[Refusal, ...] | None:
    """What the datapath answers; an unforeseen failure refuses the request instead of the service."""
    try:
        if isinstance(event, Commit):
            return _commit(datapath, event.change)
        if isinstance(event, SendPacket):
            datapath.packet_out(event.in_port, event.actions, event.frame)
            return None
        return _read(datapath, event.kind)
    except Refused as error:
        return (Refusal(error.error_type, error.code, error.key),)
    except HostError as error:
        _log.error("datapath: %s", error)
    except Exception:  # noqa: BLE001  the top loop of this thread
        _log.exception("datapath: %s failed", type(event).__name__)
    if isinstance(event, Commit):
        return (Refusal(ErrorType.FLOW_MOD_FAILED, FlowModFailed.UNKNOWN),)
    return (Refusal(ErrorType.BAD_REQUEST, BadRequest.EPERM),)


def _commit(datapath: Datapath, change: Change) -> tuple[Refusal, ...] | None:
    try:
        datapath.commit(change)
        return None
    except Refused as error:
        _log.info("datapath refuses: %s", error)
        whole = Refusal(error.error_type, error.code, error.key)
    return tuple(_culprits(datapath, change)) or (whole,)


def _culprits(datapath: Datapath, change: Change) -> list[Refusal]:
    """Every flow that can be refused by itself, so that the others can be tried again together."""
    found = []
    for flow in change.put:
        try:
            datapath.check(flow)
        except Refused as error:
            found.append(Refusal(error.error_type, error.code, flow.key))
    return found


def _read(datapath: Datapath, kind: Kind) -> Counters:
    if kind is Kind.FLOWS:
        return datapath.flow_counters()
    return datapath.table_counters() if kind is Kind.TABLES else datapath.port_counters()


# -- the socket -----------------------------------------------------------------------------------


def _bind(path: Path) -> socket.socket:
    """A listening socket that only its owner can open, under its name only when it listens."""
    _clear_stale(path)
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.unlink(missing_ok=True)
        listener.bind(str(fresh))
        fresh.chmod(0o600)
        listener.listen(_BACKLOG)
        listener.setblocking(False)
        fresh.rename(path)
    except OSError as error:
        listener.close()
        fresh.unlink(missing_ok=True)
        raise HostError(f"cannot listen on {path}: {error}") from error
    return listener


def _clear_stale(path: Path) -> None:
    """Remove a socket that nobody listens on; refuse to touch anything else."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise AdmissionError(f"{path} exists and is not a socket: move it away")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise HostError(f"cannot tell whether somebody listens on {path}: {error}") from error
        else:
            raise AdmissionError(f"another process listens on {path}: stop it first")
