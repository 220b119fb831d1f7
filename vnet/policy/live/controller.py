"""The controller on a real socket: one `Session` after another, for as long as it is wanted.

It keeps what was last wanted. When the switch goes away it calls again, waiting a little longer each time,
and after the handshake has the session reconcile: read, compare, send the difference, never flush.
Any OpenFlow 1.3 switch with bundles will do: vnet's own, or an Open vSwitch bridge (`unix:…/br0.mgmt`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from vnet.base.errors import PeerError, TimedOut
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowStats, PacketIn
from vnet.policy.difference import Difference, FlowKey
from vnet.policy.session import (
    Applied,
    Event,
    FlowsRead,
    Lost,
    Ready,
    Refusal,
    Refused,
    Seen,
    Session,
    Timing,
    Whose,
    checked,
)

T = TypeVar("T")

log = logging.getLogger(__name__)

READ_BYTES = 1 << 18
FIRST_RETRY_S, LAST_RETRY_S = 0.05, 2.0
"""Waits between two attempts to connect: doubled each time up to the last."""
PATIENCE_S = 10.0
"""How long flows wait for a switch that is away, or that goes away each time they are sent."""


class ApplyRefused(PeerError):
    """The switch refused the flows and keeps the ones it had; `errors` says which and why."""

    def __init__(self, errors: tuple[Refusal, ...]) -> None:
        self.errors = errors
        super().__init__("the switch refused: " + "; ".join(map(str, errors)))


class Closed(PeerError):
    """The controller was closed before the answer came."""


@dataclass(slots=True)
class _Wanted:
    """A generation of flows and who waits for it. `away_s` is when the switch was first seen to be away."""

    generation: int
    flows: dict[FlowKey, Flow]
    done: asyncio.Future[Applied] | None = None
    away_s: float | None = None


class Controller:
    """Keeps the flows of one switch as wanted. All methods belong to one event loop.

    `on_packet` is called with each packet that a flow sends to the controller.
    """

    def __init__(
        self,
        socket_path: Path,
        clock: Callable[[], float] = time.monotonic,
        timing: Timing | None = None,
        patience_s: float = PATIENCE_S,
        on_packet: Callable[[PacketIn], None] = lambda _: None,
    ) -> None:
        self.socket_path = socket_path
        self._on_packet = on_packet
        self.patience_s = patience_s
        self.reconnects = 0
        self.last_failure = "not tried yet"
        self._clock, self._timing = clock, timing
        self._session: Session | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._wanted: _Wanted | None = None
        self._generation = 0
        self._turn = asyncio.Lock()
        self._reading: asyncio.Future[FlowsRead] | None = None

    async def connect(self, timeout_s: float = 10.0) -> None:
        """Return when the switch has identified itself; from then on the connection is kept up.

        Raises: TimedOut with the reason of the last attempt; the attempts are then ended.
        """
        self._task = asyncio.create_task(self._keep_connected(), name=f"controller {self.socket_path}")
        self._task.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(timeout_s):
                await self._ready.wait()
        except TimeoutError as error:
            await self.close()
            raise TimedOut(
                f"no switch at {self.socket_path} in {timeout_s:g} s: {self.last_failure}"
            ) from error

    @property
    def connected(self) -> bool:
        """Whether the switch is there now."""
        return self._ready.is_set()

    async def apply(self, flows: tuple[Flow, ...]) -> Applied:
        """Make these all of vnet's flows; returns when they are enforced, after a reconnect if need be.

        Raises: ApplyRefused, TimedOut when the switch stays away (the earlier flows stay wanted; which ones
        are in force is to be read back), Closed, ValueError (see `checked`).
        """
        wanted = {flow.key: flow for flow in checked(flows)}
        async with self._turn:
            before = self._wanted
            try:
                return await self._reach(wanted, lambda session: session.apply(flows, *self._now()))
            except (ApplyRefused, TimedOut):
                self._wanted = before
                raise

    @property
    def has_applied(self) -> bool:
        """Whether the flows of the switch are known, so that `change` is possible."""
        return self._wanted is not None

    async def change(self, difference: Difference) -> Applied:
        """Make a change to the flows that were last wanted; costs what it is large, not what they are many.

        Raises: see `apply`.
        """
        assert self._wanted is not None, "flows were applied before"
        checked(difference.put)
        async with self._turn:
            if not difference:
                return Applied(self._generation)
            wanted, before = self._wanted.flows, self._wanted
            was = {flow.key: wanted.get(flow.key) for flow in (*difference.put, *difference.removed)}
            try:
                _edit(wanted, {**dict.fromkeys(was), **{flow.key: flow for flow in difference.put}})
                return await self._reach(wanted, lambda session: session.change(difference, *self._now()))
            except (ApplyRefused, TimedOut):
                _edit(wanted, was)
                self._wanted = before
                raise

    def _now(self) -> tuple[int, float]:
        return self._generation, self._clock()

    async def _reach(self, wanted: dict[FlowKey, Flow], begin: Callable[[Session], None]) -> Applied:
        """Have the session reach them: this one with what `begin` asks of it, or the next from anew."""
        self._generation += 1
        done: asyncio.Future[Applied] = asyncio.get_running_loop().create_future()
        self._wanted = _Wanted(self._generation, wanted, done)
        if self._session and self.connected:
            begin(self._session)
            self._flush()
        else:
            self._wanted.away_s = self._clock()
        return await done

    async def read_flows(self, whose: Whose = Whose.OWN) -> tuple[Flow, ...]:
        """The flows as the switch has them now, by key.

        Raises: PeerError if the switch refuses or goes away meanwhile, TimedOut if it is away and stays so.
        """
        return (await self._read(whose)).flows

    async def read_stats(self, whose: Whose = Whose.OWN) -> tuple[FlowStats, ...]:
        """The same with what each has counted. Raises: as `read_flows`."""
        return (await self._read(whose)).stats

    async def _read(self, whose: Whose) -> FlowsRead:
        async with self._turn:
            await self._until_ready()
            assert self._session is not None
            self._reading = asyncio.get_running_loop().create_future()
            self._session.read_flows(self._clock(), whose)
            self._flush()
            try:
                return await self._reading
            finally:
                self._reading = None

    async def _until_ready(self) -> None:
        try:
            async with asyncio.timeout(self.patience_s):
                await self._ready.wait()
        except TimeoutError:
            raise self._stays_away() from None

    def _stays_away(self) -> TimedOut:
        return TimedOut(
            f"the switch at {self.socket_path} is away for {self.patience_s:g} s: {self.last_failure}"
        )

    async def close(self) -> None:
        """Hang up. The switch keeps its flows."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        self._fail(Closed("the controller was closed"))

    def _fail(self, error: BaseException) -> None:
        """Tell all who wait."""
        waiting = self._wanted.done if self._wanted else None
        for future in (waiting, self._reading):
            if future and not future.done():
                future.set_exception(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug that ended the background task is told to those who wait, rather than to nobody."""
        if not task.cancelled() and (error := task.exception()):
            self._fail(error)

    # -- the connection ---------------------------------------------------------------------------

    async def _keep_connected(self) -> None:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                reader, writer = await asyncio.open_unix_connection(self.socket_path)
            except OSError as error:
                self.last_failure = str(error)
            else:
                delay_s = FIRST_RETRY_S if await self._serve(reader, writer) else delay_s
                self.reconnects += 1
            self._lose_patience()
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, LAST_RETRY_S)

    def _lose_patience(self) -> None:
        """Tell who waits for flows that the switch has been away for too long."""
        wanted, now_s = self._wanted, self._clock()
        if wanted is None or wanted.done is None or wanted.done.done():
            return
        if wanted.away_s is None:
            wanted.away_s = now_s
        elif now_s - wanted.away_s > self.patience_s:
            wanted.done.set_exception(self._stays_away())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Hold one connection to its end. Returns whether the handshake succeeded."""
        self._session, self._writer = Session(self._clock(), self._timing), writer
        was_ready = False
        try:
            while (timer_s := self._session.next_timer()) is not None:
                self._flush()
                await self._receive(reader, timer_s)
                self._report()
                was_ready = was_ready or self.connected
        finally:
            self._ready.clear()
            self._session = self._writer = None
            writer.close()
        return was_ready

    async def _receive(self, reader: asyncio.StreamReader, timer_s: float) -> None:
        """Feed the session with what comes before its timer, or tell it the time."""
        assert self._session is not None
        try:
            async with asyncio.timeout(max(0.0, timer_s - self._clock())):
                data = await reader.read(READ_BYTES)
        except TimeoutError:
            self._session.tick(self._clock())
        except OSError:
            self._session.receive(b"", self._clock())
        else:
            self._session.receive(data, self._clock())

    def _flush(self) -> None:
        assert self._session is not None
        assert self._writer is not None
        if data := self._session.to_send():
            self._writer.write(data)

    # -- events -----------------------------------------------------------------------------------

    def _report(self) -> None:
        assert self._session is not None
        for event in self._session.events():
            self._on(event)

    def _on(self, event: Event) -> None:
        match event:
            case Ready():
                self._on_ready()
            case Applied():
                self._on_applied(event)
            case FlowsRead():
                _resolve(self._reading, event)
            case Seen(packet):
                self._on_packet(packet)
            case Refused(generation, errors):
                self._on_refused(generation, errors)
            case Lost(reason):
                self._on_lost(reason)

    def _on_ready(self) -> None:
        assert self._session is not None
        self._ready.set()
        if self._wanted:
            flows = tuple(self._wanted.flows.values())
            self._session.apply(flows, self._wanted.generation, self._clock())

    def _on_applied(self, event: Applied) -> None:
        if self._wanted and self._wanted.generation == event.generation:
            _resolve(self._wanted.done, event)

    def _on_refused(self, generation: int | None, errors: tuple[Refusal, ...]) -> None:
        waiting: asyncio.Future[Applied] | asyncio.Future[FlowsRead] | None = None
        if generation is None:
            waiting = self._reading
        elif self._wanted and self._wanted.generation == generation:
            waiting = self._wanted.done
        if waiting and not waiting.done():
            waiting.set_exception(ApplyRefused(errors))
        else:
            log.error("switch %s refused: %s", self.socket_path, "; ".join(map(str, errors)))

    def _on_lost(self, reason: str) -> None:
        self.last_failure = reason
        log.warning("switch %s lost: %s", self.socket_path, reason)
        if self._reading and not self._reading.done():
            self._reading.set_exception(PeerError(f"the switch went away: {reason}"))


def _edit(flows: dict[FlowKey, Flow], to: Mapping[FlowKey, Flow | None]) -> None:
    """Set flows by key; None removes one."""
    for key, flow in to.items():
        if flow is None:
            flows.pop(key, None)
        else:
            flows[key] = flow


def _resolve(future: asyncio.Future[T] | None, result: T) -> None:
    if future and not future.done():
        future.set_result(result)
