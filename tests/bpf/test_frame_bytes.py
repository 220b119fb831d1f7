"""What is counted are the bytes of frames as they are on the wire, with the tag that the kernel keeps beside
the data: in a frame of BPF_PROG_TEST_RUN it would lie in the data.

Source: ifInOctets and ifOutOctets of RFC 2863, section 3.1.6; Open vSwitch counts the same.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Dot1Q, Ether

from tests.bpf.ends import Ends, does
from tests.bpf.test_conntrack import tracking
from vnet.openflow.fields import VLAN_PRESENT
from vnet.openflow.flow import Flow, Instructions, Output, PopVlan, PushVlan, SetField, ToGroup, match
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.switch.connections import tracked
from vnet.switch.datapath import Change, Counter
from vnet.switch.taps import Tap

ETHER = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
BEHIND = IP(src="10.0.0.1", dst="10.0.0.2") / UDP(sport=5, dport=53)
TAGGED = bytes(ETHER / Dot1Q(vlan=5) / BEHIND / bytes(100 - 46))
PLAIN = bytes(ETHER / BEHIND / bytes(100 - 42))
TIMES = 3
"""The first packet is decided by the tables, those behind it by the cache."""


@pytest.fixture
def ends() -> Iterator[Ends]:
    with Ends(3) as made:
        yield made


def sent(ends: Ends, frame: bytes, times: int = TIMES) -> list[bytes]:
    """What arrives at port 2 of frames that port 1 sends."""
    assert len(frame) == 100
    ends.wire(2)
    for _ in range(times):
        ends.wire(1).send(frame)
    return ends.received(2)


def of(size_bytes: int) -> Counter:
    return Counter(TIMES, TIMES * size_bytes)


def test_a_tag_counts_at_ports_flows_groups_and_meters(ends: Ends) -> None:
    flow = Flow(0, 1, match(in_port=1), Instructions((ToGroup(7),), meter=4))
    group = Group(7, GroupType.INDIRECT, (Bucket((Output(2),)),))
    meter = Meter(4, MeterFlag.PKTPS, (Band(BandType.DROP, 1_000_000),))
    ends.datapath.commit(Change((flow,), put_groups=(group,), put_meters=(meter,)))
    assert sent(ends, TAGGED) == [TAGGED] * TIMES
    datapath, counted = ends.datapath, of(100)
    assert (datapath.port_counters()[1].rx, datapath.port_counters()[2].tx) == (counted, counted)
    assert datapath.flow_counters()[flow.key] == counted
    assert datapath.group_counters()[7].total == datapath.group_counters()[7].buckets[0] == counted
    assert datapath.meter_counters()[4].total == counted


def test_a_tag_costs_a_meter_of_kilobits_its_bits(ends: Ends) -> None:
    flow = Flow(0, 1, match(in_port=1), Instructions((Output(2),), meter=4))
    meter = Meter(4, MeterFlag.KBPS | MeterFlag.BURST, (Band(BandType.DROP, 1, 7),))
    ends.datapath.commit(Change((flow,), put_meters=(meter,)))
    assert len(sent(ends, TAGGED, times=9)) == 8  # of 800 bits; of 768 all nine would pass
    assert ends.datapath.meter_counters()[4].bands == (Counter(1, 100),)


def test_what_is_pushed_counts_where_it_leaves(ends: Ends) -> None:
    push = does(PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 7), Output(2), in_port=1)
    ends.put(push)
    assert [len(frame) for frame in sent(ends, PLAIN)] == [104] * TIMES
    ports = ends.datapath.port_counters()
    assert (ports[1].rx, ports[2].tx, ends.datapath.flow_counters()[push.key]) == (of(100), of(104), of(100))


def test_what_is_popped_does_not_count_where_it_leaves(ends: Ends) -> None:
    pop = does(PopVlan(), Output(2), in_port=1)
    ends.put(pop)
    assert [len(frame) for frame in sent(ends, TAGGED)] == [96] * TIMES
    ports = ends.datapath.port_counters()
    assert (ports[1].rx, ports[2].tx, ends.datapath.flow_counters()[pop.key]) == (of(100), of(96), of(100))


def test_a_tag_counts_for_its_connection(ends: Ends) -> None:
    ends.put(*tracking())
    sent(ends, TAGGED)
    (one,) = tracked(ends.datapath.slots(0, 1), 0)
    assert (one.packets, one.octets) == ((TIMES, 0), (TIMES * 100, 0))


def test_a_tag_counts_at_the_port_of_a_mirror(ends: Ends) -> None:
    ends.put(does(Output(2), in_port=1))
    ends.datapath.tap({0: Tap(frozenset({1}), to_port=3)})
    sent(ends, TAGGED)
    assert ends.datapath.port_counters()[3].tx == of(100)
