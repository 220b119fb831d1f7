"""The connection tracker: what each packet is, and for how long it is remembered."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_NS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
)
from scapy.layers.l2 import ARP, Ether
from scapy.layers.sctp import SCTP
from scapy.packet import Packet as Layer
from scapy.packet import Raw

from vnet.base.drop import DropReason
from vnet.openflow.conntrack import TIMEOUTS_S, Passed, State, Tracker, original_fields
from vnet.openflow.fields import CtState
from vnet.openflow.flow import Conntrack, Nat
from vnet.openflow.packet import Packet, parse

NEW, EST, RPL = CtState.NEW, CtState.EST, CtState.EST | CtState.RPL
REL, INV = CtState.REL, CtState.INV
A, B, ROUTER = "10.0.0.1", "10.0.0.2", "10.0.0.9"
A6, B6, ROUTER6 = "fd00::1", "fd00::2", "fd00::9"


ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def there(*layers: Layer) -> Layer:
    return _on(IP(src=A, dst=B), layers)


def back(*layers: Layer) -> Layer:
    return _on(IP(src=B, dst=A), layers)


def there6(*layers: Layer) -> Layer:
    return _on(IPv6(src=A6, dst=B6), layers)


def back6(*layers: Layer) -> Layer:
    return _on(IPv6(src=B6, dst=A6), layers)


def _on(frame: Layer, layers: tuple[Layer, ...]) -> Layer:
    for layer in layers:
        frame = frame / layer
    return ETHER / frame


def tcp(flags: str, reply: bool = False) -> Layer:
    return (
        back(TCP(sport=80, dport=4000, flags=flags))
        if reply
        else there(TCP(sport=4000, dport=80, flags=flags))
    )


UDP_THERE, UDP_BACK = there(UDP(sport=4000, dport=53)), back(UDP(sport=53, dport=4000))


class Talk:
    """A tracker and the time; `says` commits what is new, as a flow that allows everything would."""

    def __init__(self, tracker: Tracker | None = None) -> None:
        self.tracker, self.now_s = tracker or Tracker(), 0.0

    def sees(self, frame: Layer, zone: int = 0) -> int:
        """The state without TRK; nothing is committed."""
        tracked = self.tracker.track(parse(bytes(frame)), zone, self.now_s)
        assert tracked is not None
        assert tracked.state & CtState.TRK
        return tracked.state & ~CtState.TRK

    def says(self, frame: Layer, zone: int = 0) -> int:
        state = self.sees(frame, zone)
        if state & CtState.NEW:
            assert self.tracker.commit(parse(bytes(frame)), zone, self.now_s)
        return state

    def state(self) -> State:
        (only,) = self.tracker.connections(self.now_s)
        return only.state


def test_nothing_is_remembered_without_commit() -> None:
    talk = Talk()
    assert [talk.sees(UDP_THERE), talk.sees(UDP_BACK), talk.sees(UDP_THERE)] == [NEW, NEW, NEW]


def test_a_connection_is_new_until_a_reply_was_seen() -> None:
    talk = Talk()
    assert [talk.says(UDP_THERE), talk.says(UDP_THERE), talk.says(UDP_THERE)] == [NEW, NEW, NEW]
    assert [talk.says(UDP_BACK), talk.says(UDP_THERE), talk.says(UDP_BACK)] == [RPL, EST, RPL]


def test_zones_know_nothing_of_each_other() -> None:
    talk = Talk()
    talk.says(UDP_THERE, zone=1)
    assert [talk.sees(UDP_BACK, zone=1), talk.sees(UDP_BACK, zone=2)] == [RPL, NEW]


def test_a_tcp_connection_from_syn_to_time_wait() -> None:
    talk = Talk()
    steps = [
        ("S", False, NEW, State.SYN_SENT),
        ("S", False, NEW, State.SYN_SENT),
        ("SA", True, RPL, State.SYN_RECEIVED),
        ("S", False, EST, State.SYN_RECEIVED),
        ("A", False, EST, State.ESTABLISHED),
        ("PA", True, RPL, State.ESTABLISHED),
        ("FA", False, EST, State.FIN_WAIT),
        ("A", True, RPL, State.FIN_WAIT),
        ("FA", True, RPL, State.TIME_WAIT),
        ("A", False, EST, State.TIME_WAIT),
    ]
    for flags, reply, state, after in steps:
        assert (talk.says(tcp(flags, reply)), talk.state()) == (state, after), flags


@pytest.mark.parametrize("flags", ["A", "SA", "PA", "FA", "R", "RA"])
def test_tcp_that_starts_no_connection_and_belongs_to_none_is_invalid(flags: str) -> None:
    assert Talk().sees(tcp(flags)) == INV


@pytest.mark.parametrize("flags", ["", "SF", "SR", "F", "P", "U", "SFA", "SRA", "FPU"])
def test_contradicting_tcp_flags_are_invalid_in_every_state(flags: str) -> None:
    talk = Talk()
    assert talk.sees(tcp(flags)) == INV
    for step in (tcp("S"), tcp("SA", reply=True), tcp("A")):
        talk.says(step)
        assert talk.sees(tcp(flags)) == INV


def test_a_reset_closes_and_a_syn_opens_anew() -> None:
    talk = Talk()
    assert [talk.says(tcp("S")), talk.says(tcp("RA", reply=True))] == [NEW, RPL]
    assert talk.state() is State.CLOSED
    assert [talk.says(tcp("A")), talk.says(tcp("S")), talk.state()] == [EST, NEW, State.SYN_SENT]
    assert talk.says(tcp("A")) == NEW


def test_a_reset_after_which_both_sides_go_on_was_none() -> None:
    talk = Talk()
    for step in (tcp("S"), tcp("SA", True), tcp("A"), tcp("R", True), tcp("A"), tcp("A")):
        talk.says(step)
    assert talk.state() is State.CLOSED, "one side may not have heard of it yet"
    assert (talk.says(tcp("A", True)), talk.state()) == (RPL, State.ESTABLISHED)
    for step in (tcp("FA"), tcp("R"), tcp("A"), tcp("A", True)):
        talk.says(step)
    assert talk.state() is State.FIN_WAIT
    assert [talk.says(tcp("R")), talk.says(tcp("A")), talk.says(tcp("R"))] == [EST, EST, EST]
    assert (talk.says(tcp("A", True)), talk.state()) == (RPL, State.CLOSED), "each reset is another"


def test_after_both_fins_the_other_side_may_open_anew() -> None:
    talk = Talk()
    for step in (tcp("S"), tcp("SA", True), tcp("A"), tcp("FA"), tcp("FA", True)):
        talk.says(step)
    assert talk.says(tcp("S", reply=True)) == NEW
    assert talk.says(tcp("SA")) == RPL


@pytest.mark.parametrize(
    ("request_", "reply"),
    [
        (there(ICMP(type=8, id=5)), back(ICMP(type=0, id=5))),
        (there6(ICMPv6EchoRequest(id=5)), back6(ICMPv6EchoReply(id=5))),
    ],
    ids=["v4", "v6"],
)
def test_an_echo_reply_belongs_to_the_request_of_its_id(request_: Layer, reply: Layer) -> None:
    talk = Talk()
    assert talk.sees(reply) == INV
    assert [talk.says(request_), talk.says(reply), talk.says(request_)] == [NEW, RPL, EST]


def test_an_echo_of_another_id_or_the_other_way_is_another_connection() -> None:
    talk = Talk()
    talk.says(there(ICMP(type=8, id=5)))
    assert talk.sees(back(ICMP(type=0, id=6))) == INV
    assert talk.sees(back(ICMP(type=8, id=5))) == NEW


@pytest.mark.parametrize("layer", [ICMP(type=13), ICMP(type=9)])
def test_icmp_that_is_neither_echo_nor_error_is_invalid(layer: Layer) -> None:
    assert Talk().sees(there(layer)) == INV


def test_what_is_not_ip_and_neighbour_discovery_is_invalid() -> None:
    assert Talk().sees(ETHER / ARP()) == INV
    assert Talk().sees(there6(ICMPv6ND_NS())) == INV


def test_other_protocols_are_tracked_by_their_addresses() -> None:
    talk = Talk()
    gre, gre_back = (
        _on(IP(src=A, dst=B, proto=47), (Raw(b"x"),)),
        _on(IP(src=B, dst=A, proto=47), (Raw(b"x"),)),
    )
    assert [talk.says(gre), talk.says(gre_back), talk.says(gre)] == [NEW, RPL, EST]


def test_sctp_is_tracked_by_its_ports() -> None:
    talk = Talk()
    assert talk.says(there(SCTP(sport=1, dport=2))) == NEW
    assert [talk.says(back(SCTP(sport=2, dport=1))), talk.says(back(SCTP(sport=3, dport=1)))] == [RPL, NEW]


# -- errors ---------------------------------------------------------------------------------------


def quoted(frame: Layer) -> bytes:
    return bytes(frame)[14 : 14 + 48]


@pytest.mark.parametrize("kind", [3, 4, 5, 11, 12])
@pytest.mark.parametrize("reporter", [B, ROUTER])
def test_an_icmp_error_is_related_to_what_it_quotes(kind: int, reporter: str) -> None:
    talk = Talk()
    error = _on(IP(src=reporter, dst=A), (ICMP(type=kind), Raw(quoted(UDP_THERE))))
    assert talk.sees(error) == INV
    talk.says(UDP_THERE)
    assert talk.says(error) == REL | CtState.RPL


@pytest.mark.parametrize(
    "error", [ICMPv6DestUnreach, ICMPv6PacketTooBig, ICMPv6TimeExceeded, ICMPv6ParamProblem]
)
@pytest.mark.parametrize("reporter", [B6, ROUTER6])
def test_an_icmpv6_error_is_related_to_what_it_quotes(error: type[Layer], reporter: str) -> None:
    talk = Talk()
    udp = there6(UDP(sport=4000, dport=53))
    frame = _on(IPv6(src=reporter, dst=A6), (error(), Raw(quoted(udp))))
    assert talk.sees(frame) == INV
    talk.says(udp)
    assert talk.says(frame) == REL | CtState.RPL


def test_an_error_about_a_reply_travels_in_the_original_direction() -> None:
    talk = Talk()
    talk.says(UDP_THERE)
    assert talk.sees(there(ICMP(type=3), Raw(quoted(UDP_BACK)))) == REL


def test_an_error_sent_to_somebody_else_than_the_quoted_sender_is_invalid() -> None:
    talk = Talk()
    talk.says(UDP_THERE)
    assert talk.sees(_on(IP(src=ROUTER, dst=B), (ICMP(type=3), Raw(quoted(UDP_THERE))))) == INV


def test_an_error_about_an_echo_is_related_by_its_id() -> None:
    talk = Talk()
    echo = there(ICMP(type=8, id=5))
    talk.says(echo)
    error = _on(IP(src=ROUTER, dst=A), (ICMP(type=11), Raw(quoted(echo))))
    assert talk.sees(error) == REL | CtState.RPL


def test_an_error_about_a_later_fragment_or_an_error_is_invalid() -> None:
    talk = Talk()
    talk.says(tcp("S"))
    fragment = _on(IP(src=A, dst=B, frag=9, proto=6), (Raw(bytes(16)),))
    nested = there(ICMP(type=3), Raw(quoted(UDP_THERE)))
    for inner in (fragment, nested):
        assert talk.sees(back(ICMP(type=3), Raw(quoted(inner)))) == INV


def test_an_error_does_not_keep_a_connection_alive() -> None:
    talk = Talk()
    talk.says(UDP_THERE)
    error = back(ICMP(type=3), Raw(quoted(UDP_THERE)))
    talk.now_s = TIMEOUTS_S[State.OPENING]
    assert talk.sees(error) == REL | CtState.RPL
    talk.now_s += 1
    assert talk.sees(error) == INV


# -- time, room, marks ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "state"),
    [
        ([UDP_THERE], State.OPENING),
        ([UDP_THERE, UDP_BACK], State.ANSWERED),
        ([tcp("S")], State.SYN_SENT),
        ([tcp("S"), tcp("SA", True)], State.SYN_RECEIVED),
        ([tcp("S"), tcp("SA", True), tcp("A")], State.ESTABLISHED),
        ([tcp("S"), tcp("SA", True), tcp("A"), tcp("FA")], State.FIN_WAIT),
        ([tcp("S"), tcp("SA", True), tcp("A"), tcp("FA"), tcp("FA", True)], State.TIME_WAIT),
        ([tcp("S"), tcp("RA", True)], State.CLOSED),
    ],
    ids=lambda value: value.value if isinstance(value, State) else "",
)
def test_a_silent_connection_is_forgotten_after_its_states_timeout(steps: list[Layer], state: State) -> None:
    talk = Talk()
    for step in steps:
        talk.says(step)
    assert talk.state() is state
    assert talk.tracker.connections(TIMEOUTS_S[state])
    assert not talk.tracker.connections(TIMEOUTS_S[state] + 0.001)


def test_every_packet_keeps_its_connection_alive() -> None:
    talk = Talk(Tracker({**TIMEOUTS_S, State.OPENING: 10}))
    talk.says(UDP_THERE)
    for _ in range(5):
        talk.now_s += 9
        talk.says(UDP_THERE)
    assert len(talk.tracker.connections(talk.now_s)) == 1


def test_a_full_tracker_refuses_and_keeps_what_it_has() -> None:
    talk = Talk(Tracker(capacity=1))
    talk.says(UDP_THERE)
    other = there(UDP(sport=9, dport=9))
    assert not talk.tracker.commit(parse(bytes(other)), 0, 0.0)
    assert talk.sees(UDP_BACK) == RPL
    talk.now_s = 1e6
    assert talk.tracker.commit(parse(bytes(other)), 0, talk.now_s)


def test_the_mark_is_written_on_commit_under_its_mask() -> None:
    tracker, frame = Tracker(), parse(bytes(UDP_THERE))
    tracker.commit(frame, 0, 0.0, mark=(0xAB, 0xFF))
    tracker.commit(frame, 0, 0.0, mark=(0x100, 0x10F))
    tracked = tracker.track(parse(bytes(UDP_BACK)), 0, 0.0)
    assert tracked is not None
    assert tracked.mark == 0x1A0


def test_force_makes_the_replier_the_opener() -> None:
    talk = Talk()
    talk.says(UDP_THERE)
    talk.tracker.commit(parse(bytes(UDP_BACK)), 0, 0.0, force=True)
    assert [talk.sees(UDP_BACK), talk.sees(UDP_THERE)] == [NEW, RPL]


def forced(talk: Talk, frame: Layer) -> int:
    passed = talk.tracker.send(parse(bytes(frame)), 0, 0.0, Conntrack(commit=True, force=True))
    assert isinstance(passed, Passed)
    return passed.tracked.state & ~CtState.TRK


def test_a_forced_commit_of_a_reply_that_may_open_nothing_only_forgets() -> None:
    talk = Talk()
    for step in (tcp("S"), tcp("SA", True), tcp("A")):
        talk.says(step)
    assert [forced(talk, tcp("A")), forced(talk, tcp("A", True))] == [EST, INV]
    assert [talk.sees(tcp("A")), talk.sees(tcp("S"))] == [INV, NEW]


def test_a_forced_commit_of_an_error_about_the_opener_forgets_and_of_an_invalid_packet_does_nothing() -> None:
    talk = Talk()
    talk.says(tcp("S"))
    assert forced(talk, tcp("SF", True)) == INV
    assert len(talk.tracker.connections(0.0)) == 1
    error = there(ICMP(type=3), Raw(quoted(tcp("SA", True))))
    assert (forced(talk, error), len(talk.tracker.connections(0.0))) == (REL, 1)
    error = back(ICMP(type=3), Raw(quoted(tcp("S"))))
    assert (forced(talk, error), talk.tracker.connections(0.0)) == (INV, ())


def test_the_original_direction_is_told_whichever_way_a_packet_goes() -> None:
    talk = Talk()
    wanted = {"ct_nw_proto": 17, "ct_nw_src": 0x0A000001, "ct_nw_dst": 0x0A000002}
    wanted |= {"ct_tp_src": 4000, "ct_tp_dst": 53}
    error = back(ICMP(type=3), Raw(quoted(UDP_THERE)))
    for frame in (UDP_THERE, UDP_BACK, UDP_THERE, error):
        tracked = talk.tracker.track(parse(bytes(frame)), 0, 0.0)
        assert tracked
        assert original_fields(tracked.original) == wanted, frame
        talk.says(UDP_THERE)
    request = talk.tracker.track(parse(bytes(there6(ICMPv6EchoRequest(id=5)))), 0, 0.0)
    assert request
    told = original_fields(request.original)
    assert (told["ct_nw_proto"], told["ct_tp_src"], told["ct_tp_dst"]) == (58, 128, 0)
    assert (told["ct_ipv6_src"], told["ct_ipv6_dst"]) == (0xFD00 << 112 | 1, 0xFD00 << 112 | 2)
    invalid = talk.tracker.track(parse(bytes(tcp("A"))), 0, 0.0)
    assert invalid
    assert original_fields(invalid.original) == {"ct_nw_proto": 0, "ct_tp_src": 0, "ct_tp_dst": 0}


def test_invalid_and_related_packets_are_not_committed() -> None:
    tracker = Tracker()
    assert tracker.commit(parse(bytes(tcp("A"))), 0, 0.0)
    assert tracker.commit(parse(bytes(back(ICMP(type=3), Raw(quoted(UDP_THERE))))), 0, 0.0)
    assert tracker.connections(0.0) == ()


# -- fragments ------------------------------------------------------------------------------------


def piece(start: int, size: int, more: bool = True, identification: int = 7) -> Layer:
    """Bytes of a UDP datagram from A to B; offsets are multiples of 8."""
    whole = bytes(UDP(sport=4000, dport=53) / Raw(bytes(200)))
    flags = "MF" if more else 0
    ip = IP(src=A, dst=B, id=identification, flags=flags, frag=start // 8, proto=17)
    return _on(ip, (Raw(whole[start : start + size]),))


class Pieces(Talk):
    """`sees` of one fragment after the other; None for one that cannot be attributed."""

    def gets(self, frame: Layer, zone: int = 0) -> int | None:
        self.tracker.arrived()
        tracked = self.tracker.track(parse(bytes(frame)), zone, self.now_s)
        return tracked.state & ~CtState.TRK if tracked else None


def test_a_later_fragment_before_the_first_cannot_be_attributed_and_leaves_no_trace() -> None:
    talk = Pieces()
    assert talk.gets(piece(16, 16)) is None
    assert talk.tracker.commit(parse(bytes(piece(16, 16))), 0, 0.0)
    assert talk.tracker.connections(0.0) == ()
    assert [talk.gets(piece(0, 16)), talk.gets(piece(16, 16)), talk.gets(piece(32, 9, False))] == [NEW] * 3


def test_a_later_fragment_is_of_its_first_ones_connection() -> None:
    talk = Pieces()
    talk.says(UDP_THERE)
    talk.says(UDP_BACK)
    assert [talk.gets(piece(0, 16)), talk.gets(piece(32, 9, False)), talk.gets(piece(16, 16))] == [EST] * 3


def test_fragments_are_told_apart_by_identification_zone_and_time() -> None:
    talk = Pieces()
    talk.gets(piece(0, 16))
    assert talk.gets(piece(16, 16, identification=8)) is None
    assert talk.gets(piece(16, 16), zone=1) is None
    talk.now_s = 30.0
    assert talk.gets(piece(16, 16)) == NEW
    talk.now_s = 30.1
    assert talk.gets(piece(32, 16)) is None


@pytest.mark.parametrize("overlap", [(8, 16), (0, 16), (24, 8), (16, 16), (8, 40)])
def test_a_byte_that_comes_twice_spoils_the_datagram(overlap: tuple[int, int]) -> None:
    talk = Pieces()
    assert [talk.gets(piece(0, 16)), talk.gets(piece(16, 16))] == [NEW, NEW]
    assert talk.gets(piece(*overlap)) == INV
    assert talk.gets(piece(80, 8, False)) == INV
    assert talk.gets(piece(0, 16, identification=8)) == NEW


def test_tracking_a_fragment_twice_is_no_overlap() -> None:
    talk = Pieces()
    assert talk.gets(piece(0, 16)) == NEW
    assert talk.tracker.commit(parse(bytes(piece(0, 16))), 0, 0.0)
    assert talk.sees(piece(0, 16)) == NEW
    assert len(talk.tracker.connections(0.0)) == 1


def test_the_first_fragment_of_what_may_not_open_makes_the_rest_invalid() -> None:
    talk = Pieces()
    ip = IP(src=A, dst=B, id=7, flags="MF", proto=6)
    assert talk.gets(_on(ip, (TCP(flags="A"), Raw(bytes(12))))) == INV
    assert talk.gets(_on(IP(src=A, dst=B, id=7, frag=4, proto=6), (Raw(bytes(8)),))) == INV


# -- translation ----------------------------------------------------------------------------------

PUBLIC = 0xC0000209


def commits(nat: Nat | None, label: tuple[int, int] | None = None) -> Conntrack:
    return Conntrack(commit=True, nat=nat, label=label)


def ends(passed: Passed | DropReason) -> tuple[int, int, int, int]:
    assert isinstance(passed, Passed)
    fields = parse(passed.frame).fields
    return fields["ipv4_src"], fields["udp_src"], fields["ipv4_dst"], fields["udp_dst"]


def udp(source: str, port: int) -> Packet:
    return parse(bytes(ETHER / IP(src=source, dst=B) / UDP(sport=port, dport=53)))


def test_the_own_port_is_kept_while_it_is_free() -> None:
    tracker, snat = Tracker(), Nat(True, addresses=(PUBLIC, PUBLIC))
    got = [
        ends(tracker.send(udp(host, 4000), 0, 0.0, commits(snat)))[:2] for host in (A, "10.0.0.3", "10.0.0.4")
    ]
    assert got == [(PUBLIC, 4000), (PUBLIC, 4001), (PUBLIC, 4002)]
    low = [
        ends(tracker.send(udp(host, port), 0, 0.0, commits(snat)))[1]
        for host in (A, "10.0.0.3")
        for port in (511, 1023)
    ]
    assert low == [511, 1023, 1, 600]


def test_the_identifier_of_an_echo_is_translated_as_a_port() -> None:
    tracker, snat = Tracker(), commits(Nat(True, addresses=(PUBLIC, PUBLIC)))
    clients, seen = (A, "10.0.0.3", "10.0.0.4"), []
    for client in clients:
        passed = tracker.send(
            parse(bytes(ETHER / IP(src=client, dst=B) / ICMP(type=8, id=500))), 0, 0.0, snat
        )
        assert isinstance(passed, Passed)
        seen.append(parse(passed.frame).icmp_id)
        assert ICMP(passed.frame[34:]).chksum == ICMP(bytes(ICMP(type=8, id=seen[-1]))).chksum
    assert seen == [500, 501, 502]
    for client, identifier in zip(clients, (500, 501, 502), strict=True):
        answer = ETHER / IP(src=B, dst="192.0.2.9") / ICMP(type=0, id=identifier)
        passed = tracker.send(parse(bytes(answer)), 0, 0.0, Conntrack(nat=Nat()))
        assert isinstance(passed, Passed)
        assert (IP(passed.frame[14:]).dst, parse(passed.frame).icmp_id) == (client, 500)


def test_a_range_is_used_up_and_then_refuses() -> None:
    tracker, snat = Tracker(), Nat(True, addresses=(PUBLIC, PUBLIC + 1), ports=(7000, 7001))
    got = [ends(tracker.send(udp(A, port), 0, 0.0, commits(snat)))[:2] for port in (1, 2, 7001, 4)]
    assert got == [(PUBLIC, 7000), (PUBLIC, 7001), (PUBLIC + 1, 7001), (PUBLIC + 1, 7000)]
    assert tracker.send(udp(A, 5), 0, 0.0, commits(snat)) is DropReason.NAT_FULL
    assert len(tracker.connections(0.0)) == 4


def test_the_spread_says_where_the_search_begins() -> None:
    tracker, snat = (
        Tracker(spread=lambda _way, count: count - 1),
        Nat(True, addresses=(5, 9), ports=(7000, 7009)),
    )
    assert ends(tracker.send(udp(A, 1), 0, 0.0, commits(snat)))[:2] == (9, 7009)


def test_packets_without_nat_are_not_translated_and_known_ones_need_no_choice() -> None:
    tracker, dnat = Tracker(), Nat(False, addresses=(PUBLIC, PUBLIC), ports=(99, 99))
    assert ends(tracker.send(udp(A, 1), 0, 0.0, commits(dnat)))[2:] == (PUBLIC, 99)
    plain, again = (
        tracker.send(udp(A, 1), 0, 0.0, Conntrack()),
        tracker.send(udp(A, 1), 0, 0.0, Conntrack(nat=Nat())),
    )
    assert (ends(plain)[2:], ends(again)[2:]) == ((0x0A000002, 53), (PUBLIC, 99))
    assert isinstance(plain, Passed)
    assert isinstance(again, Passed)
    assert (plain.tracked.state, again.tracked.state) == (CtState.TRK | NEW, CtState.TRK | NEW | CtState.DNAT)


def test_a_connection_whose_replies_are_anothers_is_refused() -> None:
    tracker = Tracker()
    tracker.send(udp(A, 4000), 0, 0.0, commits(Nat(True, addresses=(PUBLIC, PUBLIC))))
    assert tracker.send(udp("192.0.2.9", 4000), 0, 0.0, commits(None)) is DropReason.CT_FULL


def test_a_later_fragment_is_translated_with_its_connection() -> None:
    tracker = Tracker()
    snat = commits(Nat(True, addresses=(PUBLIC, PUBLIC), ports=(7000, 7000)))
    for fragment in (piece(0, 16), piece(16, 16, False)):
        tracker.arrived()
        passed = tracker.send(parse(bytes(fragment)), 0, 0.0, snat)
        assert isinstance(passed, Passed)
        changed = IP(bytes(fragment)[14:])
        changed.src = "192.0.2.9"
        del changed.chksum
        expected = bytearray(bytes(ETHER / changed))
        if not changed.frag:
            expected[34:36] = (7000).to_bytes(2, "big")
        assert passed.frame[:36] == bytes(expected)[:36]
        assert passed.frame[42:] == bytes(expected)[42:]


def test_the_label_is_written_on_commit_under_its_mask() -> None:
    tracker = Tracker()
    tracker.send(udp(A, 1), 0, 0.0, commits(None, (0xAB << 100, 0xFF << 100)))
    passed = tracker.send(udp(A, 1), 0, 0.0, commits(None, (1, 3)))
    assert isinstance(passed, Passed)
    assert passed.tracked.label == 0xAB << 100 | 1


def test_flush_forgets_all() -> None:
    talk = Talk()
    talk.says(UDP_THERE)
    talk.tracker.flush()
    assert talk.sees(UDP_BACK) == NEW
