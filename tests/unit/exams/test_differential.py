"""The parts of the differential exam that need no switch."""

from __future__ import annotations

import random
from pathlib import Path

from tests.exams.differential.case import Case, tail
from tests.exams.differential.connections import connected
from tests.exams.differential.frames import Frame, frame, frames
from tests.exams.differential.shrink import shrink
from tests.net.twin_generator import programs
from vnet.openflow import packet
from vnet.openflow.flow import Output


def test_a_case_is_the_same_after_it_was_written_and_read(tmp_path: Path) -> None:
    for seed in range(40):
        dice = random.Random(seed)
        program = connected(dice, 1)[0] if seed % 2 else programs(dice)
        case = Case(program, tuple(Frame(one.port, one.data, False) for one in frames(dice, 3)), "why")
        case.save(tmp_path / "case.json")
        assert Case.load(tmp_path / "case.json") == case


def test_a_seed_gives_the_same_headers_with_any_tail() -> None:
    first, second = frame(1, 5, b"abcd"), frame(1, 5, b"efgh")
    assert (tail(first.data), tail(second.data)) == (b"abcd", b"efgh")
    assert packet.parse(first.data).fields == packet.parse(second.data).fields


def test_generated_frames_are_of_all_kinds() -> None:
    seen, malformed = set[str](), 0
    for one in frames(random.Random(1), 5000):
        try:
            fields = packet.parse(one.data).fields
        except packet.Malformed:
            malformed += 1
            continue
        seen |= fields.keys()
    assert seen >= {"tcp_flags", "udp_src", "sctp_src", "icmpv4_type", "ipv6_nd_sll", "arp_op", "mpls_label"}
    assert 200 < malformed < 1000


def test_shrinking_leaves_what_the_failure_needs() -> None:
    """A made-up switch fails where a flow sends to port 3 and the last frame has 0x99 as its 21st byte."""
    dice = random.Random(3)
    program = programs(dice)
    last = bytes(20) + b"\x99" + bytes(range(1, 60))

    def fails(case: Case) -> bool:
        used = (flow.instructions for flow in case.program.flows)
        out = any(action == Output(3) for one in used for action in one.apply + one.write)
        return out and case.packets[-1].data[20:21] == b"\x99"

    packets = (*frames(dice, 20), Frame(1, last))
    assert fails(Case(program, packets))
    small = shrink(Case(program, packets), fails)
    (flow,) = small.program.flows
    assert flow.instructions.apply + flow.instructions.write == (Output(3),)
    assert (small.program.groups, flow.match.entries) == ((), ())
    assert small.packets == (Frame(1, bytes(20) + b"\x99", False),)
