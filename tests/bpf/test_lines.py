"""What a line takes of a NIC's packets, and what is lost: by bytes as they are on a wire."""

from __future__ import annotations

import struct
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from tests.bpf.bench import Bench, sh
from vnet.base.drop import DropReason
from vnet.base.line import STRAIGHT, UNLIMITED, Line, Rate, rate_of
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.message import PortConfig
from vnet.switch import abi
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside
from vnet.switch.trace import StepKind

BPS = 1_000_000
RATE = rate_of(BPS)
OUT, IN = Line(outward=RATE), Line(inward=RATE)
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
FRAME = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=1, dport=2) / bytes(1458))
COUNT = 200


@pytest.fixture(scope="module")
def made() -> Iterator[Bench]:
    with Bench(ports=2) as bench:
        bench.load([Flow(0, 10, match(in_port=n), Instructions((Output(3 - n),))) for n in (1, 2)])
        yield bench


@pytest.fixture
def bench(made: Bench) -> Bench:
    """The one bench as if no packet had ever come."""
    made.datapath.watch(frozenset())
    for port in (1, 2):
        made.datapath.lay(port, STRAIGHT)
        for name in ("port_state", "port_counters"):
            made.datapath._map[name].set(port, bytes(made.datapath._map[name].value_size))
    drops = made.datapath._map["drop_counters"]
    drops.set(DropReason.RATE, bytes(drops.value_size))
    return made


def state(bench: Bench, port: int) -> abi.PortStateMap:
    return abi.PortStateMap.from_buffer_copy(bench.datapath._map["port_state"].index(port) or b"")


def lost(bench: Bench) -> int:
    return bench.datapath.drop_counters().get(DropReason.RATE, 0)


@pytest.mark.parametrize(("port", "line"), [(1, OUT), (2, IN)])
def test_a_line_takes_what_fits_into_it_and_the_rest_is_lost_as_rate(
    bench: Bench, port: int, line: Line
) -> None:
    bench.datapath.lay(port, line)
    began = time.monotonic()
    bench.datapath.run(1, FRAME, repeat=COUNT)
    took_s = time.monotonic() - began
    passed = (COUNT - lost(bench)) * len(FRAME)
    assert RATE.depth_bytes <= passed <= RATE.depth_bytes + 2 * len(FRAME) + (took_s + 0.02) * BPS / 8
    sender, receiver = bench.datapath.port_counters()[1], bench.datapath.port_counters()[2]
    assert sender.rx_dropped == lost(bench)
    assert receiver.tx_dropped == (lost(bench) if port == 2 else 0)


@pytest.mark.parametrize(("port", "line"), [(1, OUT), (2, IN)])
def test_the_other_way_and_the_other_port_are_as_fast_as_they_can(
    bench: Bench, port: int, line: Line
) -> None:
    bench.datapath.lay(port, line)
    bench.datapath.run(2, FRAME, repeat=COUNT)
    assert lost(bench) == 0


GSO_SEGS, GSO_SIZE = 164, 176
"""Offsets in `struct __sk_buff` (linux/bpf.h)."""
TCP_OPTIONS = [("NOP", None), ("NOP", None), ("Timestamp", (1, 1))]
CUT: dict[str, tuple[Packet, int]] = {
    "TCP over IPv4": (IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="A"), 54),
    "TCP with options": (IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="A", options=TCP_OPTIONS), 66),
    "TCP over IPv6": (IPv6(src="fd00::1", dst="fd00::2") / TCP(flags="A", options=TCP_OPTIONS), 86),
    "UDP over IPv4": (IP(src="10.0.0.1", dst="10.0.0.2") / UDP(), 42),
    "UDP over IPv6": (IPv6(src="fd00::1", dst="fd00::2") / UDP(), 62),
}


@pytest.mark.parametrize("what", CUT)
def test_a_packet_that_is_to_be_cut_takes_the_bytes_of_its_segments(bench: Bench, what: str) -> None:
    headers, size = CUT[what]
    frame = bytes(ETHER / headers / bytes(2900))
    bench.datapath.lay(1, OUT)
    busy_ns = []
    for _ in range(2):
        context = bpf.SkBuff(ifindex=bench.datapath._ports.ifindexes[1])
        struct.pack_into("<I", context, GSO_SEGS, 3)
        struct.pack_into("<I", context, GSO_SIZE, 1000)
        with inside(bench.netns):
            bpf.run(bench.datapath._pinned.program, frame, context)
        busy_ns.append(state(bench, 1).line_out)
    on_wire = 2900 + 3 * size
    assert busy_ns[1] - busy_ns[0] == on_wire * 8_000_000_000 // BPS


def test_a_rate_that_changes_holds_from_the_next_packet_on(bench: Bench) -> None:
    bench.datapath.lay(1, OUT)
    bench.datapath.run(1, FRAME, repeat=COUNT)
    assert lost(bench)
    before, quick = lost(bench), Line(outward=rate_of(20 * BPS))
    bench.datapath.lay(1, quick)
    time.sleep(RATE.depth_bytes * 8 / BPS + 0.1)  # what is under way on the slow line leaves
    bench.datapath.run(1, FRAME, repeat=50)
    assert (lost(bench), bench.datapath.lines()[1]) == (before, quick)
    bench.datapath.lay(1, STRAIGHT)
    bench.datapath.run(1, FRAME, repeat=10 * COUNT)
    assert (lost(bench), bench.datapath.lines()[1]) == (before, STRAIGHT)


def test_a_port_keeps_its_line_when_it_is_configured_captured_and_adopted(bench: Bench) -> None:
    line = Line(inward=Rate(2 * BPS, 32 << 10), outward=RATE)
    bench.datapath.lay(1, line)
    bench.datapath.configure_port(1, PortConfig.PORT_DOWN)
    bench.datapath.configure_port(1, PortConfig(0))
    bench.datapath.watch(frozenset({1}))
    bench.restart()
    assert bench.datapath.lines() == {1: line, 2: STRAIGHT}
    assert [port.number for port in bench.datapath.ports()] == [1, 2]
    bench.datapath.run(1, FRAME, repeat=COUNT)
    assert lost(bench) > COUNT / 2


def test_a_trace_tells_what_becomes_of_what_the_line_has_let_through(bench: Bench) -> None:
    bench.datapath.lay(1, OUT)
    with bench.datapath.sandbox() as sandbox:
        steps = sandbox.run(1, FRAME).steps
    assert [step.arg for step in steps if step.kind is StepKind.OUTPUT] == [2]
    assert state(bench, 1).line_out == 0


def test_who_takes_away_a_line_is_found_out(bench: Bench) -> None:
    bench.datapath.lay(1, replace(OUT, inward=RATE))
    sh(f"ip -n {bench.netns} link del line1")
    assert bench.datapath.lines()[1] == Line(RATE, UNLIMITED)
    bench.datapath.lay(1, OUT)
    assert bench.datapath.lines()[1] == OUT
