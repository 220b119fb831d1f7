"""The tracker in the kernel where dialogues at random hardly get: limits, ends, the cache beside it."""

from __future__ import annotations

import struct

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
)
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.openflow.conntrack import Tracker, direction
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import Action, Conntrack, Flow, Instructions, Nat, Output, match
from vnet.openflow.packet import parse
from vnet.switch import abi

NEW, EST, REL, RPL, INV, TRK = (1 << bit for bit in range(6))
ZONE = 7
TCP_ESTABLISHED = 3


def tracking(*commit: Action) -> list[Flow]:
    """All IP goes through the tracker; what is new is committed, what is invalid too goes to port 3."""
    flows = []
    for family in (ETH_IPV4, ETH_IPV6):
        flows.append(Flow(0, 1, match(eth_type=family), Instructions((Conntrack(zone=ZONE, table=1),))))
        new = match(eth_type=family, ct_state=(CtState.NEW, CtState.NEW))
        enter = commit or (Conntrack(zone=ZONE, commit=True),)
        flows.append(Flow(1, 10, new, Instructions((*enter, Output(3)))))
        flows.append(Flow(1, 1, match(eth_type=family), Instructions((Output(3),))))
    return flows


def four(reply: bool = False) -> Packet:
    ends = {"src": "10.0.0.2", "dst": "10.0.0.1"} if reply else {"src": "10.0.0.1", "dst": "10.0.0.2"}
    return Ether() / IP(**ends)


def six(reply: bool = False) -> Packet:
    ends = {"src": "fd00::2", "dst": "fd00::1"} if reply else {"src": "fd00::1", "dst": "fd00::2"}
    return Ether() / IPv6(**ends)


def udp(port: int = 1000, reply: bool = False) -> bytes:
    ports = {"sport": 53, "dport": port} if reply else {"sport": port, "dport": 53}
    return bytes(four(reply) / UDP(**ports) / Raw(b"hello"))


def tcp(flags: str, reply: bool = False) -> bytes:
    ports = {"sport": 80, "dport": 1000} if reply else {"sport": 1000, "dport": 80}
    return bytes(four(reply) / TCP(flags=flags, **ports))


def state(bench: Bench, frame: bytes, reply: bool = False) -> int:
    return bench.decide(2 if reply else 1, frame).ct_state


def connections(bench: Bench) -> dict[int, abi.Conn]:
    """Those in use, by slot."""
    maps = bench.datapath._map
    slots = {struct.unpack_from("<I", value)[0] for _, value in maps["conn_index"].items()}
    return {slot: abi.Conn.from_buffer_copy(maps["conns"].index(slot) or b"") for slot in slots}


def age(bench: Bench, seconds: int = 86401) -> None:
    """Let all connections have been silent for so long, which may be before the machine was started."""
    for slot, conn in connections(bench).items():
        last = conn.last_seen_ns - seconds * 10**9
        conn.last_seen_ns = last if last > 0 or conn.tcp_state == TCP_ESTABLISHED else 0
        bench.datapath._map["conns"].set(slot, bytes(conn))


def owned(bench: Bench, port: int) -> int:
    """Connections that count against a port's quota."""
    return int.from_bytes((bench.datapath._map["port_state"].index(port) or b"")[:8], "little")


def limit(bench: Bench, port: int, quota: int) -> None:
    """So many connections for a port, and any number of refusals."""
    entry = abi.Port.from_buffer_copy(bench.datapath._map["ports"].index(port) or b"")
    entry.conn_quota, entry.refusal_quota = quota, 0
    bench.datapath._map["ports"].set(port, bytes(entry))


QUOTED_6 = IPv6(src="fd00::1", dst="fd00::2")
DATAGRAM = UDP(sport=1000, dport=53) / Raw(b"x" * 8)


