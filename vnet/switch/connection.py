"""One controller's connection: bytes waiting in either direction, role, masks and bundles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

from vnet.openflow.codec_error import ERROR_DATA_BYTES, CodecError
from vnet.openflow.frame import Splitter
from vnet.openflow.message import AsyncMasks, Message, Role, SetConfig, TableFeatures

INBOX_BYTES = 1 << 20
"""Unserved requests beyond which the connection is not read."""
OUTBOX_BYTES = 1 << 20
"""Unsent answers beyond which requests are not served and packet-ins are dropped."""
OUTBOX_LIMIT_BYTES = 1 << 24
"""Unsent answers and events beyond which the connection is closed."""
TAKE_BYTES = 1 << 18
"""How much is handed out for sending at once."""


class State(Enum):
    """Where a connection stands; the keys of the agent's table."""

    GREETING = auto()
    """Waiting for the peer's Hello."""
    READY = auto()
    CLOSING = auto()
    """What is in the outbox is sent, then it is closed; nothing more is served."""
    CLOSED = auto()
    """The peer has gone; what it had sent is still carried out, its answers are dropped."""


@dataclass(frozen=True, slots=True)
class Request:
    """A message, its transaction id, its first bytes for an Error, and how long it was on the wire."""

    xid: int
    message: Message
    head: bytes
    size_bytes: int = 0


@dataclass(slots=True)
class Bundle:
    """Requests that wait for a commit. `failed`: one was refused, so the commit will be."""

    flags: int
    closed: bool = False
    failed: bool = False
    size_bytes: int = 0
    """What its requests took on the wire."""
    mods: list[tuple[int, Message, bytes]] = field(default_factory=list)
    """(xid, request, first bytes) in the order they came."""


class Connection:
    """Mutable state of one connection. The agent decides, this keeps the books."""

    def __init__(self, name: int, now: float) -> None:
        self.name = name
        self.state = State.GREETING
        self.greeted = False
        self.role = Role.EQUAL
        self.masks = AsyncMasks()
        self.config = SetConfig()
        self.bundles: dict[int, Bundle] = {}
        self.table_parts: dict[int, tuple[TableFeatures, ...]] = {}
        """By xid, what has come of a request for table features that is not whole yet: one at most."""
        self.busy = False
        """A request of this connection waits for the datapath."""
        self.queued = False
        """It stands in the agent's round of connections to serve."""
        self.connected_s = self.heard_s = now
        self.asked_s: float | None = None
        """When an echo was sent that is not answered yet."""
        self.stalled_s: float | None = None
        """Since when the oldest of the outbox waits."""
        self.dropped_packet_ins = 0
        self.splitter = Splitter()
        self._inbox: deque[bytes | CodecError] = deque()
        self._inbox_bytes = 0
        self._outbox: deque[bytes | Iterator[bytes]] = deque()
        self._outbox_bytes = 0
        self._streams = 0

    # -- in ---------------------------------------------------------------------------------------

    def queue(self, item: bytes | CodecError) -> None:
        """Keep a message, or the fault that ended the stream, until it is its turn."""
        self._inbox.append(item)
        self._inbox_bytes += len(item) if isinstance(item, bytes) else 0

    def next(self) -> bytes | CodecError:
        """Take the oldest."""
        item = self._inbox.popleft()
        self._inbox_bytes -= len(item) if isinstance(item, bytes) else 0
        return item

    def peek(self) -> bytes | CodecError | None:
        """Look at the oldest."""
        return self._inbox[0] if self._inbox else None

    def drop_inbox(self) -> None:
        self._inbox.clear()
        self._inbox_bytes = 0

    def is_servable(self) -> bool:
        """Whether its next request can be served now."""
        return bool(self._inbox) and not self.busy and self.state is not State.CLOSING and self.has_room()

    def wants_data(self) -> bool:
        """Whether the peer may send more."""
        return self._inbox_bytes < INBOX_BYTES and self.state in (State.GREETING, State.READY)

    # -- out --------------------------------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether answers are sent about as fast as they are made."""
        return self._outbox_bytes < OUTBOX_BYTES and not self._streams

    def takes_news(self) -> bool:
        """Whether a packet-in would not be the straw too much."""
        return self._outbox_bytes < OUTBOX_BYTES

    def is_overfull(self) -> bool:
        return self._outbox_bytes > OUTBOX_LIMIT_BYTES

    def has_output(self) -> bool:
        return bool(self._outbox)

    def send(self, data: bytes | Iterator[bytes], now: float) -> None:
        """Queue bytes, or a stream of them that is made as it is sent."""
        if self.state is State.CLOSED:
            return
        if self.stalled_s is None:
            self.stalled_s = now
        self._outbox.append(data)
        if isinstance(data, bytes):
            self._outbox_bytes += len(data)
        else:
            self._streams += 1

    def take(self, now: float) -> bytes:
        """The next bytes to send, at most about TAKE_BYTES."""
        taken = bytearray()
        while self._outbox and len(taken) < TAKE_BYTES:
            self._take_one(taken)
        if taken:
            self.stalled_s = now if self._outbox else None
        return bytes(taken)

    def _take_one(self, taken: bytearray) -> None:
        item = self._outbox[0]
        if isinstance(item, bytes):
            taken += item
            self._outbox_bytes -= len(item)
            self._outbox.popleft()
            return
        part = next(item, None)
        if part is None:
            self._outbox.popleft()
            self._streams -= 1
        else:
            taken += part

    def gone(self) -> None:
        """The peer is gone: nothing more is sent, bundles that it did not commit are void."""
        if self.state is not State.READY:
            self.drop_inbox()
        self.state = State.CLOSED
        self._outbox.clear()
        self._outbox_bytes = self._streams = 0
        self.bundles.clear()


def head(raw: bytes) -> bytes:
    """What an Error quotes of a request."""
    return raw[:ERROR_DATA_BYTES]
