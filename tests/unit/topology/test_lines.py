"""How fast NICs are declared to be, what they are marked with, and what befalls their packets."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from vnet.base.line import (
    BURST_MIN,
    STRAIGHT,
    UNLIMITED,
    Impairment,
    Line,
    Rate,
    rate_of,
)
from vnet.cli.expanded import expanded
from vnet.topology.inventory import Nic, expand
from vnet.topology.load import load_text

LAB = """
name: lab
networks: {lan: {vlan: 1, subnets: [10.0.0.0/24, "fd00::/64"]}}
templates:
  slow: {interfaces: {eth0: {network: lan, rate: {in: 10M, out: 5M, burst: 256K}}}}
vms:
  plain: {networks: [lan]}
  both: {interfaces: {eth0: {network: lan, rate: 1.5G}}}
  slow: {template: slow}
  slower: {template: slow, interfaces: {eth0: {rate: {out: 1M}, dscp: ef}}}
  other: {template: slow, interfaces: {eth0: {rate: 20M}}}
  bad: {interfaces: {eth0: {network: lan, rate: {out: 1M}, impair: {delay: 20ms, jitter: 1.5ms, loss: 0.1%, rate: 2M}}}}
  marked: {interfaces: {eth0: {network: lan, dscp: 0}}}
"""  # noqa: E501


def nic(vm: str, text: str = LAB) -> Nic:
    return next(each for each in expand(load_text(text, "lab.vnet.yaml", {}), {}).nics if each.vm == vm)


@pytest.mark.parametrize(
    ("vm", "line"),
    [
        ("plain", STRAIGHT),
        ("both", Line(rate_of(1_500_000_000), rate_of(1_500_000_000))),
        ("slow", Line(Rate(10**7, 256 << 10), Rate(5 * 10**6, 256 << 10))),
        ("slower", Line(Rate(10**7, 256 << 10), Rate(10**6, 256 << 10))),
        ("other", Line(Rate(2 * 10**7, 256 << 10), Rate(2 * 10**7, 256 << 10))),
        ("bad", Line(rate_of(2 * 10**6), rate_of(10**6), Impairment(20_000, 1_500, 1_000))),
    ],
)
def test_a_nic_has_the_line_that_the_file_gives_it(vm: str, line: Line) -> None:
    assert nic(vm).line == line


@pytest.mark.parametrize(
    ("text", "number"),
    [("46", 46), ("EF", 46), ("af41", 34), ("AF13", 14), ("CS6", 48), ("LE", 1), ("0", 0), ("63", 63)],
)
def test_a_mark_is_a_number_or_a_name(text: str, number: int) -> None:
    assert nic("marked", LAB.replace("dscp: 0", f"dscp: {text}")).dscp == number
    assert nic("plain").dscp is None and nic("slower").dscp == 46


def test_a_topology_written_out_has_the_same_lines_and_marks() -> None:
    def lines(text: str) -> dict[str, Any]:
        found = expand(load_text(text, "lab.vnet.yaml", {}), {}).nics
        return {each.name: (each.line, each.dscp) for each in found}

    topology = load_text(LAB, "lab.vnet.yaml", {})
    assert lines(yaml.safe_dump(expanded(topology, expand(topology, {})))) == lines(LAB)


def test_what_waits_is_bounded_by_time_and_at_slow_rates_by_frames() -> None:
    assert UNLIMITED.bps == 0
    slow, quick = rate_of(10**6), rate_of(10**9)
    assert (slow.burst_bytes, slow.depth_bytes) == (BURST_MIN, BURST_MIN + (32 << 10))
    assert (quick.burst_bytes, quick.depth_bytes) == (625_000, 625_000 + 12_500_000)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (STRAIGHT, "no rate"),
        (Line(rate_of(10**7), rate_of(1_500_000)), "in 10M/s, out 1.5M/s"),
        (Line(impairment=Impairment(20_000, 0, 1_000)), "impaired: delay 20ms, loss 0.1%"),
    ],
)
def test_a_line_is_told_as_it_is_written(line: Line, text: str) -> None:
    assert str(line) == text
