"""Addresses in Open vSwitch's notation, and the pauses between calls."""

from __future__ import annotations

import pytest

from vnet.base.errors import InputError
from vnet.switch.address import Address, Transport, parse
from vnet.switch.backoff import Backoff

TCP, TLS, UNIX = Transport.TCP, Transport.TLS, Transport.UNIX


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp:192.0.2.1:6633", Address(TCP, False, "192.0.2.1", 6633)),
        ("tcp:192.0.2.1", Address(TCP, False, "192.0.2.1", 6653)),
        ("ssl:[2001:db8::1]:6633", Address(TLS, False, "2001:db8::1", 6633)),
        ("ssl:[2001:db8::1]", Address(TLS, False, "2001:db8::1", 6653)),
        ("ptcp:6633", Address(TCP, True, "127.0.0.1", 6633)),
        ("ptcp:", Address(TCP, True, "127.0.0.1", 6653)),
        ("ptcp:0:192.0.2.1", Address(TCP, True, "192.0.2.1", 0)),
        ("pssl:6633:[::1]", Address(TLS, True, "::1", 6633)),
        ("unix:/run/controller.sock", Address(UNIX, False, path="/run/controller.sock")),
        ("punix:/run/a:b.sock", Address(UNIX, True, path="/run/a:b.sock")),
    ],
)
def test_addresses_are_read_as_they_are_meant_and_written_so_that_they_read_the_same(text, address):
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("192.0.2.1", "is no address: write tcp:HOST"),
        ("udp:192.0.2.1:1", "is no address"),
        ("tcp:", "the host is missing"),
        ("tcp::6653", "the host is missing"),
        ("tcp:controller:6653", "'controller' is no IP address"),
        ("tcp:192.0.2.1:http", "'http' is no port number"),
        ("tcp:192.0.2.1:65536", "'65536' is no port number"),
        ("tcp:192.0.2.1:0", "'0' is no port number"),
        ("tcp:192.0.2.1:²", "is no port number"),
        ("ptcp:-1", "'-1' is no port number"),
        ("tcp:2001:db8::1", "is no IP address"),
        ("pssl:1:[::1", "is no IP address"),
        ("unix:", "the path is missing"),
    ],
)
def test_what_is_no_address_is_refused_in_words(text, words):
    with pytest.raises(InputError, match=".*") as error:
        parse(text)
    assert words in str(error.value)
    assert text in str(error.value)


def test_pauses_double_up_to_the_longest_and_start_again_after_a_greeting():
    backoff = Backoff()
    assert [backoff.pause_s(0.0) for _ in range(5)] == [1.0, 2.0, 4.0, 8.0, 8.0]
    backoff.succeeded()
    assert backoff.pause_s(0.0) == 1.0


def test_chance_lengthens_a_pause_by_a_quarter_at_most():
    assert Backoff().pause_s(1.0) == 1.25
