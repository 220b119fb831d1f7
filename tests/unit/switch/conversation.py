"""Talk to the agent as controllers do, with a datapath that answers at once or when told to.

talk = Conversation()
web = talk.connect()
web.says(BarrierRequest(), xid=7)
assert web.hears() == [(7, BarrierReply())]
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count

from tests.fakes.memory_datapath import MemoryDatapath
from vnet.openflow.codec import decode, encode
from vnet.openflow.flow import Flow, Instructions, Match, Output
from vnet.openflow.frame import Splitter
from vnet.openflow.message import Error, FlowCommand, FlowMod, Hello, Message
from vnet.switch.agent import Agent
from vnet.switch.datapath import SwitchPort
from vnet.switch.draft import tables
from vnet.switch.jobs import CloseConnection, Event
from vnet.switch.live.worker import execute

PORTS = (SwitchPort(1, "tap-web", 0x020000000001, True), SwitchPort(2, "tap-db", 0x020000000002, True))


@dataclass
class Conversation:
    """The agent between controllers and a datapath. `held` makes the datapath wait for `answer()`."""

    flows: tuple[Flow, ...] = ()
    held: bool = False
    now: float = 1000.0
    closed: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.datapath = MemoryDatapath(PORTS, self.flows)
        self.agent = Agent(0x42, "lab", tables(self.flows, (), (), self.now), PORTS, self.now)
        self.asked: list[Event] = []
        self._numbers = count(1)

    def connect(self, greet: bool = True) -> Controller:
        controller = Controller(self, next(self._numbers))
        self.agent.connected(controller.number, self.now)
        if greet:
            controller.says(Hello())
            assert [type(message) for _, message in controller.hears()] == [Hello]
        return controller

    def wait(self, seconds: float) -> None:
        """Let time pass, waking the agent whenever it asks for it."""
        until = self.now + seconds
        while (moment := self.agent.timer()) is not None and moment <= until:
            self.now = max(self.now, moment)
            self.agent.tick(self.now)
            self.settle()
        self.now = until

    def settle(self) -> None:
        """Collect what the agent asks; answer it unless the datapath is held."""
        while (event := self.agent.next_event()) is not None:
            if isinstance(event, CloseConnection):
                self.closed.append(event.connection)
            else:
                self.asked.append(event)
            if not self.held:
                self.answer()

    def answer(self) -> None:
        """The datapath does what it was asked."""
        asked, self.asked = self.asked, []
        for event in asked:
            self._answer(event)
        self.settle() if not self.held else None

    def _answer(self, event: Event) -> None:
        if isinstance(event, CloseConnection):
            return
        outcome = execute(self.datapath, event)
        if isinstance(outcome, tuple):
            self.agent.refused(event.token, outcome, self.now)
        elif outcome is None:
            self.agent.committed(event.token, self.now)
        else:
            self.agent.counters(event.token, outcome, self.now)


@dataclass
class Controller:
    """One connection as seen from its far end."""

    talk: Conversation
    number: int
    splitter: Splitter = field(default_factory=Splitter)
    xids: Iterable[int] = field(default_factory=lambda: count(100))

    def says(self, *messages: Message, xid: int | None = None) -> None:
        first = next(self.xids) if xid is None else xid
        self.sends(b"".join(encode(message, first) for message in messages))

    def sends(self, data: bytes) -> None:
        self.talk.agent.receive(self.number, data, self.talk.now)
        self.talk.settle()

    def hears(self) -> list[tuple[int, Message]]:
        """Everything that was sent to it since it last listened."""
        heard = []
        while data := self.talk.agent.data_to_send(self.number):
            heard += [decode(raw) for raw in self.splitter.feed(data)]
            self.talk.settle()
        return heard

    def asks(self, message: Message) -> Message:
        """Say it and expect one answer."""
        self.says(message, xid=77)
        ((xid, answer),) = self.hears()
        assert xid == 77
        return answer

    def is_refused(self, message: Message) -> tuple[int, int]:
        """Say it and expect an error that quotes it."""
        error = self.asks(message)
        assert isinstance(error, Error), error
        assert error.data == encode(message, 77)[:64]
        return error.type, error.code


ANY = Match()
EVERYTHING = Flow(0xFF, 0)


def flow(priority: int = 1, match: Match = ANY, port: int = 1, table: int = 0, **rest) -> Flow:
    return Flow(table, priority, match, Instructions(apply=(Output(port),)), **rest)


def add(wanted: Flow) -> FlowMod:
    return FlowMod(FlowCommand.ADD, wanted)


def delete(wanted: Flow = EVERYTHING, **rest) -> FlowMod:
    return FlowMod(FlowCommand.DELETE, wanted, **rest)
