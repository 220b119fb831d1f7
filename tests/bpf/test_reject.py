"""What a rejected packet is answered with: the interpreter's bytes, out of the port that it came from."""

from __future__ import annotations

import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6ND_Redirect,
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
)
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Packet, Raw

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.answer import answer
from vnet.openflow.flow import Flow, IcmpError, Instructions, Reject, match
from vnet.openflow.table import PortState, SlowSwitch
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside

WINDOW_S = 2**27 / 1e9
REASON = cookie.make("test", DropReason.REJECTED)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FOUR = IP(src="10.0.0.1", dst="10.0.0.2")
SIX = IPv6(src="fd00::1", dst="fd00::2")
ANSWERED = {
    "SYN": ETHER / FOUR / TCP(sport=40000, dport=80, flags="S", seq=1000),
    "SYN with options": ETHER / FOUR / TCP(flags="S", seq=2**32 - 1, options=[("MSS", 1460), ("NOP", None)]),
    "ACK": ETHER / FOUR / TCP(flags="A", seq=5, ack=99),
    "data": ETHER / FOUR / TCP(flags="PA", seq=5, ack=99) / Raw(b"x" * 1000),
    "FIN without ACK": ETHER / FOUR / TCP(flags="F", seq=7) / Raw(b"abc"),
    "IP options": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_NOP()] * 4) / TCP(flags="S"),
    "tagged": ETHER / Dot1Q(vlan=5, prio=3, dei=1) / FOUR / TCP(flags="S"),
    "SYN over IPv6": ETHER / SIX / TCP(flags="S", seq=1000),
    "behind an extension": ETHER / SIX / IPv6ExtHdrDestOpt() / TCP(flags="S", seq=1000) / Raw(b"12345"),
    "UDP": ETHER / FOUR / UDP(sport=1, dport=2) / Raw(b"hello"),
    "UDP with IP options": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", options=[IPOption_NOP()] * 8) / UDP(),
    "UDP over IPv6": ETHER / SIX / UDP(sport=1, dport=2) / Raw(b"x" * 100),
    "echo": ETHER / FOUR / ICMP(id=1),
    "echo over IPv6": ETHER / SIX / ICMPv6EchoRequest(),
    "another protocol": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", proto=89) / Raw(b"12345"),
    "first fragment": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / UDP() / Raw(b"x" * 16),
}
SILENT = {
    "RST": ETHER / FOUR / TCP(flags="R"),
    "RST and ACK": ETHER / SIX / TCP(flags="RA"),
    "ICMP error": ETHER / FOUR / ICMP(type=3, code=3) / Raw(bytes(FOUR / UDP())),
    "ICMP redirect": ETHER / FOUR / ICMP(type=5, code=1) / Raw(bytes(FOUR / UDP())),
    "ICMPv6 error": ETHER / SIX / ICMPv6DestUnreach() / Raw(bytes(SIX / UDP())),
    "ICMPv6 redirect": ETHER / SIX / ICMPv6ND_Redirect(),
    "later fragment": ETHER / IP(src="10.0.0.1", dst="10.0.0.2", frag=3, proto=17) / Raw(b"x" * 16),
    "later IPv6 fragment": ETHER / SIX / IPv6ExtHdrFragment(offset=3, nh=17) / Raw(b"x" * 16),
    "to many": Ether(src="02:00:00:00:00:01", dst="ff:ff:ff:ff:ff:ff") / FOUR / UDP(),
    "to a multicast address": ETHER / IP(src="10.0.0.1", dst="224.0.0.251") / UDP(),
    "to an IPv6 multicast address": ETHER / IPv6(src="fd00::1", dst="ff02::fb") / UDP(),
    "from nobody": ETHER / IP(src="0.0.0.0", dst="10.0.0.2") / UDP(),
    "from the loopback": ETHER / IP(src="127.0.0.1", dst="10.0.0.2") / UDP(),
    "from :: itself": ETHER / IPv6(src="::", dst="fd00::2") / UDP(),
    "from ::1": ETHER / IPv6(src="::1", dst="fd00::2") / UDP(),
    "ARP": ETHER / ARP(),
}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        made.load([Flow(0, 1, match(), Instructions((Reject(),)), cookie=REASON)])
        yield made


@pytest.mark.parametrize("name", ANSWERED)
def test_the_sender_gets_the_bytes_of_the_interpreter(bench: Bench, name: str) -> None:
    frame = bytes(ANSWERED[name])
    expected = answer(frame)
    assert expected is not None
    for _ in range(2):  # decided by the tables, and as remembered
        decision = bench.decide(1, frame)
        assert decision.frames == ((1, expected),)
        assert decision.drop is DropReason.REJECTED
    outcome = SlowSwitch(bench.datapath.flows(), {1: PortState()}).receive(1, frame, 0.0)
    assert (outcome.outputs, outcome.drop) == (((1, expected),), DropReason.REJECTED)