def test_connections_are_told_as_their_clients_packets_go(bench: Bench) -> None:
    bench.load(tracking())
    opening = [tcp("S"), udp(), bytes(six() / DATAGRAM), bytes(six() / ICMPv6EchoRequest(id=9))]
    for frame in opening:
        state(bench, frame)
    state(bench, udp(reply=True), reply=True)
    parsed = [parse(frame) for frame in opening]
    assert set(bench.datapath.connections()) == {direction(one, ZONE) for one in parsed}
    state(bench, tcp("R"))
    assert direction(parsed[0], ZONE) not in bench.datapath.connections(), "it is over"
    age(bench)
    assert bench.datapath.connections() == ()


@pytest.mark.parametrize(
    "quoted",
    [
        QUOTED_6 / DATAGRAM,
        QUOTED_6 / IPv6ExtHdrHopByHop() / DATAGRAM,
        QUOTED_6 / IPv6ExtHdrHopByHop() / IPv6ExtHdrDestOpt() / DATAGRAM,
        QUOTED_6 / IPv6ExtHdrFragment(m=1) / DATAGRAM,
        QUOTED_6 / IPv6ExtHdrFragment(offset=3) / DATAGRAM,
        QUOTED_6 / IPv6ExtHdrDestOpt(len=40) / DATAGRAM,
        QUOTED_6 / Raw(b""),
        IPv6(bytes(QUOTED_6 / IPv6ExtHdrHopByHop() / DATAGRAM)[:50]),
        IPv6(bytes(QUOTED_6 / IPv6ExtHdrHopByHop() / DATAGRAM)[:55]),
        IPv6(bytes(QUOTED_6 / IPv6ExtHdrHopByHop() / DATAGRAM)[:56]),
        QUOTED_6 / UDP(sport=1001, dport=53) / Raw(b"x" * 8),
        IPv6(src="fd00::3", dst="fd00::2") / DATAGRAM,
    ],
    ids=lambda quoted: f"{len(quoted)}: {quoted.summary()}",
)
def test_errors_are_related_to_what_they_quote_as_the_twin_says(bench: Bench, quoted: Packet) -> None:
    bench.load(tracking())
    opening = bytes(six() / DATAGRAM)
    assert state(bench, opening) == TRK | NEW
    error = bytes(six(reply=True) / ICMPv6DestUnreach(code=4) / quoted)
    twin = Tracker()
    twin.commit(parse(opening), ZONE, 0)
    expected = twin.track(parse(error), ZONE, 0)
    assert expected is not None
    assert state(bench, error, reply=True) == expected.state


def test_error_quotes_no_further_than_its_own_packet_goes(bench: Bench) -> None:
    """Ports in the padding behind the packet are nobody's ports."""
    bench.load(tracking())
    state(bench, udp())
    quoted = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=17) / UDP(sport=1000, dport=53) / Raw(b"hello"))
    whole = four(reply=True) / ICMP(type=3, code=3) / Raw(quoted[:28])
    assert state(bench, bytes(whole), reply=True) == TRK | REL | RPL
    cut = bytes(four(reply=True) / ICMP(type=3, code=3) / Raw(quoted[:24])) + quoted[24:]
    assert state(bench, cut, reply=True) == TRK | INV


def test_port_over_its_quota_may_go_on_once_its_connections_have_ended(bench: Bench) -> None:
    bench.load(tracking())
    limit(bench, 1, 300)
    for port in range(300):
        assert bench.decide(1, udp(2000 + port)).drop is None
    assert bench.decide(1, udp(9999)).drop is DropReason.CT_QUOTA
    assert bench.decide(2, udp(9998, reply=True)).drop is None, "another port has its own"
    assert (owned(bench, 1), owned(bench, 2)) == (300, 1)
    age(bench)
    assert bench.decide(1, udp(9999)).drop is None, "whoever is over his quota sweeps harder"
    for port in range(300):
        bench.decide(1, udp(5000 + port))
    assert owned(bench, 1) == len([c for c in connections(bench).values() if c.port == 1]) <= 300
    age(bench)
    for port in range(200):
        bench.decide(2, udp(7000 + port, reply=True))
    assert 0 <= owned(bench, 1) <= 300, "freeing never counts below zero"
    alive = connections(bench)
    assert owned(bench, 1) + owned(bench, 2) == len(alive)
    assert all(conn.gen & 1 for conn in alive.values()), "nobody names a free slot"


