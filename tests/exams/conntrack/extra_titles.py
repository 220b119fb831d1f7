"""What the public titles leave out and an engineer would still rely on: TCP states, checksums, ct_clear."""

from __future__ import annotations

from collections.abc import Sequence

from scapy.layers.inet import IP, TCP

from tests.exams.conntrack.frames import MAC_1, echo, ether, fragments, udp
from tests.exams.conntrack.hosts import until
from tests.exams.conntrack.switches import Lab, ct_state

TELL = (
    "table=0,ip,actions=ct(table=1)",
    "table=1,ip,actions=controller,ct(commit)",
)
NEW, EST, REPLY, INVALID = {"new", "trk"}, {"est", "trk"}, {"est", "rpl", "trk"}, {"inv", "trk"}
FAR = 1 << 30
ENDED = ("TIME_WAIT", "CLOSING", "CLOSED", "CLOSE")


def _there(flags: str, seq: int = 100, ack: int = 0, port: int = 1) -> tuple[int, bytes]:
    segment = TCP(sport=port, dport=80, flags=flags, seq=seq, ack=ack)
    return 1, bytes(ether() / IP(src="10.1.1.1", dst="10.1.1.2") / segment)


def _back(flags: str, seq: int = 300, ack: int = 101) -> tuple[int, bytes]:
    segment = TCP(sport=80, dport=1, flags=flags, seq=seq, ack=ack)
    return 2, bytes(ether() / IP(src="10.1.1.2", dst="10.1.1.1") / segment)


HANDSHAKE = (_there("S"), _back("SA"), _there("A", 101, 301))


def _states(lab: Lab, sent: Sequence[tuple[int, bytes]]) -> list[set[str]]:
    """The state of each packet, sent one after the other."""
    lab.flows(*TELL)
    with lab.controller() as controller:
        for number, (host, frame) in enumerate(sent, 1):
            lab.hosts(host)[-1].send(frame)
            told = controller.wait(number)
    return [ct_state(packet) for packet in told]


def extra_tcp_closed_by_both_sides(lab: Lab) -> None:
    """extra - TCP closed by both sides"""
    closing = (_there("FA", 101, 301), _back("FA", 301, 102), _there("A", 102, 302))
    assert _states(lab, [*HANDSHAKE, *closing]) == [NEW, REPLY, EST, EST, REPLY, EST]
    assert lab.connections()[0].state in ENDED


def extra_tcp_anew_after_it_was_closed(lab: Lab) -> None:
    """extra - TCP anew after it was closed"""
    closing = (_there("FA", 101, 301), _back("FA", 301, 102), _there("A", 102, 302))
    assert _states(lab, [*HANDSHAKE, *closing, _there("S", 9000)])[-1] == NEW
    assert len(lab.connections()) == 1
    assert lab.connections()[0].state not in ENDED


def extra_tcp_reset(lab: Lab) -> None:
    """extra - TCP reset"""
    assert _states(lab, [*HANDSHAKE, _back("R", 301, 0)]) == [NEW, REPLY, EST, REPLY]
    assert lab.connections()[0].state in ENDED


def extra_tcp_reset_out_of_window(lab: Lab) -> None:
    """extra - TCP reset out of window"""
    states = _states(lab, [*HANDSHAKE, _back("R", 301 + FAR, 0), _there("A", 101, 301)])
    assert states[3:] == [INVALID, EST]
    assert lab.connections()[0].state == "ESTABLISHED"


def extra_tcp_half_open(lab: Lab) -> None:
    """extra - TCP half open"""
    assert _states(lab, [_there("S"), _there("S"), _there("S", 777)]) == [NEW, NEW, NEW]
    assert [connection.state for connection in lab.connections()] == ["SYN_SENT"]


def extra_tcp_syn_amid_a_connection(lab: Lab) -> None:
    """extra - TCP SYN amid a connection"""
    assert _states(lab, [*HANDSHAKE, _there("S", 5000), _there("A", 101, 301)])[3:] == [EST, EST]
    assert lab.connections()[0].state == "ESTABLISHED"


def extra_tcp_picked_up_in_the_middle(lab: Lab) -> None:
    """extra - TCP picked up in the middle"""
    assert _states(lab, [_there("A", 5, 9), _back("A", 9, 5), _there("A", 5, 9)]) == [NEW, REPLY, EST]


def extra_tcp_that_begins_nothing(lab: Lab) -> None:
    """extra - TCP that begins nothing"""
    sent = [_back("SA"), _there("", port=7), _there("SF", port=8), _there("SR", port=9)]
    assert _states(lab, sent) == [INVALID] * 4
    assert lab.connections() == []


def extra_wrong_checksums(lab: Lab) -> None:
    """extra - wrong checksums"""
    header, datagram, message = bytearray(udp()), bytearray(udp()), bytearray(echo())
    segment, without = bytearray(_there("S")[1]), bytearray(udp())
    for frame, at in ((header, 24), (datagram, 40), (segment, 50), (message, 36)):
        frame[at : at + 2] = b"\x12\x34"
    without[40:42] = b"\0\0"  # says that there is none, which UDP over IPv4 may
    sent = [(1, bytes(frame)) for frame in (header, datagram, segment, message, without)]
    assert _states(lab, sent) == [INVALID, INVALID, INVALID, INVALID, NEW]


def extra_fragments_come_out_as_they_went_in(lab: Lab) -> None:
    """extra - fragments come out as they went in"""
    one, two = lab.hosts(2)
    lab.flows(
        f"table=0,in_port=1,dl_src={MAC_1},ip,actions=ct(commit,table=1)",
        f"table=0,in_port=1,dl_src={MAC_1},ipv6,actions=ct(commit,table=1)",
        "table=1,ct_state=+trk+new,actions=2",
    )
    for addresses in (("10.1.1.1", "10.1.1.2"), ("fc00::1", "fc00::2")):
        parts = fragments(*addresses, data_bytes=4000)
        with two.capture() as arrived:
            one.send(*parts[:0:-1])
            one.send(parts[0])
            until(lambda: arrived.count() == len(parts), "every fragment")  # noqa: B023 - used at once
            assert sorted(arrived.frames) == sorted(parts)


def extra_ct_clear(lab: Lab) -> None:
    """extra - ct_clear"""
    one = lab.hosts(1)[0]
    lab.flows(
        "table=0,ip,actions=ct(commit,zone=5,exec(set_field:7->ct_mark),table=1)",
        "table=1,ip,ct_zone=5,ct_mark=7,actions=ct_clear,resubmit(,2)",
        "table=2,ip,ct_state=-trk,ct_zone=0,ct_mark=0,actions=controller",
    )
    with lab.controller() as controller:
        one.send(udp())
        assert ct_state(controller.wait(1)[0]) == set()
    assert lab.shown() == ["udp 10.1.1.1>10.1.1.2 10.1.1.2>10.1.1.1 zone=5 mark=7"]
