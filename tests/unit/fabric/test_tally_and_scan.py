"""What is summed up is bounded and loses no packet; what two looks at the table differ in is what flowed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address

from vnet.fabric.scan import Change, Scanner
from vnet.fabric.seen import Verdict
from vnet.fabric.store import Source
from vnet.fabric.tally import MINUTE_NS, Era, Kind, Sum, Tally
from vnet.switch import abi

ERA = Era("small", 1, 0, Source("f", ""))
KIND = Kind(Verdict.DENIED, "POLICY", None, "a.eth0", IPv4Address(1), "b.eth0", IPv4Address(2), "lan", 6, 1)


def one(at_ns: int = 0) -> Sum:
    return Sum(1, 60, 0, at_ns, at_ns, None)


def test_of_what_is_beyond_the_bound_only_addresses_and_ports_are_lost() -> None:
    tally = Tally(kinds=100)
    for port in range(1000):
        tally.see(ERA, KIND._replace(port=port), one())
    entries = list(tally.drain())
    assert len(entries) == 101 and sum(entry.sum.packets for entry in entries) == 1000
    (folded,) = [entry for entry in entries if entry.kind.is_folded]
    assert folded.sum.packets == 900 and folded.kind.source == "a.eth0" and folded.kind.port is None
    tally.see(ERA, KIND, one())
    (entry,) = tally.drain()
    assert entry.kind.is_folded, "writing in between makes no more room in the minute"
    tally.see(ERA, KIND, one(5 * MINUTE_NS))
    (entry,) = tally.drain()
    assert not entry.kind.is_folded and entry.minute == 5


def test_what_finds_no_room_at_all_is_counted() -> None:
    tally = Tally(kinds=10)
    for number in range(100):
        tally.see(ERA, KIND._replace(sender=f"n{number}"), one())
    assert sum(entry.sum.packets for entry in tally.drain()) == 20
    assert tally.lost == 80


def slot(created: int, packets: int, gen: int = 3, back: int = 0, tcp_state: int = 3) -> abi.Conn:
    conn = abi.Conn(created_ns=created, last_seen_ns=created + packets, gen=gen, tcp_state=tcp_state)
    conn.key[0].proto, conn.key[0].family = 6, 4
    conn.packets[0], conn.packets[1] = packets, back
    conn.bytes[0] = 60 * packets
    return conn


def look(scanner: Scanner, *conns: abi.Conn) -> list[Change]:
    found = list(scanner.part(0, b"".join(map(bytes, conns))))
    scanner.done()
    return found


def told(changes: list[Change]) -> list[tuple[int, tuple[int, int], bool, bool]]:
    return [(c.one.slot, c.packets, c.is_new, c.has_ended) for c in changes]


def test_only_what_changed_is_told_and_by_how_much() -> None:
    scanner, empty = Scanner(), abi.Conn()
    assert told(look(scanner, slot(10**9, 5), empty)) == [(0, (5, 0), True, False)]
    assert look(scanner, slot(10**9, 5), empty) == []
    assert told(look(scanner, slot(10**9, 7, back=2), empty)) == [(0, (2, 2), False, False)]
    assert told(look(scanner, slot(10**9, 7, back=2, tcp_state=6))) == [(0, (0, 0), False, True)]
    assert look(scanner, slot(10**9, 7, back=2, tcp_state=6, gen=4)) == [], "it ended only once"
    assert told(look(scanner, slot(2 * 10**9, 1, gen=7))) == [(0, (1, 0), True, False)]
    assert scanner.missed == 0


def test_what_was_there_before_is_not_new() -> None:
    scanner = Scanner(since_ns=10**9)
    assert told(look(scanner, slot(10**8, 5), slot(2 * 10**9, 1))) == [(1, (1, 0), True, False)]
    assert told(look(scanner, slot(10**8, 6), slot(2 * 10**9, 1))) == [(0, (1, 0), False, False)]


def test_connections_that_left_nothing_are_counted_by_their_slots_occupancy() -> None:
    """A connection takes a slot (+1), is marked (+2), and leaves it (+1)."""
    for before, after, missed in (
        (3, 7, 0),
        (3, 8, 0),
        (4, 7, 0),
        (4, 8, 0),
        (3, 11, 1),
        (4, 16, 2),
        (3, 12, 1),
    ):
        scanner = Scanner()
        look(scanner, slot(10**9, 1, gen=before))
        look(scanner, slot(2 * 10**9, 1, gen=after))
        assert scanner.missed == missed, (before, after)
    scanner = Scanner()
    look(scanner)
    look(scanner, slot(10**9, 1, gen=3), slot(10**9, 1, gen=11))
    assert scanner.missed == 2, "a slot that nobody had before begins at 0"


def test_kinds_differ_in_what_they_say() -> None:
    assert KIND._replace() == KIND and replace(one(), packets=2) != one()
    assert KIND.folded.destination is None and KIND.folded.network == "lan"
