"""Controllers of few words: one that connects to the switch, one that the switch connects to."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator

from vnet.openflow.codec import decode, encode
from vnet.openflow.frame import Splitter
from vnet.openflow.message import EchoReply, EchoRequest, Hello, Message

PATIENCE_S = 20


class Peer:
    """A controller on a connected blocking socket; it answers echoes by itself while it waits."""

    def __init__(self, connected: socket.socket) -> None:
        self.socket = connected
        self.socket.settimeout(PATIENCE_S)
        self.splitter, self.waiting = Splitter(), []
        self.send(encode(Hello(), 1))
        assert isinstance(self.next()[1], Hello)

    @classmethod
    def calls(cls, where: str | tuple[str, int], context: ssl.SSLContext | None = None) -> Peer:
        """Connect to the switch; `where` is a path or host and port."""
        family = socket.AF_UNIX if isinstance(where, str) else socket.AF_INET
        plain = socket.socket(family, socket.SOCK_STREAM)
        plain.settimeout(PATIENCE_S)
        try:
            plain.connect(where)
            return cls(context.wrap_socket(plain) if context else plain)
        except BaseException:
            plain.close()
            raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def next(self) -> tuple[int, Message]:
        while True:
            while not self.waiting:
                data = self.socket.recv(65536)
                if not data:
                    raise ConnectionError("the switch closed the connection")
                self.waiting += [decode(raw) for raw in self.splitter.feed(data)]
            xid, message = self.waiting.pop(0)
            if not isinstance(message, EchoRequest):
                return xid, message
            self.send(encode(EchoReply(message.data), xid))

    def asks(self, message: Message, xid: int = 77) -> Message:
        """Say it and wait for the answer."""
        self.send(encode(message, xid))
        got, answer = self.next()
        assert got == xid
        return answer

    def close(self) -> None:
        self.socket.close()


class Office:
    """Where a controller waits for switches to call."""

    def __init__(self, listener: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self._listener, self._context = listener, context
        listener.settimeout(PATIENCE_S)
        listener.listen()

    def answers(self) -> Peer:
        """Accept the next call and greet."""
        plain, _ = self._listener.accept()
        plain.settimeout(PATIENCE_S)
        try:
            return Peer(self._context.wrap_socket(plain, server_side=True) if self._context else plain)
        except BaseException:
            plain.close()
            raise

    def turns_away(self) -> None:
        """Accept the next call and end it at once."""
        self._listener.accept()[0].close()

    @property
    def port(self) -> int:
        return self._listener.getsockname()[1]

    def close(self) -> None:
        self._listener.close()


@contextlib.contextmanager
def tcp_office(context: ssl.SSLContext | None = None) -> Iterator[Office]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    office = Office(listener, context)
    yield office
    office.close()
