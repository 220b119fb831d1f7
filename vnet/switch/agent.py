"""The OpenFlow 1.3 agent of the switch: a state machine without I/O, for any number of controllers.

In go bytes and the time, out come bytes (`data_to_send`), events (`next_event`) and the moment it
wants to be woken (`timer`). The table of what is answered to what is `handlers.HANDLERS`.

What needs the datapath is a job (`jobs`). One is asked at a time, so the datapath sees changes in
one order; each connection has at most one job in line and goes on with its next request only when
that is done. This is why a barrier needs no bookkeeping: when it is its turn, everything before it is
in force. Connections are served in turn, one request each, so that a flood delays only itself.

Only echoes are answered out of turn: a peer must see that we live while a large commit runs.
Flows are never removed because a controller came or went.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from vnet.openflow.codec import CodecError, decode
from vnet.openflow.message import (
    VERSION,
    BadRequest,
    EchoReply,
    EchoRequest,
    Error,
    ErrorType,
    Hello,
    HelloFailed,
    PacketIn,
    Role,
)
from vnet.switch.connection import Connection, Request, State, head
from vnet.switch.datapath import SwitchPort
from vnet.switch.desk import Desk
from vnet.switch.draft import Tables
from vnet.switch.expiry import Expiry
from vnet.switch.handle_bundles import spoil
from vnet.switch.handlers import HANDLERS, WRITES
from vnet.switch.jobs import Answer, Counters, Event, Job, Refusal

HELLO_S = 10.0
"""How long a peer may take to greet."""
IDLE_S = 15.0
"""Silence after which a peer is asked for an echo."""
DEAD_S = 45.0
"""Silence after which it is given up."""
STALL_S = 30.0
"""How long a peer may leave what we sent unread."""

_ECHO_REQUEST = 2
_GREETINGS = (None, 0, 1)
"""What the first message may be: not known yet, Hello, Error."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    """A job in line; the connection it is for, None for our own."""

    job: Job
    connection: Connection | None


class Agent(Desk):
    """See the module. Connections are named by numbers that the caller chooses and never reuses.

    Handlers know it as a `Desk` only.
    """

    def __init__(
        self, datapath_id: int, name: str, tables: Tables, ports: Iterable[SwitchPort], now: float
    ) -> None:
        super().__init__(datapath_id, name, tables, ports, now)
        self.expiry = Expiry(self)
        self._round: deque[Connection] = deque()
        self._jobs: deque[_Waiting] = deque()
        self._token = 0
        self._xid = 0

    # -- bytes and time in ------------------------------------------------------------------------

    def connected(self, connection: int, now: float) -> None:
        """A controller has connected: greet it."""
        self.now = now
        self.connections[connection] = new = Connection(connection, now)
        self.send(new, Hello(), self._next_xid())

    def receive(self, connection: int, data: bytes, now: float) -> None:
        """Bytes came. While `wants_data` is False the caller should not read more."""
        self.now = now
        conn = self.connections.get(connection)
        if conn is None or conn.state not in (State.GREETING, State.READY) or conn.splitter.broken:
            return
        conn.heard_s, conn.asked_s = now, None
        for raw in conn.splitter.feed(data):
            if not self._echoed(conn, raw):
                conn.queue(raw)
        if conn.splitter.broken:
            conn.queue(conn.splitter.broken)
        self._enqueue(conn)
        self._work()
        if conn.state is State.GREETING and conn.splitter.pending_type not in _GREETINGS:
            self._not_openflow(conn)

    def closed(self, connection: int, now: float) -> None:
        """The peer is gone. What it had asked for before is still carried out."""
        self.now = now
        conn = self.connections.pop(connection, None)
        if conn is not None:
            conn.gone()
            self._enqueue(conn)
            self._work()

    def tick(self, now: float) -> None:
        """The moment that `timer` told has come."""
        self.now = now
        for conn in tuple(self.connections.values()):
            self._check_alive(conn)
        if self.expiry.is_due():
            self._line_up(_Waiting(self.expiry.look(), None))
        self._work()

    # -- answers of the datapath in ---------------------------------------------------------------

    def committed(self, token: int, now: float) -> None:
        """The Commit or SendPacket of this token is done."""
        self._resume(token, Answer({}), now)

    def refused(self, token: int, refusals: tuple[Refusal, ...], now: float) -> None:
        """The event of this token was not carried out, not even in part."""
        self._resume(token, Answer({}, refusals), now)

    def counters(self, token: int, counters: Counters, now: float) -> None:
        """What the question of this token asked for."""
        self._resume(token, Answer(counters), now)

    # -- news in ----------------------------------------------------------------------------------

    def packet_in(self, packet: PacketIn, now: float) -> None:
        """A packet for the controllers; those that read too slowly miss it."""
        self.now = now
        for conn in self.listeners(lambda masks: masks.packet_in, packet.reason):
            if conn.takes_news():
                self.send(conn, packet, 0)
            else:
                conn.dropped_packet_ins += 1

    def ports_changed(self, ports: Iterable[SwitchPort], now: float) -> None:
        """The ports are now these; controllers are told the differences."""
        self.now = now
        self.exchange_ports(ports)

    # -- bytes, events and the timer out ----------------------------------------------------------

    def data_to_send(self, connection: int) -> bytes:
        """The next bytes for a connection, b"" if there are none; ask again when they are written."""
        conn = self.connections.get(connection)
        if conn is None:
            return b""
        had_room = conn.has_room()
        data = conn.take(self.now)
        if not had_room and conn.has_room():
            self._enqueue(conn)
            self._work()
        return data

    def next_event(self) -> Event | None:
        """What the caller must do next, None if nothing."""
        return self.events.popleft() if self.events else None

    def wants_data(self, connection: int) -> bool:
        """Whether the connection should be read."""
        conn = self.connections.get(connection)
        return conn is not None and conn.wants_data()

    def has_data_to_send(self, connection: int) -> bool:
        """Whether `data_to_send` has something."""
        conn = self.connections.get(connection)
        return conn is not None and conn.has_output()

    def has_greeted(self, connection: int) -> bool:
        """Whether the peer's Hello was accepted."""
        conn = self.connections.get(connection)
        return conn is not None and conn.greeted

    def timer(self) -> float | None:
        """When to call `tick`, in the caller's clock; None for never."""
        moments = [moment for conn in self.connections.values() for moment in _deadlines(conn)]
        if self.expiry.due_s is not None:
            moments.append(self.expiry.due_s)
        return min(moments, default=None)

    # -- serving ----------------------------------------------------------------------------------

    def _enqueue(self, conn: Connection) -> None:
        """Give the connection a place in the round, if there is something it can be served with."""
        if conn.is_servable() and not conn.queued:
            conn.queued = True
            self._round.append(conn)

    def _work(self) -> None:
        """Serve connections in turn, one request each, until all wait for something."""
        while self._round:
            conn = self._round.popleft()
            conn.queued = False
            if conn.is_servable():
                self._serve(conn)
            self._enqueue(conn)

    def _serve(self, conn: Connection) -> None:
        request = self._next_request(conn)
        if request is None:
            return
        state = State.READY if conn.state is State.CLOSED else conn.state
        handler = HANDLERS.get((state, type(request.message)))
        if handler is None:
            self.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.BAD_TYPE)
        elif conn.role is Role.SLAVE and isinstance(request.message, WRITES):
            self.refuse(conn, request, ErrorType.BAD_REQUEST, BadRequest.IS_SLAVE)
        elif (job := handler(self, conn, request, request.message)) is not None:
            conn.busy = True
            self._line_up(_Waiting(job, conn))

    def _next_request(self, conn: Connection) -> Request | None:
        item = conn.next()
        if isinstance(item, CodecError):
            self.send(conn, item.error, item.xid)
            self.close(conn)
            return None
        try:
            xid, message = decode(item)
        except CodecError as error:
            self._malformed(conn, error)
            return None
        return Request(xid, message, head(item), len(item))

    def _not_openflow(self, conn: Connection) -> None:
        """A peer whose first bytes are no Hello is not waited for until its "message" is whole."""
        self.send(conn, Error(ErrorType.HELLO_FAILED, HelloFailed.INCOMPATIBLE, b"no Hello"), 0)
        self.close(conn)

    def _malformed(self, conn: Connection, error: CodecError) -> None:
        """Answer it; a bundle it was meant for can no longer be committed."""
        self.send(conn, error.error, error.xid)
        if error.bundle_id is not None:
            spoil(conn, error.bundle_id)
        if conn.state is State.GREETING:
            self.close(conn)

    def _echoed(self, conn: Connection, raw: bytes) -> bool:
        """Answer an echo at once if the peer reads what it is sent."""
        if conn.state is not State.READY or raw[:2] != bytes((VERSION, _ECHO_REQUEST)) or not conn.has_room():
            return False
        xid, message = decode(raw)
        assert isinstance(message, EchoRequest)
        self.send(conn, EchoReply(message.data), xid)
        return True

    # -- jobs -------------------------------------------------------------------------------------

    def _line_up(self, waiting: _Waiting) -> None:
        self._jobs.append(waiting)
        if len(self._jobs) == 1:
            self._advance(None)

    def _resume(self, token: int, answer: Answer, now: float) -> None:
        assert self._jobs, "nothing was asked"
        assert token == self._token, "an answer to another question"
        self.now = now
        self._advance(answer)
        self._work()

    def _advance(self, answer: Answer | None) -> None:
        """Run the first job to its next question; those that end make way for the next."""
        while self._jobs:
            waiting = self._jobs[0]
            try:
                ask = next(waiting.job) if answer is None else waiting.job.send(answer)
            except StopIteration:
                self._jobs.popleft()
                self._finish(waiting.connection)
                answer = None
                continue
            self._token += 1
            self.events.append(ask(self._token))
            return

    def _finish(self, conn: Connection | None) -> None:
        self.expiry.plan()
        if conn is not None:
            conn.busy = False
            self._enqueue(conn)

    # -- life of a connection ---------------------------------------------------------------------

    def _next_xid(self) -> int:
        """Ours have the top bit, so that a trace tells them from the controller's."""
        self._xid = self._xid + 1 & 0x7FFFFFFF
        return self._xid | 0x80000000

    def _check_alive(self, conn: Connection) -> None:
        if not any(self.now >= moment for moment in _deadlines(conn)):
            return
        stalled = conn.stalled_s is not None and self.now >= conn.stalled_s + STALL_S
        if stalled or conn.state is State.GREETING or self.now >= conn.heard_s + DEAD_S:
            self.close(conn)
        elif conn.asked_s is None:
            conn.asked_s = self.now
            self.send(conn, EchoRequest(), self._next_xid())


def _deadlines(conn: Connection) -> Iterator[float]:
    if conn.state is State.GREETING:
        yield conn.connected_s + HELLO_S
    if conn.state is State.READY:
        yield conn.heard_s + (IDLE_S if conn.asked_s is None else DEAD_S)
    if conn.stalled_s is not None and conn.state in (State.GREETING, State.READY):
        yield conn.stalled_s + STALL_S
