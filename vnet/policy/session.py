"""The controller's side of one OpenFlow connection, without I/O: bytes and time in, bytes and events out.

    session = Session(now_s)
    session.apply(flows, generation, now_s)          # any time; carried out when the switch is ready
    session.receive(data, now_s)                     # what the socket gave; b"" is its end
    socket.send(session.to_send())
    for event in session.events(): ...               # Ready, Applied, Refused, FlowsRead, Seen, Lost
    session.tick(now_s)                              # not later than session.next_timer()

To apply is to reconcile: the flows that bear vnet's cookie are read from the switch, compared with those
wanted, and only the difference is sent, in one atomic bundle (ONF extension 230): open, the changes, a
barrier, and only if no error came before its reply, commit; then a barrier, whose reply means "enforced".
Nothing is ever flushed; a new connection begins with reading; no difference, nothing sent.

Flows of other cookies are neither read nor changed: removals and modifications name vnet's cookie and mask.
(An addition replaces a flow of the same table, priority and match, whoever made it: so says OpenFlow 1.3.)

| state       | waits for                 | then                                              |
|-------------|---------------------------|---------------------------------------------------|
| GREETING    | Hello                     | IDENTIFYING                                       |
| IDENTIFYING | FeaturesReply             | READY (event Ready)                               |
| READY       |                           | READING when there is something to do             |
| READING     | FlowStatsReply, the last  | FILLING, or READY (FlowsRead; Applied if equal)   |
| FILLING     | BarrierReply              | COMMITTING; DISCARDING if an error came           |
| COMMITTING  | BundleControl (committed) | SETTLING; an Error: READY (Refused)               |
| SETTLING    | BarrierReply              | READY (Applied)                                   |
| DISCARDING  | BundleControl (discarded) | READY (Refused)                                   |
| LOST        |                           | nothing more comes out (event Lost)               |

Bad bytes, silence and a closed socket end the session as an event, never as an exception.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from itertools import count

from vnet.openflow import message
from vnet.openflow.codec import CodecError, decode, encode
from vnet.openflow.cookie import LOG, OWNER_COOKIE, OWNER_MASK
from vnet.openflow.flow import Flow, FlowFlag
from vnet.openflow.frame import Splitter
from vnet.openflow.message import BundleControlType, BundleFlag, FlowCommand, Message
from vnet.policy.difference import Difference, by_key, diff, normal, order

BUNDLE_FLAGS = BundleFlag.ATOMIC | BundleFlag.ORDERED
EXACT_COOKIE = (1 << 64) - 1

# -- events ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The switch has identified itself."""

    datapath_id: int
    n_tables: int


@dataclass(frozen=True, slots=True)
class Applied:
    """The flows of `generation` are enforced; the numbers say how many flows that took."""

    generation: int
    added: int = 0
    changed: int = 0
    removed: int = 0


@dataclass(frozen=True, slots=True)
class Refusal:
    """One OpenFlow error. `flow` is the one it is about, None if about the bundle or the reading itself."""

    error_type: int
    code: int
    flow: Flow | None = None
    experimenter: int = 0

    def __str__(self) -> str:
        about = f" (table {self.flow.table}, priority {self.flow.priority})" if self.flow else ""
        return f"OpenFlow error {_error_name(self.error_type)} code {self.code}{about}"


def _error_name(number: int) -> str:
    known = number in message.ErrorType._value2member_map_
    return message.ErrorType(number).name if known else f"type {number}"


@dataclass(frozen=True, slots=True)
class Refused:
    """The switch keeps what it had. `generation` is None if reading failed on behalf of `read_flows`."""

    generation: int | None
    errors: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class FlowsRead:
    """The flows that were asked for, by key; `stats` the same with what each has counted."""

    flows: tuple[Flow, ...]
    stats: tuple[message.FlowStats, ...] = field(default=(), compare=False)


@dataclass(frozen=True, slots=True)
class Seen:
    """A packet that a flow sends to the controller."""

    packet: message.PacketIn


@dataclass(frozen=True, slots=True)
class Lost:
    """The session is over. What was not Applied by then may or may not be enforced: read it back."""

    reason: str


Event = Ready | Applied | Refused | FlowsRead | Seen | Lost


# -- the session ----------------------------------------------------------------------------------


