"""Bytes into a live agent: it answers with an error or ends that connection, and goes on serving the others.

What can be read and what cannot the codec tells; each message that cannot is answered with its own error.
After all of it the agent and the datapath have the same flows, groups and meters.
"""

from __future__ import annotations

import random
import select
import socket
import time
from contextlib import ExitStack
from typing import ClassVar, Self

from tests.bpf.bench import Bench
from tests.exams.fuzz.case import Steps
from tests.exams.fuzz.messages import right, wrong
from tests.exams.fuzz.serving import PATIENCE_S, Serving
from tests.fakes.memory_datapath import MemoryDatapath
from tests.net.twin_generator import PORTS
from tests.wire.peer import Peer
from vnet.openflow.codec import HEADER, CodecError, decode, encode
from vnet.openflow.flow import ALL_TABLES, Flow
from vnet.openflow.frame import Splitter
from vnet.openflow.group import ALL_GROUPS, ALL_METERS, Group, GroupType, Meter, MeterFlag
from vnet.openflow.message import (
    BarrierReply,
    BarrierRequest,
    EchoRequest,
    Error,
    ErrorType,
    FlowCommand,
    FlowMod,
    FlowStatsReply,
    FlowStatsRequest,
    GroupCommand,
    GroupDescReply,
    GroupDescRequest,
    GroupMod,
    Hello,
    Message,
    MeterCommand,
    MeterConfigReply,
    MeterConfigRequest,
    MeterMod,
)
from vnet.switch.datapath import Datapath, SwitchPort

_LAST = 0xFFFFFFF1
"""The transaction id of the barrier behind a case."""
_MOST_MESSAGES = 10
_CLEAR: tuple[Message, ...] = (
    FlowMod(FlowCommand.DELETE, Flow(ALL_TABLES, 0)),
    GroupMod(GroupCommand.DELETE, Group(ALL_GROUPS, GroupType.ALL)),
    MeterMod(MeterCommand.DELETE, Meter(ALL_METERS, MeterFlag.KBPS)),
)


class Agent:
    """The part, with a datapath that only remembers."""

    name: ClassVar[str] = "agent"

    def __init__(self) -> None:
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        with self._stack as stack:
            self._datapath = self._open(stack)
            self._serving = stack.enter_context(Serving(self._datapath))
            self._meet_witness()
            stack.callback(lambda: self._witness.close())
            self._stack = stack.pop_all()
        return self

    def _open(self, stack: ExitStack) -> Datapath:
        return MemoryDatapath(tuple(SwitchPort(number, f"p{number}", number, True) for number in PORTS))

    def __exit__(self, *details: object) -> None:
        self._stack.close()

    def _meet_witness(self) -> None:
        self._witness = Peer.calls(str(self._serving.path))

    def steps(self, dice: random.Random) -> Steps:
        greeting = (("hello",),) if dice.randrange(20) else ()
        count = dice.randint(1, _MOST_MESSAGES)
        return *greeting, *(
            ("send", (wrong if dice.randrange(3) else right)(dice).hex()) for _ in range(count)
        )

    def fault(self, steps: Steps) -> str | None:
        self._clear()
        complaints = self._serving.complaints
        complaints.clear()
        sent = b"".join(
            encode(Hello(), 1) if word == "hello" else bytes.fromhex(*rest) for word, *rest in steps
        )
        found = _told(sent, *_talk(str(self._serving.path), sent)) or self._aftermath()
        return f"it logs: {complaints[0]}" if complaints else found

    def _clear(self) -> None:
        try:
            for message in _CLEAR:
                self._witness.send(encode(message, 5))
            self._barrier()
        except OSError:  # after a case that another connection did not survive
            self._witness.close()
            self._meet_witness()

    def _barrier(self) -> None:
        """Until its answer; what else comes is news of what other connections did."""
        self._witness.send(encode(BarrierRequest(), 6))
        while not isinstance(self._witness.next()[1], BarrierReply):
            pass

    def _aftermath(self) -> str | None:
        """Whether another connection is served, and the agent knows what is in force."""
        try:
            self._witness.send(encode(EchoRequest(b"well?"), 4))
            self._barrier()
            known = self._known()
        except OSError as error:
            return f"another connection is not served: {error}"
        run, datapath = self._serving.run, self._datapath
        flows = set(run(self._serving.server.run(datapath.flows)))
        groups = set(run(self._serving.server.run(datapath.groups)))
        meters = set(run(self._serving.server.run(datapath.meters)))
        there: set[object] = {*flows, *groups, *meters}
        return None if known == there else f"only the agent has {known - there}, the datapath {there - known}"

    def _known(self) -> set[object]:
        """The flows, groups and meters that the agent tells of."""
        found = set[object]()
        for request in (FlowStatsRequest(), GroupDescRequest(), MeterConfigRequest(ALL_METERS)):
            self._witness.send(encode(request, 9))
            more = True
            while more:
                match self._witness.next()[1]:
                    case FlowStatsReply(flows=flows, more=more):
                        found |= {one.flow for one in flows}
                    case GroupDescReply(groups=groups, more=more):
                        found |= set(groups)
                    case MeterConfigReply(meters=meters, more=more):
                        found |= set(meters)
        return found


