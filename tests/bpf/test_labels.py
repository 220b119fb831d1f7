"""Labels taken off short frames: Ethernet's minimum, byte for byte as the interpreter does."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.bpf.bench import Bench
from tests.exams.differential.switches import agrees
from vnet.openflow.fields import VLAN_PRESENT
from vnet.openflow.flow import (
    Action,
    Flow,
    Instructions,
    Match,
    Output,
    PopMpls,
    PopVlan,
    PushVlan,
    SetField,
    ToGroup,
)
from vnet.openflow.group import Bucket, Group, GroupType
from vnet.openflow.table import PortState, SlowSwitch

TYPE = 0x88B5
PORTS = {number: PortState() for number in range(1, 9)}
TAG = (PushVlan(), SetField("vlan_vid", VLAN_PRESENT | 9))
WAYS: dict[str, tuple[Action, ...]] = {
    "popped": (PopMpls(TYPE), Output(2)),
    "tagged, then popped": (*TAG, PopMpls(TYPE), Output(2)),
    "untagged, then popped": (PopVlan(), PopMpls(TYPE), Output(2)),
    "popped, then tagged": (PopMpls(TYPE), *TAG, Output(2)),
}
KEPT = Output(3)
"""Behind a bucket: the frame is as it was."""


def frames() -> Iterator[bytes]:
    for tag in ((), (Dot1Q(vlan=5),)):
        for length in range(57, 70):
            frame = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            for header in (*tag, MPLS(label=7, s=1, ttl=9)):
                frame = frame / header
            yield bytes(frame / Raw(bytes(range(1, 1 + length - len(frame)))))


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("in_bucket", [False, True])
def test_a_frame_long_enough_for_ethernet_stays_so_and_is_itself_behind_a_bucket(
    bench: Bench, way: str, in_bucket: bool
) -> None:
    actions = WAYS[way]
    groups = [Group(1, GroupType.ALL, (Bucket(actions), Bucket((Output(4),))))]
    flow = Flow(0, 1, Match(), Instructions((ToGroup(1), KEPT) if in_bucket else (*actions, KEPT)))
    bench.load([flow], groups if in_bucket else ())
    slow = SlowSwitch([flow], PORTS, groups=groups if in_bucket else ())
    for frame in frames():
        ours, twin = bench.decide(1, frame), slow.receive(1, frame, 0.0)
        assert agrees(ours, twin), (frame.hex(), [(n, f.hex()) for n, f in ours.frames], twin.outputs)
