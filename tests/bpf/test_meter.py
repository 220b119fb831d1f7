"""Meters in the loaded program, beyond their first packet."""

from __future__ import annotations

from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from tests.bpf.bench import Bench
from vnet.base.drop import DropReason
from vnet.openflow import packet
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.openflow.group import Band, BandType, Meter, MeterFlag

AF21, AF22 = 18, 20
FRAME = bytes(
    Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
    / IP(src="10.0.0.1", dst="10.0.0.2", tos=AF21 << 2)
    / UDP(sport=5, dport=53)
    / bytes(40)
)
BURST = 16
"""Packets that any meter lets pass at once."""
METERED = Flow(0, 1, match(), Instructions((Output(2),), meter=1))


def sent(bench: Bench, band: Band, count: int) -> list[int | DropReason | None]:
    """The DSCP of each of so many packets, or why it was dropped."""
    bench.load([METERED], meters=[Meter(1, MeterFlag.PKTPS | MeterFlag.BURST, (band,))])
    decisions = [bench.decide(1, FRAME) for _ in range(count)]
    return [packet.parse(one.frames[0][1]).fields["ip_dscp"] if one.frames else one.drop for one in decisions]


def test_what_exceeds_a_remarking_band_is_remarked_not_dropped_though_the_way_is_known(bench: Bench) -> None:
    told = sent(bench, Band(BandType.DSCP_REMARK, 1, 1, precedence=1), BURST + 8)
    assert told[:BURST] == [AF21] * BURST
    assert AF22 in told[BURST:]
    assert set(told[BURST:]) <= {AF21, AF22}


def test_what_exceeds_a_dropping_band_is_dropped_though_the_way_is_known(bench: Bench) -> None:
    told = sent(bench, Band(BandType.DROP, 1, 1), BURST + 8)
    assert told[:BURST] == [AF21] * BURST
    assert DropReason.RATE in told[BURST:]
    assert set(told[BURST:]) <= {AF21, DropReason.RATE}
