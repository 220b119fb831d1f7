"""The page tells of each limit that is missed by how much, and why."""

from __future__ import annotations

from tests.perf.document import UNEXPLAINED, misses
from tests.perf.targets import BY_NUMBER, Figure


def test_of_rows_that_keep_their_limits_nothing_is_told() -> None:
    assert list(misses([Figure(17, "unicast 2", "vnet", 100), Figure(17, "unicast 1000", "vnet", 101)])) == []


def test_a_missed_limit_is_told_with_its_reason() -> None:
    figures = [Figure(17, "copy of 1000", "vnet", 300), Figure(17, "copy of 1000", "bridge", 200)]
    (line,) = misses(figures)
    assert line.startswith("- **Row 17**, many ports; flood: vnet (copy of 1000) 1.5 x bridge")
    assert "missed by 50%" in line
    assert line.endswith(BY_NUMBER[17].missed)


def test_a_missed_limit_without_a_reason_says_so() -> None:
    (line,) = misses([Figure(8, "of 20 revocations", "vnet", 3)])
    assert line.endswith(UNEXPLAINED)
