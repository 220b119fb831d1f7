"""Connections in the kernel and in the slow twin, byte for byte, where generated programs do not go.

Translation, packets that are tracked twice, rewritten or forked between, marks that are copied from fields,
matches on the original direction. Each scenario is a program and what two hosts say in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, ICMPv6EchoReply, ICMPv6EchoRequest, IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw

from tests.bpf.bench import Bench
from tests.exams.differential.switches import agrees
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import (
    Action,
    Conntrack,
    ConntrackClear,
    Flow,
    Instructions,
    Move,
    Nat,
    Output,
    SetField,
    match,
)
from vnet.openflow.table import PortState, SlowSwitch

CLIENT, OTHER, SERVER, PUBLIC = "10.0.0.1", "10.0.0.3", "10.0.0.2", "192.0.2.9"
CLIENT6, SERVER6, PUBLIC6 = "fd00::1", "fd00::2", "2001:db8::9"
ADDRESS = 0xC0000209
ADDRESS6 = 0x20010DB8000000000000000000000009
ZONE = 7
PORTS = dict.fromkeys((1, 2, 3, 4), PortState())

Said = tuple[int, Packet]


@dataclass(frozen=True)
class Scenario:
    """A program and what comes to it: (port, packet)."""

    name: str
    flows: tuple[Flow, ...]
    said: tuple[Said, ...]
    passing: int
    """How many of them leave."""


def flow(table: int, priority: int, *actions: Action, **wanted: int | tuple[int, int]) -> Flow:
    return Flow(table, priority, match(**wanted), Instructions(apply=actions))


def by_state(table: int, *, new: Sequence[Action], known: Sequence[Action]) -> list[Flow]:
    """What a table does with what is new, and with the rest that is not invalid."""
    flows = []
    for family in (ETH_IPV4, ETH_IPV6):
        is_new = match(eth_type=family, ct_state=(CtState.NEW, CtState.NEW))
        flows.append(Flow(table, 10, is_new, Instructions(apply=tuple(new))))
        valid = match(eth_type=family, ct_state=(CtState.TRK, CtState.TRK | CtState.INV))
        flows.append(Flow(table, 5, valid, Instructions(apply=tuple(known))))
    return flows


def on(source: str, target: str, *layers: Packet) -> Packet:
    ip = IPv6 if ":" in source else IP
    frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / ip(src=source, dst=target)
    for layer in layers:
        frame = frame / layer
    return frame


def tcp(flags: str, source: str = CLIENT, target: str = SERVER, sport: int = 4000, dport: int = 80) -> Packet:
    return on(source, target, TCP(flags=flags, sport=sport, dport=dport))


def udp(source: str = CLIENT, target: str = SERVER, sport: int = 4000, dport: int = 53) -> Packet:
    return on(source, target, UDP(sport=sport, dport=dport), Raw(b"hello"))


def quoting(frame: Packet, length: int | None = None) -> Raw:
    """The IP packet of a frame, with so many bytes of it."""
    return Raw(bytes(frame)[14:][:length])


# -- translation ----------------------------------------------------------------------------------


def translating(family: int, *nat: Nat) -> tuple[Flow, ...]:
    commit = Conntrack(zone=ZONE, commit=True, nat=nat[0])
    return (
        flow(0, 1, Conntrack(zone=ZONE, table=1, nat=Nat()), eth_type=family),
        flow(1, 10, commit, Output(3), eth_type=family, in_port=1, ct_state=(CtState.NEW, CtState.NEW)),
        flow(1, 5, Output(4), eth_type=family, ct_state=(CtState.TRK, CtState.TRK | CtState.INV)),
    )


SNAT, SNAT6 = Nat(True, 4, (ADDRESS, ADDRESS)), Nat(True, 6, (ADDRESS6, ADDRESS6))
DNAT = Nat(False, 4, (ADDRESS, ADDRESS), (8080, 8080))


def echo(source: str, target: str, kind: int, identifier: int) -> Packet:
    return on(source, target, ICMP(type=kind, id=identifier, seq=1), Raw(b"ping"))


ECHO_IDS = Scenario(
    "clients with one echo identifier",
    translating(ETH_IPV4, SNAT),
    (
        (1, echo(CLIENT, SERVER, 8, 500)),
        (1, echo(OTHER, SERVER, 8, 500)),
        (1, echo(CLIENT, SERVER, 8, 511)),
        (1, echo(OTHER, SERVER, 8, 511)),
        (1, echo(CLIENT, SERVER, 8, 1000)),
        (2, echo(SERVER, PUBLIC, 0, 500)),
        (2, echo(SERVER, PUBLIC, 0, 501)),
        (2, echo(SERVER, PUBLIC, 0, 1)),
        (2, echo(SERVER, PUBLIC, 0, 77)),
        (2, on(SERVER, PUBLIC, ICMP(type=3, code=1), quoting(echo(PUBLIC, SERVER, 8, 501)))),
        (2, on("10.0.0.99", PUBLIC, ICMP(type=11), quoting(echo(PUBLIC, SERVER, 8, 1), 28))),
    ),
    10,
)

ECHO_IDS_6 = Scenario(
    "clients with one ICMPv6 echo identifier",
    translating(ETH_IPV6, SNAT6),
    (
        (1, on(CLIENT6, SERVER6, ICMPv6EchoRequest(id=500))),
        (1, on("fd00::3", SERVER6, ICMPv6EchoRequest(id=500))),
        (2, on(SERVER6, PUBLIC6, ICMPv6EchoReply(id=501))),
        (2, on(SERVER6, PUBLIC6, ICMPv6EchoReply(id=500))),
        (
            2,
            on(
                SERVER6,
                PUBLIC6,
                ICMPv6DestUnreach(code=1),
                quoting(on(PUBLIC6, SERVER6, ICMPv6EchoRequest(id=501))),
            ),
        ),
    ),
    5,
)

LOW_PORTS = Scenario(
    "low ports stay low",
    translating(ETH_IPV4, SNAT),
    tuple((1, udp(host, sport=port)) for host in (CLIENT, OTHER) for port in (511, 1023, 600, 5, 4000)),
    10,
)

QUOTED = Scenario(
    "errors about translated packets",
    translating(ETH_IPV4, DNAT),
    (
        (1, tcp("S", dport=80)),
        (2, tcp("SA", PUBLIC, CLIENT, 8080, 4000)),
        (1, tcp("A", dport=80)),
        # From the server's side about what the client said, by it and by a router; whole and cut short.
        (2, on(PUBLIC, CLIENT, ICMP(type=3, code=3), quoting(tcp("A", CLIENT, PUBLIC, 4000, 8080)))),
        (2, on("10.0.0.99", CLIENT, ICMP(type=11), quoting(tcp("A", CLIENT, PUBLIC, 4000, 8080), 28))),
        # From the client's side about what the server said.
        (1, on("10.0.0.98", SERVER, ICMP(type=3, code=4), quoting(tcp("A", SERVER, CLIENT, 80, 4000)))),
        (1, udp(dport=53)),
        (2, on("10.0.0.99", CLIENT, ICMP(type=11), quoting(udp(CLIENT, PUBLIC, 4000, 8080)))),
    ),
    8,
)

TWICE = Scenario(
    "a translated packet in the same zone again",
    (
        flow(0, 1, Conntrack(zone=ZONE, table=1, nat=Nat()), eth_type=ETH_IPV4),
        flow(
            1,
            10,
            Conntrack(zone=ZONE, commit=True, nat=SNAT, table=2),
            eth_type=ETH_IPV4,
            ct_state=(CtState.NEW, CtState.NEW),
        ),
        flow(
            1,
            5,
            Conntrack(zone=ZONE, commit=True, mark=(5, 5), table=2),
            eth_type=ETH_IPV4,
            ct_state=(0x20, 0x20),
        ),
        flow(2, 9, Conntrack(zone=ZONE, table=3), eth_type=ETH_IPV4),
        *(
            flow(3, 5, SetField("eth_dst", 0x020000000000 | state), Output(3), ct_state=(state, 0xFF))
            for state in range(0x20, 0x100)
        ),
    ),
    (
        (1, udp()),
        (1, udp()),
        (2, udp(SERVER, PUBLIC, 53, 4000)),
        (1, udp()),
        (2, udp(SERVER, PUBLIC, 53, 4001)),
        (2, on("10.0.0.99", PUBLIC, ICMP(type=11), quoting(udp(PUBLIC, SERVER)))),
    ),
    6,
)


# -- tracked again --------------------------------------------------------------------------------

SHOWS = tuple(
    flow(5, 5, SetField("eth_dst", 0x020000000000 | state), Output(3), ct_state=(state, 0xFF))
    for state in range(0x20, 0x40)
)
COMMIT = Conntrack(zone=ZONE, commit=True)


def after_track(*again: Action) -> tuple[Flow, ...]:
    """All is committed in table 1; then some actions, then the state is shown."""
    show = Conntrack(zone=ZONE, table=5)
    return (
        flow(0, 1, Conntrack(zone=ZONE, table=1), eth_type=ETH_IPV4),
        flow(1, 1, COMMIT, *again, show, eth_type=ETH_IPV4),
        *SHOWS,
    )


DIALOGUE = ((1, udp()), (2, udp(SERVER, CLIENT, 53, 4000)), (1, udp()), (1, udp(OTHER)))

REWRITTEN = Scenario(
    "a packet with another address is another connection's",
    after_track(SetField("ipv4_dst", 0x0A000064)),
    DIALOGUE,
    4,
)
MOVED = Scenario(
    "a packet with its ports swapped is another connection's",
    after_track(Move("udp_src", "reg3", 16), Move("udp_dst", "udp_src", 16), Move("reg3", "udp_dst", 16)),
    DIALOGUE,
    4,
)
OTHER_MAC = Scenario(
    "a packet with another MAC is the same", after_track(SetField("eth_src", 5)), DIALOGUE, 4
)
CLEARED = Scenario("a cleared packet is tracked again", after_track(ConntrackClear()), DIALOGUE, 4)
FORKED = Scenario(
    "what a fork tracked is not what its origin is",
    (
        flow(0, 1, Conntrack(zone=ZONE, table=1), Conntrack(zone=ZONE, table=5), eth_type=ETH_IPV4),
        flow(1, 1, COMMIT, SetField("ipv4_dst", 0x0A000064), COMMIT, Conntrack(zone=ZONE, table=5)),
        *SHOWS,
    ),
    DIALOGUE,
    4,
)
FORCED = Scenario(
    "a forced commit of a reply",
    (
        flow(0, 1, Conntrack(zone=ZONE, table=1), eth_type=ETH_IPV4),
        flow(1, 9, Conntrack(zone=ZONE, commit=True, force=True, mark=(1, 1), table=5), in_port=2),
        flow(1, 1, COMMIT, Conntrack(zone=ZONE, table=5), eth_type=ETH_IPV4),
        *SHOWS,
    ),
    (
        *((1, udp()), (2, udp(SERVER, CLIENT, 53, 4000)), (2, udp(SERVER, CLIENT, 53, 4000)), (1, udp())),
        *((1, tcp("S")), (2, tcp("SA", SERVER, CLIENT, 80, 4000)), (1, tcp("A")), (1, tcp("S"))),
        (2, on(SERVER, CLIENT, ICMP(type=3, code=3), quoting(tcp("S")))),
        (1, tcp("A")),
        (2, tcp("SF", SERVER, CLIENT, 80, 4000)),
    ),
    11,
)
RESET = Scenario(
    "a reset after which both sides go on",
    (
        flow(0, 1, Conntrack(zone=ZONE, table=1), eth_type=ETH_IPV4),
        flow(1, 1, COMMIT, Conntrack(zone=ZONE, table=5), eth_type=ETH_IPV4),
        *SHOWS,
    ),
    (
        *((1, tcp("S")), (2, tcp("SA", SERVER, CLIENT, 80, 4000)), (1, tcp("A"))),
        *((2, tcp("R", SERVER, CLIENT, 80, 4000)), (1, tcp("A")), (1, tcp("A"))),
        (2, tcp("A", SERVER, CLIENT, 80, 4000)),
        (1, tcp("S")),  # not anew: the connection goes on
        *((1, tcp("FA")), (2, tcp("FA", SERVER, CLIENT, 80, 4000)), (1, tcp("S"))),
    ),
    11,
)


# -- marks and the original direction -------------------------------------------------------------


def marking(*moves: Move, mark: tuple[int, int] | None = None) -> tuple[Flow, ...]:
    """What is new gets its mark and label from fields; each bit of both is shown by what leaves."""
    commit = Conntrack(zone=ZONE, commit=True, mark=mark, moves=moves)
    shows = (Move("ct_mark", "eth_dst", 32), Move("ct_label", "eth_src", 48, 60), Output(3))
    return (
        flow(0, 1, SetField("reg0", 0xABCD1234), Conntrack(zone=ZONE, table=1)),
        *by_state(1, new=(commit, Conntrack(zone=ZONE, table=2)), known=(Conntrack(zone=ZONE, table=2),)),
        flow(2, 1, *shows),
    )


COPIED = Scenario(
    "marks and labels from fields",
    marking(
        Move("reg0", "ct_mark", 16, 8, 16),
        Move("eth_src", "ct_label", 48, 0, 40),
        Move("ipv4_src", "ct_label", 8, 0, 100),
        mark=(0x55, 0xFF),
    ),
    ((1, udp()), (1, udp(OTHER)), (2, udp(SERVER, CLIENT, 53, 4000)), (1, on(CLIENT6, SERVER6, UDP()))),
    4,
)

ORIGINAL = Scenario(
    "the original direction is matched and copied",
    (
        flow(0, 1, Conntrack(zone=ZONE, table=1)),
        *by_state(1, new=(COMMIT, Conntrack(zone=ZONE, table=2)), known=(Conntrack(zone=ZONE, table=2),)),
        flow(2, 9, SetField("eth_dst", 9), Output(3), ct_state=(0x20, 0x30), ct_nw_proto=17, ct_tp_src=4000),
        flow(2, 8, SetField("eth_dst", 8), Output(3), ct_state=(0x20, 0x30), ct_nw_src=0x0A000003),
        flow(2, 7, SetField("eth_dst", 7), Output(3), ct_state=(0x20, 0x30), ct_nw_proto=1, ct_tp_src=8),
        flow(2, 6, SetField("eth_dst", 6), Output(3), ct_state=(0x20, 0x30), ct_ipv6_dst=(2, 0xFF)),
        flow(
            2, 5, SetField("eth_dst", 5), Output(3), ct_state=(0x20, 0x30), ct_nw_dst=(2, 0xFF), ct_tp_dst=80
        ),
        flow(2, 1, Move("ct_nw_dst", "eth_dst", 32), Move("ct_ipv6_src", "eth_src", 48, 80), Output(4)),
    ),
    (
        *DIALOGUE,
        (2, on("10.0.0.99", CLIENT, ICMP(type=11), quoting(udp()))),
        *((1, udp(OTHER, sport=9)), (2, udp(SERVER, OTHER, 53, 9)), (1, udp(CLIENT, sport=9))),
        *((1, echo(CLIENT, SERVER, 8, 1)), (2, echo(SERVER, CLIENT, 0, 1))),
        *((1, tcp("S")), (2, tcp("SA", SERVER, CLIENT, 80, 4000)), (1, tcp("A")), (1, tcp("A"))),
        *((1, on(CLIENT6, SERVER6, UDP(sport=1, dport=2))), (2, on(SERVER6, CLIENT6, UDP(sport=2, dport=1)))),
        (1, on(CLIENT6, "fd00::7", ICMPv6EchoRequest(id=3))),
    ),
    17,
)


# -- fragments ------------------------------------------------------------------------------------


def parts(frame: Packet, identification: int) -> tuple[Packet, Packet]:
    """A datagram in two fragments."""
    ip, data = frame[IP], bytes(frame)[34:]
    return _part(ip, identification, data[:24], 0, "MF"), _part(ip, identification, data[24:], 3, "")


def _part(ip: IP, identification: int, data: bytes, offset: int, flags: str) -> Packet:
    header = IP(src=ip.src, dst=ip.dst, proto=ip.proto, id=identification, frag=offset, flags=flags)
    return Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02") / header / Raw(data)


def _pings() -> Iterator[Said]:
    """Two clients' datagrams take turns, so that a later fragment comes behind another's first one."""
    one = parts(on(CLIENT, SERVER, ICMP(type=8, id=500), Raw(b"x" * 40)), 7)
    two = parts(on(OTHER, SERVER, ICMP(type=8, id=900), Raw(b"y" * 40)), 8)
    for piece in (one[0], two[0], one[1], two[1]):
        yield 1, piece


FRAGMENTS = Scenario("echoes in fragments that take turns", translating(ETH_IPV4, SNAT), tuple(_pings()), 4)

SCENARIOS = (
    *(ECHO_IDS, ECHO_IDS_6, LOW_PORTS, QUOTED, TWICE, REWRITTEN, MOVED, OTHER_MAC, CLEARED, FORKED, FORCED),
    *(RESET, COPIED, ORIGINAL, FRAGMENTS),
)


@pytest.fixture(scope="module")
def small() -> Iterator[Bench]:
    with Bench(ports=4) as made:
        yield made


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_kernel_does_what_the_twin_does(small: Bench, scenario: Scenario) -> None:
    slow = SlowSwitch(scenario.flows, PORTS)
    small.load(scenario.flows)
    small.forget_connections()
    passing = 0
    for number, (port, packet) in enumerate(scenario.said):
        frame = bytes(packet)
        twin, ours = slow.receive(port, frame, 0.0), small.decide(port, frame)
        story = [
            f"{number}: {packet.summary()}",
            f"{frame.hex()}",
            f"eBPF {ours.drop!r} state {ours.ct_state:#x}",
        ]
        story += [f"  {out}: {data.hex()}" for out, data in ours.frames]
        story += [f"twin {twin.drop!r}", *(f"  {out}: {data.hex()}" for out, data in twin.outputs)]
        story += [
            f"  {step.table} {step.flow and step.flow.priority} {step.fields['ct_state']:#x}"
            for step in twin.trail
        ]
        assert agrees(ours, twin), "\n".join(story)
        passing += bool(ours.frames)
    assert passing == scenario.passing