class State(Enum):
    GREETING = "greeting"
    IDENTIFYING = "identifying"
    READY = "ready"
    READING = "reading"
    FILLING = "filling"
    COMMITTING = "committing"
    SETTLING = "settling"
    DISCARDING = "discarding"
    LOST = "lost"


IDLE = frozenset({State.READY, State.LOST})


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds after which a silent peer is asked, is given up, and an answer is overdue."""

    echo_s: float = 5.0
    dead_s: float = 15.0
    answer_s: float = 60.0


class Whose(Enum):
    """Which flows to read: vnet's own, those of them to be logged, or somebody else's too. Values are
    cookies and masks."""

    OWN = (OWNER_COOKIE, OWNER_MASK)
    LOGGED = (OWNER_COOKIE | LOG, OWNER_MASK | LOG)
    ALL = (0, 0)


@dataclass(slots=True)
class _Task:
    """What is being done: to reach `flows` whatever is there, to make a known `difference`, or with neither
    to read only. `sent` maps the xid of each change to its flow; `whose` flows are read."""

    generation: int | None = None
    flows: tuple[Flow, ...] | None = None
    whose: Whose = Whose.OWN
    found: list[message.FlowStats] = field(default_factory=list)
    difference: Difference = field(default_factory=Difference)
    sent: dict[int, Flow | None] = field(default_factory=dict)
    errors: list[Refusal] = field(default_factory=list)
    bundle: int = 0


class Session:
    """One connection. Times are seconds of any clock that does not jump back."""

    def __init__(self, now_s: float, timing: Timing | None = None) -> None:
        self.state = State.GREETING
        self.flow_mods_sent = 0
        self._timing = timing or Timing()
        self._splitter = Splitter()
        self._out = bytearray()
        self._events: deque[Event] = deque()
        self._tasks: deque[_Task] = deque()
        self._task: _Task | None = None
        self._xids, self._bundles = count(1), count(1)
        self._awaited_xid = 0
        self._heard_s = self._asked_s = self._since_s = now_s
        self._send(message.Hello())

    # -- what the owner calls ---------------------------------------------------------------------

    def apply(self, flows: Iterable[Flow], generation: int, now_s: float) -> None:
        """Make these all of vnet's flows on the switch; ends in Applied, Refused or Lost.

        Raises: ValueError (see `checked`).
        """
        wanted = checked(flows)
        self._tasks.append(_Task(generation, wanted))
        self._begin(now_s)

    def change(self, difference: Difference, generation: int, now_s: float) -> None:
        """Make a change to the flows that the switch had when it was asked; ends in Applied, Refused or Lost.

        A flow is put as a whole, also where only its instructions differ: it may have gone since.
        """
        self._tasks.append(_Task(generation, difference=difference))
        self._begin(now_s)

    def read_flows(self, now_s: float, whose: Whose = Whose.OWN) -> None:
        """Read flows; ends in FlowsRead, Refused or Lost."""
        self._tasks.append(_Task(whose=whose))
        self._begin(now_s)

    def receive(self, data: bytes, now_s: float) -> None:
        """Take what the socket gave, cut anywhere; b"" means that the switch closed it."""
        if self.state is State.LOST:
            return
        if not data:
            self._lose("the switch closed the connection")
            return
        self._heard_s = self._asked_s = now_s
        for raw in self._splitter.feed(data):
            self._take(raw, now_s)
        if self._splitter.broken:
            self._lose(f"not OpenFlow: {self._splitter.broken}")

    def to_send(self) -> bytes:
        """The bytes to send now; asking again gives those that came since."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def events(self) -> tuple[Event, ...]:
        """What happened since the last call."""
        happened = tuple(self._events)
        self._events.clear()
        return happened

    def next_timer(self) -> float | None:
        """When `tick` is due at the latest."""
        if self.state is State.LOST:
            return None
        return min(self._asked_s + self._timing.echo_s, self._heard_s + self._timing.dead_s, self._deadline())

    def tick(self, now_s: float) -> None:
        """Ask an idle peer for an echo; give up one that does not answer."""
        if self.state is State.LOST:
            return
        if now_s >= self._heard_s + self._timing.dead_s:
            self._lose(f"the switch has been silent for {self._timing.dead_s:g} s")
        elif now_s >= self._deadline():
            self._lose(f"no answer in {self._timing.answer_s:g} s while {self.state.value}")
        elif now_s >= self._asked_s + self._timing.echo_s:
            self._asked_s = now_s
            self._send(message.EchoRequest())

    def _deadline(self) -> float:
        return float("inf") if self.state in IDLE else self._since_s + self._timing.answer_s

    # -- messages ---------------------------------------------------------------------------------

    def _send(self, what: Message, xid: int | None = None) -> int:
        xid = next(self._xids) if xid is None else xid
        self._out += encode(what, xid)
        return xid

    def _ask(self, state: State, what: Message, now_s: float) -> None:
        """Send a request and wait for its answer in `state`."""
        self._awaited_xid = self._send(what)
        self.state, self._since_s = state, now_s

    def _take(self, raw: bytes, now_s: float) -> None:
        if self.state is State.LOST:
            return
        try:
            xid, what = decode(raw)
        except CodecError as error:
            self._lose(f"cannot be read: {error}")
            return
        match what:
            case message.EchoRequest(data):
                self._send(message.EchoReply(data), xid)
            case message.Error():
                self._refuse(what, xid, now_s)
            case message.PacketIn():
                self._events.append(Seen(what))
            case _:
                self._dispatch(what, xid, now_s)

    def _dispatch(self, what: Message, xid: int, now_s: float) -> None:
        """Look the message up in the table; what nobody waits for (port status) is passed over."""
        handler = TRANSITIONS.get((self.state, type(what)))
        if handler and (xid == self._awaited_xid or isinstance(what, message.Hello)):
            handler(self, what, now_s)

    def _lose(self, reason: str) -> None:
        """End the session; only the first reason is told."""
        if self.state is State.LOST:
            return
        self.state = State.LOST
        self._task = None
        self._tasks.clear()
        self._events.append(Lost(reason))

    # -- handshake --------------------------------------------------------------------------------

    def _greeted(self, hello: message.Hello, now_s: float) -> None:
        if not hello.speaks(message.VERSION):
            failed = message.Error(message.ErrorType.HELLO_FAILED, message.HelloFailed.INCOMPATIBLE)
            self._send(failed)
            self._lose(f"the switch does not speak OpenFlow 1.3 (its version is {hello.version:#x})")
            return
        self._ask(State.IDENTIFYING, message.FeaturesRequest(), now_s)

    def _identified(self, features: message.FeaturesReply, now_s: float) -> None:
        self.state = State.READY
        self._events.append(Ready(features.datapath_id, features.n_tables))
        self._begin(now_s)

    # -- tasks ------------------------------------------------------------------------------------

    def _begin(self, now_s: float) -> None:
        if self.state is State.READY and self._tasks:
            self._task = self._tasks.popleft()
            if self._task.difference:
                self._fill(self._task, now_s)
                return
            cookie, mask = self._task.whose.value
            asked = message.FlowStatsRequest(cookie=cookie, cookie_mask=mask)
            self._ask(State.READING, asked, now_s)

    def _finish(self, event: Event, now_s: float) -> None:
        self._task = None
        self.state = State.READY
        self._events.append(event)
        self._begin(now_s)

    def _current(self) -> _Task:
        assert self._task is not None, f"no task in state {self.state}"
        return self._task

    def _part_read(self, reply: message.FlowStatsReply, now_s: float) -> None:
        task = self._current()
        task.found += reply.flows
        if reply.more:
            return
        if task.flows is None:
            self._finish(_read(task.found), now_s)
            return
        task.difference = diff([entry.flow for entry in task.found], task.flows)
        if task.difference:
            self._fill(task, now_s)
        else:
            self._finish(_applied(task), now_s)

    def _fill(self, task: _Task, now_s: float) -> None:
        """Send the whole bundle and a barrier at once: their errors come before the barrier's reply."""
        task.bundle = next(self._bundles)
        task.sent[self._send(_control(task, BundleControlType.OPEN_REQUEST))] = None
        for mod in _flow_mods(task.difference, just_read=task.flows is not None):
            add = message.BundleAdd(task.bundle, mod, BUNDLE_FLAGS)
            task.sent[self._send(add)] = mod.flow
            self.flow_mods_sent += 1
        self._ask(State.FILLING, message.BarrierRequest(), now_s)

    def _filled(self, _: message.BarrierReply, now_s: float) -> None:
        task = self._current()
        if task.errors:
            self._ask(State.DISCARDING, _control(task, BundleControlType.DISCARD_REQUEST), now_s)
        else:
            self._ask(State.COMMITTING, _control(task, BundleControlType.COMMIT_REQUEST), now_s)

    def _committed(self, _: message.BundleControl, now_s: float) -> None:
        self._ask(State.SETTLING, message.BarrierRequest(), now_s)

    def _settled(self, _: message.BarrierReply, now_s: float) -> None:
        self._finish(_applied(self._current()), now_s)

    def _discarded(self, _: message.BundleControl, now_s: float) -> None:
        task = self._current()
        self._finish(Refused(task.generation, tuple(task.errors)), now_s)

    def _refuse(self, error: message.Error, xid: int, now_s: float) -> None:
        """An error: about a change, about the request that is waited for, or about nothing known."""
        if self.state in (State.GREETING, State.IDENTIFYING):
            self._lose(f"the switch refused the handshake: {_error_name(error.type)} code {error.code}")
            return
        task = self._task
        if task is None or (xid != self._awaited_xid and xid not in task.sent):
            return
        if self.state is not State.DISCARDING:
            task.errors.append(Refusal(error.type, error.code, task.sent.get(xid), error.experimenter))
        if xid == self._awaited_xid:
            self._finish(Refused(task.generation, tuple(task.errors)), now_s)


