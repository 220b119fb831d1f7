"""Meters in the loaded program, beyond their first packet."""

from __future__ import annotations

import struct
from collections.abc import Iterable

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.openflow import packet, rewrite
from vnet.openflow.flow import Flow, Instructions, Output, SetField, match
from vnet.openflow.group import Band, BandType, Meter, MeterFlag

AF21, AF22 = 18, 20
ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BEHIND = UDP(sport=5, dport=53) / bytes(40)
FRAME = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2", tos=AF21 << 2) / BEHIND)
FRAME6 = bytes(ETHER / IPv6(src="fd00::1", dst="fd00::2", tc=AF21 << 2) / BEHIND)
BURST = 3
PACKETS, KILOBITS = MeterFlag.PKTPS | MeterFlag.BURST, MeterFlag.KBPS | MeterFlag.BURST
SECOND_NS = 1_000_000_000
METERED = Flow(0, 1, match(), Instructions((Output(2),), meter=1))
REMARK = Band(BandType.DSCP_REMARK, 1, BURST, precedence=1)


def sent(
    bench: Bench, band: Band, flows: Iterable[Flow] = (METERED,), frame: bytes = FRAME
) -> list[tuple[int, int] | DropReason | None]:
    """(port, DSCP) of some packets more than a burst, or why they were dropped."""
    bench.load(flows, meters=[Meter(1, PACKETS, (band,))])
    told: list[tuple[int, int] | DropReason | None] = []
    for _ in range(BURST + 8):
        decision = bench.decide(1, frame)
        told.append(decision.drop)
        for port, out in decision.frames:
            told[-1] = port, packet.parse(out).fields["ip_dscp"]
            assert rewrite.set_field(out, "ip_dscp", AF21) == frame
    return told


@pytest.mark.parametrize("frame", [FRAME, FRAME6])
def test_what_exceeds_a_remarking_band_is_remarked_not_dropped_though_the_way_is_known(
    bench: Bench, frame: bytes
) -> None:
    told = sent(bench, REMARK, frame=frame)
    assert told[:BURST] == [(2, AF21)] * BURST
    assert (2, AF22) in told[BURST:]
    assert set(told[BURST:]) <= {(2, AF21), (2, AF22)}


def test_what_a_meter_remarks_is_told_apart_by_the_next_table(bench: Bench) -> None:
    flows = (
        Flow(0, 1, match(), Instructions(meter=1, goto=1)),
        Flow(1, 1, match(), Instructions((Output(2),))),
        Flow(1, 2, match(eth_type=0x800, ip_dscp=AF22), Instructions((Output(3),))),
    )
    told = sent(bench, REMARK, flows)
    assert told[:BURST] == [(2, AF21)] * BURST
    assert (3, AF22) in told[BURST:]
    assert set(told[BURST:]) <= {(2, AF21), (3, AF22)}


def test_what_is_written_behind_a_meter_counts_though_it_is_what_was_there_before(bench: Bench) -> None:
    write = Instructions((SetField("ip_dscp", AF21), Output(2)), meter=1)
    assert sent(bench, REMARK, [Flow(0, 1, match(eth_type=0x800), write)]) == [(2, AF21)] * (BURST + 8)


def test_what_exceeds_a_dropping_band_is_dropped_though_the_way_is_known(bench: Bench) -> None:
    told = sent(bench, Band(BandType.DROP, 1, BURST))
    assert told[:BURST] == [(2, AF21)] * BURST
    assert DropReason.RATE in told[BURST:]
    assert set(told[BURST:]) <= {(2, AF21), DropReason.RATE}


def passed(bench: Bench, count: int, frame: bytes = FRAME) -> int:
    """How many of so many packets a meter lets pass."""
    return sum(bench.decide(1, frame).drop is None for _ in range(count))


def wait(bench: Bench, seconds: int) -> None:
    """What comes next comes so much later: the meter has been asked last that long before."""
    (meter,) = bench.datapath._image.meters.values()
    states = bench.datapath._map["meter_state"]
    state = bytearray(states.index(meter.slot) or b"")
    struct.pack_into("<q", state, 8, struct.unpack_from("<q", state, 8)[0] - seconds * SECOND_NS)
    states.set(meter.slot, bytes(state))


@pytest.mark.parametrize("burst", [1, 10, 17])
def test_a_full_bucket_lets_as_many_packets_pass_as_its_burst_and_no_more(bench: Bench, burst: int) -> None:
    bench.load([METERED], meters=[Meter(1, PACKETS, (Band(BandType.DROP, 1, burst),))])
    assert passed(bench, 20) in (burst, burst + 1)


def test_a_band_without_a_burst_lets_its_rate_pass_at_once(bench: Bench) -> None:
    bench.load([METERED], meters=[Meter(1, MeterFlag.PKTPS, (Band(BandType.DROP, 4),))])
    assert passed(bench, 20) in (4, 5)


def test_a_bucket_fills_for_as_long_as_nothing_comes(bench: Bench) -> None:
    bench.load([METERED], meters=[Meter(1, PACKETS, (Band(BandType.DROP, 1, 10),))])
    assert passed(bench, 20) in (10, 11)
    wait(bench, 4)
    assert passed(bench, 20) in (4, 5)
    wait(bench, 12)
    assert passed(bench, 20) in (10, 11)


def test_what_a_high_rate_makes_of_seconds_is_a_full_bucket_and_no_overflow(bench: Bench) -> None:
    bands = Band(BandType.DROP, 1, 10), Band(BandType.DROP, 0xFFFFFFFF, 1)
    bench.load([METERED], meters=[Meter(1, PACKETS, bands)])
    assert passed(bench, 20) in (10, 11)
    wait(bench, 3)
    assert passed(bench, 20) in (3, 4)


def test_a_packet_larger_than_the_bucket_passes_when_it_is_full_and_is_paid_for_afterwards(
    bench: Bench,
) -> None:
    bench.load([METERED], meters=[Meter(1, KILOBITS, (Band(BandType.DROP, 1, 1),))])
    large = bytes(ETHER / IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=53) / bytes(458))
    assert len(large) * 8 == 4000  # four seconds
    assert passed(bench, 3, large) == 1
    wait(bench, 2)
    assert passed(bench, 3, large) == 0
    wait(bench, 1)
    assert passed(bench, 3, large) == 0
    wait(bench, 1)
    assert passed(bench, 3, large) == 1
