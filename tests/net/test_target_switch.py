"""The switch as a process that connects to a controller, as exams and other people's controllers use it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from vnet.switch.live.netns import NETNS_DIR, inside

NETNS = f"vnt-target{os.getpid()}"
PINS = Path("/sys/fs/bpf/vnet-exam") / NETNS
COMMAND = (
    *(sys.executable, "-m", "tests.exams.target_switch", "--create", "--netns", NETNS, "--pins", str(PINS)),
    *("--port", "1=p1", "--port", "2=p2", "--datapath-id", "7"),
)
FEATURES_REQUEST = bytes.fromhex("0405000800000001")
HELLO = bytes.fromhex("0400000800000000")


def _messages(connection: socket.socket):
    data = b""
    while chunk := connection.recv(4096):
        data += chunk
        while len(data) >= 8 and len(data) >= (length := int.from_bytes(data[2:4], "big")):
            yield data[:length]
            data = data[length:]


def test_it_connects_again_and_again_and_leaves_nothing_behind() -> None:
    process = subprocess.Popen(
        [*COMMAND, "--controller", "tcp:127.0.0.1:6653"], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        with inside(NETNS):
            listener = socket.create_server(("127.0.0.1", 6653))
        listener.settimeout(10)
        for _ in range(2):
            connection, _ = listener.accept()
            connection.settimeout(10)
            with connection:
                connection.sendall(HELLO + FEATURES_REQUEST)
                reply = next(message for message in _messages(connection) if message[1] == 6)
                assert int.from_bytes(reply[8:16], "big") == 7
        listener.close()
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0
    assert not (NETNS_DIR / NETNS).exists()
    assert not PINS.exists()