def test_port_over_its_quota_looks_further_for_ended_connections(bench: Bench) -> None:
    bench.load(tracking())
    limit(bench, 1, 10)
    for port in range(40):
        bench.decide(2, udp(7000 + port, reply=True))
    bench.datapath._map["ct_control"].set(0, struct.pack("<IIII", 40, 0, 0, 0))
    for port in range(10):
        assert bench.decide(1, udp(2000 + port)).drop is None
    for slot, conn in connections(bench).items():
        conn.last_seen_ns = 0 if conn.port == 1 else conn.last_seen_ns
        bench.datapath._map["conns"].set(slot, bytes(conn))
    bench.datapath._map["ct_control"].set(0, struct.pack("<IIII", 50, 0, 0, 0))
    assert bench.decide(1, udp(9999)).drop is None
    assert owned(bench, 1) == 1


def test_flood_of_a_port_over_its_quota_looks_hard_only_now_and_then(bench: Bench) -> None:
    """Once in a tick of the clock, of which a few pass meanwhile: else it would be 64 slots a packet."""
    bench.load(tracking())
    limit(bench, 1, 1)
    assert state(bench, udp()) == TRK | NEW
    assert bench.datapath.run(1, udp(1001), repeat=3000)[2].cb[1] == DropReason.CT_QUOTA
    hand = struct.unpack("<IIII", bench.datapath._map["ct_control"].index(0) or b"")[1]
    assert 3000 * 4 <= hand < 3000 * 16


def test_connection_to_its_own_sender_is_one(bench: Bench) -> None:
    """Addresses and ports are the same in both directions, and so is the tuple."""
    bench.load(tracking())
    echo = bytes(Ether() / IP(src="10.0.0.1", dst="10.0.0.1") / UDP(sport=7, dport=7))
    assert [state(bench, echo) for _ in range(2)] == [TRK | NEW] * 2
    assert (owned(bench, 1), len(connections(bench))) == (1, 1)
    bench.forget_connections()
    assert (owned(bench, 1), len(connections(bench))) == (0, 0)
    assert state(bench, echo) == TRK | NEW


def test_both_directions_find_one_connection(bench: Bench) -> None:
    bench.load(tracking())
    assert state(bench, udp()) == TRK | NEW
    assert state(bench, udp(reply=True), reply=True) == TRK | EST | RPL
    assert state(bench, udp()) == TRK | EST
    (conn,) = connections(bench).values()
    assert (list(conn.packets), conn.seen_reply) == ([2, 1], 1)
    assert len(list(bench.datapath._map["conn_index"].keys())) == 2


def test_established_connection_ends_for_the_cache_too(bench: Bench) -> None:
    bench.load(tracking())
    for flags, reply in (("S", False), ("SA", True), ("A", False), ("A", False), ("A", True), ("A", False)):
        assert bench.decide(2 if reply else 1, tcp(flags, reply)).drop is None
    assert state(bench, tcp("A")) == TRK | EST
    age(bench)
    assert state(bench, tcp("A")) == TRK | INV


def test_reset_connection_ends_for_the_cache_too(bench: Bench) -> None:
    bench.load(tracking())
    for flags, reply in (("S", False), ("SA", True), ("A", False), ("A", False)):
        state(bench, tcp(flags, reply), reply)
    state(bench, tcp("R", reply=True), True)
    age(bench, 11)
    assert state(bench, tcp("A")) == TRK | INV, "a reset connection lives ten seconds more"


