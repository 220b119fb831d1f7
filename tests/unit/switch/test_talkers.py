"""Which connections carried most between two looks at their map."""

from __future__ import annotations

import ctypes

from vnet.openflow.conntrack import Direction, Endpoint
from vnet.openflow.fields import ETH_IPV4
from vnet.switch import abi, talkers
from vnet.switch.talkers import Look


def conn(sent: int, received: int, gen: int = 1, sport: int = 1000) -> abi.Conn:
    key = abi.CtKey((0, 1), (0, 2), sport, 80, 10, 6, 4)
    made = abi.Conn(gen=gen, mark=0xFFFFFFFF, port=7)
    made.key[0] = key
    made.bytes[0], made.bytes[1] = sent, received
    return made


def look(*conns: abi.Conn) -> Look:
    return Look(1.0, b"".join(bytes(each) for each in conns))


def told(before: Look, now: Look) -> list[tuple[int, int, int]]:
    found = talkers.talkers(before, now)
    return [(each.connection.source.port, each.sent_bytes, each.received_bytes) for each in found]


def test_places_are_those_of_the_map() -> None:
    assert ctypes.sizeof(abi.Conn) == 8 * talkers._WORDS
    assert abi.Conn.bytes.offset == 8 * talkers._SENT
    assert talkers._RECEIVED == talkers._SENT + 1
    assert abi.Conn.gen.offset == 8 * talkers._GEN


def test_what_counts_is_what_came_in_between() -> None:
    before = look(conn(100, 50, sport=1), conn(9000, 9000, sport=2))
    now = look(conn(150, 60, sport=1), conn(9001, 9000, sport=2))
    assert told(before, now) == [(1, 50, 10), (2, 1, 0)]


def test_a_connection_that_took_another_ones_place_counts_from_its_beginning() -> None:
    assert told(look(conn(100, 50, gen=1)), look(conn(20, 10, gen=3))) == [(1000, 20, 10)]


def test_a_connection_that_is_new_counts_from_its_beginning() -> None:
    assert told(look(), look(conn(20, 10))) == [(1000, 20, 10)]


def test_silent_and_ended_connections_are_not_told() -> None:
    assert told(look(conn(5, 5)), look(conn(5, 5))) == []
    assert told(look(conn(5, 5)), look(conn(50, 50, gen=2))) == []
    assert told(look(), look()) == []


def test_only_the_most_are_told() -> None:
    now = look(*(conn(n, 0, sport=n) for n in range(1, 1000)))
    found = told(look(), now)
    assert len(found) == talkers.MOST
    assert found[0] == (999, 999, 0)


def test_a_talker_is_known_by_its_clients_packets() -> None:
    (found,) = talkers.talkers(look(), look(conn(1, 1)))
    assert found.connection == Direction(10, ETH_IPV4, 6, Endpoint(1, 1000), Endpoint(2, 80))
    assert found.port == 7
