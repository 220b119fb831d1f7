"""Open vSwitch answers each case of `ovs_answers` as that table says, so our codec is judged by it."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tests.ovs.harness import OpenVSwitch, why_not
from tests.unit.openflow.ovs_answers import CASES, Answer
from vnet.openflow.codec import HEADER

HELLO, ERROR, BARRIER_REQUEST, BARRIER_REPLY = 0, 1, 20, 21


class Peer:
    """A controller that speaks in bytes."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(10)
        self._socket.connect(path)
        self._socket.sendall(HEADER.pack(4, HELLO, 8, 1))

    def answer(self, data: bytes) -> Answer:
        """The first error that comes before the reply to a barrier."""
        self._socket.sendall(data + HEADER.pack(4, BARRIER_REQUEST, 8, 2))
        error: Answer = None
        while (message := self._message())[1] != BARRIER_REPLY:
            if message[1] == ERROR and error is None:
                error = struct.unpack_from("!HH", message, 8)
        return error

    def _message(self) -> bytes:
        head = self._exactly(8)
        return head + self._exactly(HEADER.unpack(head)[2] - 8)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self._socket.recv(size - len(data))
            assert chunk, "Open vSwitch closed the connection"
            data += chunk
        return data

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    if reason := why_not():
        pytest.skip(reason)
    with OpenVSwitch() as ovs:
        ovs.add_port("p1", 1)
        peer = Peer(str(ovs.socket))
        yield peer
        peer.close()


@pytest.mark.parametrize("name", CASES)
def test_open_vswitch_answers_as_the_table_says(peer: Peer, name: str) -> None:
    data, wanted = CASES[name]
    assert peer.answer(data) == wanted
