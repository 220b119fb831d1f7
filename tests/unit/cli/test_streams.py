"""Streams into VMs: one process has each, bytes go both ways, either side ends it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from vnet.base.errors import HostError
from vnet.cli.ssh_commands import _leading_options, _lines
from vnet.cli.streams import _Copying, _own


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "stream0.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(path))
        listening.listen()
        yield path


def test_a_stream_is_one_process_s_until_it_leaves(place: Path) -> None:
    with _own(place) as mine:
        assert mine is not None
        with _own(place) as other:
            assert other is None
    with _own(place) as again:
        assert again is not None


def test_a_machine_without_streams_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="micro guest"), _own(tmp_path / "stream0.sock"):
        pass


class Ends:
    """What a copying joins: the guest's end, and this side's input and output."""

    def __init__(self) -> None:
        self.guest, ours = socket.socketpair()
        keys, self.types = os.pipe()
        self.shown, screen = os.pipe()
        self.copying = _Copying(ours, keys, screen)

    def shows(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += os.read(self.shown, count - len(data))
        return data


def test_bytes_go_both_ways_and_are_held_back_until_the_guest_has_spoken() -> None:
    ends = Ends()
    os.write(ends.types, b"from here")
    ends.guest.settimeout(0.2)
    with pytest.raises(TimeoutError):
        ends.guest.recv(100)
    ends.guest.sendall(b"\0from there")
    ends.guest.settimeout(5)
    assert ends.shows(11) == b"\0from there"
    assert ends.guest.recv(100) == b"from here"
    ends.copying.end()


def test_who_speaks_first_is_not_held_back_for_ever() -> None:
    ends = Ends()
    os.write(ends.types, b"GET /")
    ends.guest.settimeout(5)
    assert ends.guest.recv(100) == b"GET /"
    ends.copying.end()


def test_when_this_side_leaves_the_guest_sees_the_end() -> None:
    ends = Ends()
    ends.guest.sendall(b"x")
    ends.shows(1)
    os.close(ends.types)
    ends.guest.settimeout(5)
    assert ends.guest.recv(100) == b""
    ends.copying.end()


def test_what_the_guest_has_sent_last_is_shown_before_the_end() -> None:
    ends = Ends()
    data = os.urandom(1 << 20)
    sending = threading.Thread(target=lambda: (ends.guest.sendall(data), ends.guest.close()))
    sending.start()
    assert ends.shows(len(data)) == data
    sending.join()
    ends.copying.end()


def test_options_of_ssh_stand_before_the_command() -> None:
    assert _leading_options(["-L", "8080:127.0.0.1:80", "-N"]) == 3
    assert _leading_options(["-v", "-oUser=x", "ls", "-l"]) == 2
    assert _leading_options(["ls", "-l"]) == 0
    assert _leading_options([]) == 0


def test_known_hosts_have_a_line_for_each_key() -> None:
    assert _lines("db.shop.vnet", ("ssh-rsa A", "ssh-ed25519 B")) == (
        "db.shop.vnet ssh-rsa A\ndb.shop.vnet ssh-ed25519 B\n"
    )