@pytest.mark.parametrize("name", ANSWERED)
def test_the_answer_is_sound_and_comes_from_the_destination(name: str) -> None:
    frame = bytes(ANSWERED[name])
    sent = answer(frame)
    assert sent is not None
    asked, told = Ether(frame), Ether(sent)
    assert (told.src, told.dst) == (asked.dst, asked.src)
    layer = IP if IP in asked else IPv6
    assert (told[layer].src, told[layer].dst) == (asked[layer].dst, asked[layer].src)
    assert _with_new_checksums(told) == sent
    if TCP in asked:
        assert (told[TCP].sport, told[TCP].dport) == (asked[TCP].dport, asked[TCP].sport)
        assert "R" in told[TCP].flags


def _with_new_checksums(told: Packet) -> bytes:
    fresh = told.copy()
    for layer in (IP, TCP):
        if layer in fresh:
            del fresh[layer].chksum
    if ICMP in fresh:
        del fresh[ICMP].chksum
    if ICMPv6DestUnreach in fresh:
        del fresh[ICMPv6DestUnreach].cksum
    return bytes(fresh)


ROUTERS = {
    4: IcmpError(4, 11, 0, int(IPv4Address("10.0.0.254"))),
    6: IcmpError(6, 1, 3, int(IPv6Address("fd00::ff00:1:2:fe"))),
}


@pytest.fixture(scope="module")
def router() -> Iterator[Bench]:
    with Bench(ports=3) as made:
        made.load(
            [
                Flow(0, 1, match(eth_type=eth_type), Instructions((Reject(ROUTERS[version]),)), cookie=REASON)
                for version, eth_type in ((4, 0x0800), (6, 0x86DD))
            ]
        )
        yield made


@pytest.mark.parametrize("name", ANSWERED)
def test_what_a_router_says_has_the_bytes_of_the_interpreter(router: Bench, name: str) -> None:
    frame = bytes(ANSWERED[name])
    error = ROUTERS[4 if IP in ANSWERED[name] else 6]
    expected = answer(frame, error)
    assert expected is not None
    for _ in range(2):
        assert router.decide(1, frame).frames == ((1, expected),)
    outcome = SlowSwitch(router.datapath.flows(), {1: PortState()}).receive(1, frame, 0.0)
    assert outcome.outputs == ((1, expected),)
    told = Ether(expected)
    layer = told[IP] if IP in told else told[IPv6]
    assert int(ip_address(layer.src)) == error.source
    assert _with_new_checksums(told) == expected
    assert (layer.payload.type, layer.payload.code) == (error.kind, error.code)


@pytest.mark.parametrize("name", [name for name in SILENT if "RST" not in name])
def test_a_router_is_silent_where_anybody_is(router: Bench, name: str) -> None:
    frame = bytes(SILENT[name])
    assert router.decide(1, frame).frames == ()


def test_a_router_says_nothing_of_packets_of_another_version() -> None:
    frame = bytes(ANSWERED["UDP"])
    assert answer(frame, ROUTERS[6]) is None
    with Bench(ports=3) as made:
        made.load([Flow(0, 1, match(), Instructions((Reject(ROUTERS[6]),)), cookie=REASON)])
        assert made.decide(1, frame).frames == ()


@pytest.mark.parametrize("name", SILENT)
def test_nobody_is_answered_who_must_not_be(bench: Bench, name: str) -> None:
    frame = bytes(SILENT[name])
    assert answer(frame) is None
    decision = bench.decide(1, frame)
    assert (decision.frames, decision.drop) == ((), DropReason.REJECTED)


def test_a_reset_acknowledges_what_did_not_acknowledge() -> None:
    """RFC 9293, section 3.10.7.1: SYN and FIN take a number each, and every byte."""
    told = Ether(answer(bytes(ETHER / FOUR / TCP(flags="SF", seq=10) / Raw(b"abc"))))[TCP]
    assert (told.seq, told.ack, str(told.flags)) == (0, 15, "RA")
    told = Ether(answer(bytes(ETHER / FOUR / TCP(flags="A", ack=77))))[TCP]
    assert (told.seq, told.ack, str(told.flags)) == (77, 0, "R")


def test_answers_of_a_port_are_bounded_and_counted(bench: Bench) -> None:
    bench.datapath.watch(frozenset())
    ifindex = bench.datapath._ports.ifindexes[2]
    before, began = bench.datapath.port_counters()[2].tx.packets, time.monotonic()
    with inside(bench.netns):
        for _ in range(2000):
            bpf.run(bench.datapath._pinned.program, bytes(ANSWERED["UDP"]), bpf.SkBuff(ifindex=ifindex))
    windows = (time.monotonic() - began) / WINDOW_S + 2
    assert 128 <= bench.datapath.port_counters()[2].tx.packets - before <= 128 * windows < 2000
    bench.watch()