Handler = Callable[..., None]

TRANSITIONS: dict[tuple[State, type], Handler] = {
    (State.GREETING, message.Hello): Session._greeted,
    (State.IDENTIFYING, message.FeaturesReply): Session._identified,
    (State.READING, message.FlowStatsReply): Session._part_read,
    (State.FILLING, message.BarrierReply): Session._filled,
    (State.COMMITTING, message.BundleControl): Session._committed,
    (State.SETTLING, message.BarrierReply): Session._settled,
    (State.DISCARDING, message.BundleControl): Session._discarded,
}
"""Which message moves which state; the documentation's diagram is drawn from this table."""


def checked(flows: Iterable[Flow]) -> tuple[Flow, ...]:
    """The flows, if a session can apply them.

    Raises: ValueError for a flow without vnet's cookie, or two different flows of the same key.
    """
    wanted = tuple(flows)
    for flow in wanted:
        if flow.cookie & OWNER_MASK != OWNER_COOKIE:
            raise ValueError(f"cookie {flow.cookie:#x} is not vnet's: the flow could never be removed")
    by_key(wanted)
    return wanted


def _read(found: Iterable[message.FlowStats]) -> FlowsRead:
    normalized = (replace(entry, flow=normal(entry.flow)) for entry in found)
    stats = tuple(sorted(normalized, key=lambda entry: order(entry.flow)))
    return FlowsRead(tuple(entry.flow for entry in stats), stats)