class EbpfAgent(Agent):
    """The part, with the datapath in the kernel."""

    name: ClassVar[str] = "agent-ebpf"

    def _open(self, stack: ExitStack) -> Datapath:
        return stack.enter_context(Bench(len(PORTS))).datapath


# -- one connection -------------------------------------------------------------------------------


def _talk(path: str, sent: bytes) -> tuple[bytes, bool]:
    """What is answered up to the barrier behind it, and whether the connection ended before."""
    splitter = Splitter()
    splitter.feed(sent)
    tail = b"" if splitter.broken else bytes(_missing(sent)) + encode(BarrierRequest(), _LAST)
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.setblocking(False)
        return _exchange(connection, sent + tail)


def _missing(sent: bytes) -> int:
    """How many bytes the last message still wants."""
    at = 0
    while len(sent) - at >= HEADER.size and (length := HEADER.unpack_from(sent, at)[2]) <= len(sent) - at:
        at += length
    rest = len(sent) - at
    if not rest:
        return 0
    if rest < HEADER.size:  # a header of zeros in its rest tells a length below its own
        length = int.from_bytes((sent[at:] + bytes(HEADER.size))[2:4], "big")
        return max(length, HEADER.size) - rest
    return int(HEADER.unpack_from(sent, at)[2]) - rest


def _exchange(connection: socket.socket, left: bytes) -> tuple[bytes, bool]:
    heard, deadline, end = bytearray(), time.monotonic() + PATIENCE_S, encode(BarrierReply(), _LAST)
    while end not in heard:
        wait = deadline - time.monotonic()
        readable, writable, _ = select.select([connection], [connection] if left else [], [], max(wait, 0))
        if not readable and not writable:
            return bytes(heard), False
        if writable:
            left = _sent(connection, left)
        if readable:
            data = _received(connection)
            if not data:
                return bytes(heard), True
            heard += data
    return bytes(heard), False


def _sent(connection: socket.socket, data: bytes) -> bytes:
    """What is still to be sent; nothing to one who has gone, whose last words are still to be read."""
    try:
        return data[connection.send(data[:65536]) :]
    except ConnectionError:
        return b""


def _received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(65536)
    except ConnectionError:
        return b""


def _told(sent: bytes, heard: bytes, ended: bool) -> str | None:
    """What is wrong with the answers to a stream."""
    try:
        answers = [decode(raw) for raw in Splitter().feed(heard)]
    except CodecError as error:
        return f"an answer cannot be read: {error}"
    errors = [(xid, message.type, message.code) for xid, message in answers if isinstance(message, Error)]
    splitter = Splitter()
    messages = splitter.feed(sent)
    if ended:
        reason = errors or splitter.broken or any(map(_says_goodbye, messages))
        return None if reason else "the connection is ended without a word"
    if splitter.broken:
        return "goes on behind a length that cannot be"
    if (_LAST, BarrierReply()) not in answers:
        return f"does not answer within {PATIENCE_S} s"
    missing = [error for error in map(_refusal, messages) if error and error not in errors]
    return f"does not refuse {missing[0]}" if missing else None


def _says_goodbye(raw: bytes) -> bool:
    try:
        _, message = decode(raw)
    except CodecError:
        return False
    return isinstance(message, Error) and message.type == ErrorType.HELLO_FAILED


def _refusal(raw: bytes) -> tuple[int, int, int] | None:
    try:
        decode(raw)
    except CodecError as error:
        return error.xid, error.error_type, error.code
    return None