@pytest.mark.parametrize("last", ["R", "FIN"])
def test_syn_opens_an_ended_connection_anew(bench: Bench, last: str) -> None:
    bench.load(tracking())
    for flags, reply in (("S", False), ("SA", True), ("A", False)):
        state(bench, tcp(flags, reply), reply)
    assert state(bench, tcp("S")) == TRK | EST, "not before its end"
    ending = [("R", False)] if last == "R" else [("FA", False), ("FA", True), ("A", False)]
    for flags, reply in ending:
        state(bench, tcp(flags, reply), reply)
    (before,) = connections(bench).values()
    assert state(bench, tcp("S")) == TRK | NEW
    (after,) = connections(bench).values()
    assert (after.tcp_state, after.seen_reply, after.fin_seen) == (1, 0, 0)
    assert after.gen != before.gen or after.created_ns != before.created_ns
    assert owned(bench, 1) == 1


def test_changed_mark_is_seen_by_packets_whose_path_was_cached(bench: Bench) -> None:
    """UDP from port 1 shows the mark by its output; UDP from port 2 changes it."""
    bench.load(
        [
            Flow(0, 1, match(eth_type=ETH_IPV4), Instructions((Conntrack(zone=ZONE, table=1),))),
            Flow(
                1,
                9,
                match(in_port=2),
                Instructions((Conntrack(zone=ZONE, commit=True, mark=(5, 7)), Output(1))),
            ),
            Flow(1, 5, match(in_port=1, ct_mark=5), Instructions((Output(4),))),
            Flow(1, 1, match(in_port=1), Instructions((Conntrack(zone=ZONE, commit=True), Output(3)))),
        ]
    )
    bench.decide(1, udp())
    bench.decide(2, udp(reply=True))
    for _ in range(2):
        assert bench.decide(1, udp()).outputs == ((4, None),)
    (slot,) = connections(bench)
    conn = connections(bench)[slot]
    conn.mark, conn.gen = 0, conn.gen + 2
    bench.datapath._map["conns"].set(slot, bytes(conn))
    for _ in range(2):
        assert bench.decide(1, udp()).outputs == ((3, None),)
    bench.decide(2, udp(reply=True))
    for _ in range(2):
        assert bench.decide(1, udp()).outputs == ((4, None),), "not what the cache remembers"


def test_path_through_two_zones_is_not_cached(bench: Bench) -> None:
    """The cache watches over one connection; the other zone's would go on living, or not, unnoticed."""
    zones = [Flow(0, 1, match(eth_type=ETH_IPV4), Instructions((Conntrack(zone=1, table=1),)))]
    zones.append(
        Flow(1, 1, match(), Instructions((Conntrack(zone=1, commit=True), Conntrack(zone=2, table=2))))
    )
    zones.append(Flow(2, 1, match(), Instructions((Conntrack(zone=2, commit=True), Output(3)))))
    bench.load(zones)
    for _ in range(4):
        assert bench.decide(1, udp()).drop is None
    assert sorted((conn.key[0].zone, conn.packets[0]) for conn in connections(bench).values()) == [
        (1, 4),
        (2, 4),
    ]


def test_echoes_of_other_ids_are_other_connections(bench: Bench) -> None:
    bench.load(tracking())
    for number in range(3):
        echo = bytes(six() / ICMPv6EchoRequest(id=number))
        assert state(bench, echo) == TRK | NEW
    assert len(connections(bench)) == 3


def test_tracker_that_is_full_refuses_and_evicts_nobody(bench: Bench) -> None:
    """All slots are taken, as far as the counter of fresh ones tells."""
    bench.load(tracking())
    assert state(bench, udp()) == TRK | NEW
    control = bench.datapath._map["ct_control"]
    control.set(0, struct.pack("<IIII", 65536, 0, 0, 0))
    assert bench.decide(1, udp(1001)).drop is DropReason.CT_FULL
    assert state(bench, udp()) == TRK | NEW
    assert len(connections(bench)) == 1
    age(bench)
    control.set(0, struct.pack("<IIII", 65536, 0, 0, 0))
    assert bench.decide(1, udp(3000)).drop is None, "the slot of one that has ended is given again"
    assert bench.decide(1, udp(3001)).drop is DropReason.CT_FULL


