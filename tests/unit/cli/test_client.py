"""The client against daemons that do not behave: they end, or say nothing, in the middle of an answer."""

import socket
import threading

import pytest

from vnet.base.errors import PeerError, TimedOut
from vnet.cli.client import Client

HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Operation: 1\r\n\r\n"
ONE_LINE = b'1d\r\n{"type":"operation","id":"1"}\r\n'


@pytest.fixture
def daemon(tmp_path):
    """A function that has the next connection answered with some bytes, then closed when the test ends."""
    path = tmp_path / "vnetd.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    kept = []

    def answer(data, *, close):
        def serve():
            connection, _ = listener.accept()
            asked = connection.recv(65536)
            while asked.startswith(b"POST") and not asked.endswith(b"{}"):
                asked += connection.recv(65536)
            connection.sendall(data)
            kept.append(connection)
            if close:
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return path

    yield answer
    for each in (*kept, listener):
        each.close()


@pytest.mark.parametrize("data", [HEAD, HEAD + ONE_LINE, HEAD + b"5\r\nab"])
def test_a_daemon_that_is_killed_amid_an_answer_is_an_error_in_words(daemon, data):
    with pytest.raises(PeerError, match="the daemon went away"):
        list(Client(daemon(data, close=True)).read("/v1/fabrics/x/capture"))
    with pytest.raises(PeerError, match="the daemon went away"):
        Client(daemon(data, close=True)).run("POST", "/v1/fabrics", {}, lambda message: None)


def test_a_daemon_that_says_nothing_for_too_long_is_a_time_out(daemon):
    with pytest.raises(TimedOut, match="said nothing for 0.1 s"):
        Client(daemon(HEAD, close=False), timeout_s=0.1).run("POST", "/v1/fabrics", {}, lambda message: None)
