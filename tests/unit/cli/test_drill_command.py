"""How a drill ends: its summary and exit code."""

from __future__ import annotations

import pytest

from vnet.base.errors import Exit
from vnet.cli.drill_command import _exit_code, summary


def row(outcome: str, nic: str = "a.eth0") -> dict:
    group = "control" if outcome in ("arrived", "lost") else "arp"
    return {"nic": nic, "group": group, "attack": "x", "outcome": outcome}


CASES = [
    (
        ["arrived", "stopped", "stopped"],
        Exit.OK,
        "2 attacks, 2 stopped, 0 got through; 1 of 1 controls arrived",
    ),
    (
        ["arrived", "stopped", "got through", "not tried"],
        Exit.CLAIM_FAILED,
        "2 attacks, 1 stopped, 1 got through; 1 more not tried; 1 of 1 controls arrived",
    ),
    (
        ["lost", "stopped"],
        Exit.FAILED,
        "1 attacks, 1 stopped, 0 got through; 0 of 1 controls arrived:"
        " what honest packets cannot do either proves nothing",
    ),
    (["stopped"], Exit.FAILED, "1 attacks, 1 stopped, 0 got through; 0 of 0 controls arrived"),
]


@pytest.mark.parametrize(("outcomes", "code", "text"), CASES)
def test_a_drill_passes_only_if_all_is_stopped_and_the_controls_arrive(
    outcomes: list[str], code: Exit, text: str
) -> None:
    rows = [row(outcome) for outcome in outcomes]
    assert (_exit_code(rows), summary(rows)) == (code, text)


def test_each_nic_needs_a_control_of_its_own() -> None:
    rows = [row("arrived"), row("stopped"), row("stopped", "a.eth1")]
    assert _exit_code(rows) is Exit.FAILED