def _applied(task: _Task) -> Applied:
    made = task.difference
    assert task.generation is not None
    return Applied(task.generation, len(made.added), len(made.changed), len(made.removed))


def _control(task: _Task, kind: BundleControlType) -> message.BundleControl:
    return message.BundleControl(task.bundle, kind, BUNDLE_FLAGS)


def _flow_mods(difference: Difference, just_read: bool) -> list[message.FlowMod]:
    """Additions before removals: a switch that took them one by one would never have less than needed.

    A flow that another rule takes over begins to count anew.
    """
    mods = [message.FlowMod(FlowCommand.ADD, flow) for flow in difference.added]
    for flow in difference.changed:
        if flow.key not in difference.rewritten:
            anew = replace(flow, flags=flow.flags | FlowFlag.RESET_COUNTS)
            mods.append(message.FlowMod(FlowCommand.ADD, anew))
        elif just_read:
            mods.append(message.FlowMod(FlowCommand.MODIFY_STRICT, flow, cookie_mask=EXACT_COOKIE))
        else:
            mods.append(message.FlowMod(FlowCommand.ADD, flow))
    return mods + [_removal(flow) for flow in difference.removed]


def _removal(flow: Flow) -> message.FlowMod:
    """Delete one flow, if it bears exactly the cookie that was read."""
    bare = Flow(flow.table, flow.priority, flow.match, cookie=flow.cookie)
    return message.FlowMod(FlowCommand.DELETE_STRICT, bare, cookie_mask=EXACT_COOKIE)
