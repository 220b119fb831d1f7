"""Figures become verdicts: what the harness costs comes off first, and what is missed is said."""

from __future__ import annotations

import socket
import struct

from tests.perf import report
from tests.perf.inside import frames
from tests.perf.targets import BY_NUMBER, Figure, Limit, Row

COUNTED = Row(90, "work", "instructions", (Limit(1.0, "bridge"), Limit(0.5, "ovs")), harness=True)
FIGURES = (
    Figure(90, "", "harness", 1000),
    Figure(90, "", "bridge", 3000),
    Figure(90, "", "ovs", 4000),
    Figure(90, "", "vnet", 2800),
)


def verdicts(row: Row, *figures: Figure) -> list[str]:
    return [verdict.text for verdict in report.verdicts(row, report.net(row, figures))]


def test_ratios_are_those_of_the_switches_alone() -> None:
    assert verdicts(COUNTED, *FIGURES) == [
        "vnet 0.9 x bridge, target <= 1 x bridge: met",
        "vnet 0.6 x ovs, target <= 0.5 x ovs: missed by 20%",
    ]


def test_without_the_harness_nothing_is_said_of_counts() -> None:
    assert verdicts(COUNTED, *FIGURES[1:]) == []


def test_a_limit_whose_peer_was_not_measured_is_not_judged() -> None:
    assert verdicts(COUNTED, *(figure for figure in FIGURES if figure.peer != "ovs")) == [
        "vnet 0.9 x bridge, target <= 1 x bridge: met"
    ]


def test_a_case_without_a_harness_of_its_own_takes_the_rows_first() -> None:
    row = Row(91, "work", "instructions", (Limit(1.05, "vnet", "100", "10"),), harness=True)
    figures = [
        Figure(91, "0", "harness", 1000),
        Figure(91, "10", "vnet", 2000),
        Figure(91, "100", "vnet", 2100),
    ]
    assert verdicts(row, *figures) == ["vnet (100) 1.1 x vnet, target <= 1.05 x vnet: missed by 5%"]


def test_nothing_lost_is_met_and_one_lost_is_missed() -> None:
    row = BY_NUMBER[8]
    assert verdicts(row, Figure(8, "of 20 revocations", "vnet", 0))[0].endswith("met")
    assert verdicts(row, Figure(8, "of 20 revocations", "vnet", 1))[0].endswith("missed")


def test_throughput_kept_must_be_at_least_so_much() -> None:
    row = BY_NUMBER[7]
    assert verdicts(row, Figure(7, "scan", "vnet", 0.99)) == ["vnet (scan) 0.99, target >= 0.98: met"]
    assert verdicts(row, Figure(7, "scan", "vnet", 0.49))[0].endswith("missed by 50%")


def test_checksums_of_the_benchs_frames_are_right() -> None:
    """A checksum over data that holds its own checksum is zero (RFC 1071)."""
    a, b = frames.End(1, 0x020000000001, 0x0A000001), frames.End(2, 0x020000000002, 0x0A000002)
    for _, frame in frames.handshake(a, b, (40000, 80)):
        length = struct.unpack_from("!H", frame, 16)[0]
        segment = frame[34 : 14 + length]
        pseudo = frame[26:34] + struct.pack("!HH", socket.IPPROTO_TCP, len(segment))
        assert frames.checksum(frame[14:34]) == 0
        assert frames.checksum(pseudo + segment) == 0