def translating(nat: Nat) -> list[Flow]:
    """What is new gets `nat`; all of it leaves by port 3."""
    return [
        Flow(0, 1, match(eth_type=ETH_IPV4), Instructions((Conntrack(zone=ZONE, table=1, nat=Nat()),))),
        Flow(
            1,
            10,
            match(eth_type=ETH_IPV4, ct_state=(CtState.NEW, CtState.NEW)),
            Instructions((Conntrack(zone=ZONE, commit=True, nat=nat), Output(3))),
        ),
        Flow(1, 1, match(eth_type=ETH_IPV4), Instructions((Output(3),))),
    ]


TARGET = 0x0A000009


def test_without_a_range_the_port_of_a_translated_target_stays(bench: Bench) -> None:
    """Two services at one server: what the same client port asks of the second has no tuple left."""
    bench.load(translating(Nat(False, 4, (TARGET, TARGET))))
    asked = [
        bytes(Ether() / IP(src="10.0.0.1", dst=to) / UDP(sport=7, dport=53))
        for to in ("10.0.1.1", "10.0.1.2")
    ]
    first, second = (bench.decide(1, frame) for frame in asked)
    assert [Ether(sent)[UDP].dport for _, sent in first.frames] == [53]
    assert (second.drop, second.frames) == (DropReason.NAT_FULL, ())


def test_protocol_without_ports_is_translated_once_for_each_address(bench: Bench) -> None:
    """A second one's replies could not be told from the first one's."""
    bench.load(translating(Nat(True, 4, (TARGET, TARGET), (1000, 2000))))
    sent = [
        bytes(Ether() / IP(src=who, dst="10.0.0.2", proto=47) / Raw(bytes(8)))
        for who in ("10.0.0.1", "10.0.0.3")
    ]
    reply = bytes(Ether() / IP(src="10.0.0.2", dst="10.0.0.9", proto=47) / Raw(bytes(8)))
    assert bench.decide(1, sent[0]).drop is None
    assert state(bench, reply, reply=True) & (EST | RPL) == EST | RPL
    assert bench.decide(1, sent[1]).drop is DropReason.NAT_FULL


def test_nothing_leaves_untranslated_while_another_cpu_enters_its_connection(bench: Bench) -> None:
    bench.load(translating(Nat(True, 4, (TARGET, TARGET))))
    assert bench.decide(1, udp()).drop is None
    (slot,) = connections(bench)
    conns = bench.datapath._map["conns"]
    conn = abi.Conn.from_buffer_copy(conns.index(slot) or b"")
    conn.gen += 1  # not in use: so it is found by nobody, and yet its tuples are there
    conns.set(slot, bytes(conn))
    assert bench.decide(1, udp()).drop is DropReason.NAT_FULL
    conn.gen += 1
    conns.set(slot, bytes(conn))
    bench.forget_connections()


@pytest.mark.parametrize("family", [4, 6])
def test_no_echo_reply_opens_a_connection_whatever_its_identifier(bench: Bench, family: int) -> None:
    """0x0800 stands for a port in the tuples of echoes."""
    bench.load(tracking())
    for number in (1, 0x0800):
        reply = four() / ICMP(type=0, id=number) if family == 4 else six() / ICMPv6EchoReply(id=number)
        assert state(bench, bytes(reply)) == TRK | INV
    assert not connections(bench)


def test_no_echo_request_passes_for_a_reply_whatever_its_identifier(bench: Bench) -> None:
    bench.load(tracking())
    asked, asking = (bytes(four(back) / ICMP(type=8, id=0x0800)) for back in (False, True))
    answer = bytes(four(reply=True) / ICMP(type=0, id=0x0800))
    assert state(bench, asked) == TRK | NEW
    assert state(bench, asking, reply=True) == TRK | INV
    assert state(bench, answer, reply=True) == TRK | EST | RPL
