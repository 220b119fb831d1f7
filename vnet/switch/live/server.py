"""The agent on sockets: asyncio for controllers, one worker thread for the datapath.

All calls of the agent are made in the event loop. The datapath's calls block, so they run in the
worker, one at a time, and the loop goes on answering echoes meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from vnet.base.errors import HostError
from vnet.openflow.message import PacketIn
from vnet.switch.address import Address, Transport
from vnet.switch.agent import Agent
from vnet.switch.backoff import Backoff
from vnet.switch.datapath import Datapath
from vnet.switch.draft import tables
from vnet.switch.jobs import CloseConnection, Event, Question
from vnet.switch.live.sockets import Listener, as_client, call, listen
from vnet.switch.live.tls import Identity
from vnet.switch.live.worker import execute

P = ParamSpec("P")
T = TypeVar("T")

_log = logging.getLogger(__name__)

READ_BYTES = 1 << 16
"""Read at once from one connection: its share of a turn of the loop."""
MAX_CONNECTIONS = 256
"""Beyond which nobody is let in: each may cost an inbox and an outbox."""
FLUSH_S = 2.0
"""How long a connection that is being closed may take to read what is left."""


@dataclass(slots=True)
class _Link:
    """The I/O of one connection."""

    writer: asyncio.StreamWriter
    may_read: asyncio.Event = field(default_factory=asyncio.Event)
    has_output: asyncio.Event = field(default_factory=asyncio.Event)
    closing: bool = False


class SwitchServer:
    """Serves one switch's OpenFlow. `start` before anything else; the datapath stays the caller's."""

    def __init__(
        self, datapath: Datapath, name: str, datapath_id: int, chance: Callable[[], float] = random.random
    ) -> None:
        self._datapath, self._name, self._datapath_id = datapath, name, datapath_id
        self._chance = chance
        self._worker = ThreadPoolExecutor(1, thread_name_prefix=f"datapath-{name}")
        self._agent: Agent | None = None
        self._links: dict[int, _Link] = {}
        self._taking_over = asyncio.Lock()
        self._numbers = count(1)
        self._listeners: list[Listener] = []
        self._calls: dict[Address, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None

    # -- for the daemon ---------------------------------------------------------------------------

    async def start(self, socket_path: Path) -> None:
        """Listen on a unix socket; see `listen`."""
        await self.listen(Address(Transport.UNIX, passive=True, path=str(socket_path)))

    async def listen(self, address: Address, identity: Identity | None = None) -> Address:
        """Take over what is in force and serve who connects; the address with the port that was chosen.

        Raises: AdmissionError if somebody listens there already or something else has the name,
        HostError if the socket cannot be made, InputError if TLS has no `identity`.
        """
        assert address.passive, address
        await self._take_over()
        self._listeners.append(await listen(address, self._accepted, identity))
        return self._listeners[-1].address

    async def call(self, address: Address, identity: Identity | None = None) -> None:
        """Take over what is in force and connect to a controller, again and again, until `hang_up`.

        Raises: InputError if TLS has no `identity`, HostError if that cannot be used.
        """
        assert not address.passive, address
        await self._take_over()
        as_client(address, identity)
        if address not in self._calls:
            self._calls[address] = self._spawn(self._keep_calling(address, identity))

    async def hang_up(self, address: Address) -> None:
        """Connect to a controller no more."""
        task = self._calls.pop(address)
        task.cancel()
        await asyncio.wait((task,))

    async def stop(self) -> None:
        """Close all connections and the sockets; what was handed to the datapath is finished first."""
        self._agent = None  # whatever ends from here on asks nothing more of the datapath
        for listener in self._listeners:
            listener.close()
        if self._timer is not None:
            self._timer.cancel()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Make another call of the datapath on its thread, in turn with the agent's own."""
        return await self._in_worker(call, *args, **kwargs)

    def port_changed(self) -> None:
        """Ports came, went or changed: read them again and tell the controllers."""
        self._spawn(self._read_ports())

    @property
    def missed_packet_ins(self) -> int:
        """Packets that the controllers connected now read too slowly for."""
        connections = self._agent.connections.values() if self._agent is not None else ()
        return sum(each.dropped_packet_ins for each in connections)

    def packet_in(self, packet: PacketIn) -> None:
        """A packet for the controllers. Call in the event loop."""
        if self._agent is not None:
            self._agent.packet_in(packet, self._now())
            self._pump()

    # -- starting and stopping --------------------------------------------------------------------

    def _now(self) -> float:
        return asyncio.get_running_loop().time()

    async def _take_over(self) -> None:
        async with self._taking_over:
            if self._agent is None:
                self._agent = await self._in_worker(self._new_agent, self._now())
                self._pump()

    def _new_agent(self, now: float) -> Agent:
        """In the worker: all that is in force there."""
        datapath = self._datapath
        found = tables(datapath.flows(), datapath.groups(), datapath.meters(), now)
        return Agent(self._datapath_id, self._name, found, datapath.ports(), now)

    async def _in_worker(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, partial(call, *args, **kwargs))

    async def _read_ports(self) -> None:
        ports = await self._in_worker(self._datapath.ports)
        if self._agent is not None:
            self._agent.ports_changed(ports, self._now())
            self._pump()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("switch %s: %s", self._name, error, exc_info=error)

    # -- connections ------------------------------------------------------------------------------

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._links) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        with suppress(
            asyncio.CancelledError
        ):  # by `stop`; asyncio 3.11 reports a cancelled callback as an error
            await self._serve(reader, writer)
        self._tasks.discard(task)

    async def _keep_calling(self, address: Address, identity: Identity | None) -> None:
        backoff, level = Backoff(), logging.WARNING
        while True:
            try:
                streams = await call(address, identity)
            except (OSError, HostError) as error:
                _log.log(
                    level, "switch %s: %s does not answer: %s", self._name, address, str(error) or "timed out"
                )
                level = logging.INFO  # told once
            else:
                if await self._serve(*streams):
                    backoff.succeeded()
                    level = logging.WARNING
            await asyncio.sleep(backoff.pause_s(self._chance()))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One connection, from its greeting to its end; whether the peer has greeted."""
        if self._agent is None:
            writer.close()
            return False
        number, link = next(self._numbers), _Link(writer)
        self._links[number] = link
        self._agent.connected(number, self._now())
        sending = asyncio.create_task(self._send(number, link))
        receiving = asyncio.create_task(self._receive(number, link, reader))
        self._pump()
        greeted = False
        try:
            await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
            greeted = self._agent is not None and self._agent.has_greeted(number)
        finally:
            await self._end(number, link, sending, receiving)
        return greeted

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

    async def _ask(self, event: Question) -> None:
        """Have the worker do what the agent asked for, and tell the agent."""
        outcome = await self._in_worker(execute, self._datapath, event)
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
