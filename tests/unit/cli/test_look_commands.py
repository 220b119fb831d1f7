"""What `vnet verify` prints of claims that were tried, and of those that could not be."""

from __future__ import annotations

import pytest

from vnet.cli.look_commands import _CLAIMS, _tell_untried
from vnet.cli.output import Format, rows


def row(tried: int, untried: str) -> dict[str, object]:
    probe = {"what": "a → b", "expected": "passes", "got": "passes", "passed": True}
    claim = {"claim": "allow a -> b", "at": "shop.vnet.yaml:9", "holds": True, "why": "", "checked": 3}
    return {**claim, "probes": [probe] * tried, "passed": True, "untried": untried}


@pytest.mark.parametrize(
    ("tried", "untried", "told"),
    [
        (2, "", "2 of 2 as claimed"),
        (2, "b is an endpoint", "2 of 2 as claimed, others not tried"),
        (0, "b is an endpoint", "not tried"),
        (0, "", "-"),
    ],
)
def test_the_table_says_what_was_tried(
    tried: int, untried: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    rows([row(tried, untried)], _CLAIMS, Format.TABLE)
    assert f"  {told}  " in f"{capsys.readouterr().out.splitlines()[1]}  "


def test_below_it_stands_why_something_was_not(capsys: pytest.CaptureFixture[str]) -> None:
    _tell_untried([row(2, ""), row(0, "b is an endpoint")])
    told = capsys.readouterr()
    assert (told.out + told.err).splitlines() == ["shop.vnet.yaml:9: allow a -> b: b is an endpoint"]
