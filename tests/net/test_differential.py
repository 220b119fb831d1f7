"""The differential exam: what differed once is replayed, and a little that is new is tried."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.exams.differential.case import FOLDER, Case
from tests.exams.differential.switches import Switches
from tests.exams.differential.worker import Report, work
from tests.ovs import why_not

CASES = sorted(FOLDER.glob("*.json"))
PROGRAMS = 10


@pytest.fixture(scope="module")
def switches() -> Iterator[Switches]:
    """All three, or without Open vSwitch where there is none."""
    with Switches(ovs=why_not() is None) as made:
        yield made


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_differed_once_is_the_same_now(switches: Switches, path: Path) -> None:
    case = Case.load(path)
    difference = switches.play(case.program, case.packets).difference
    assert difference is None, f"{case.found}\n{difference.between}\n{difference.story}"


@pytest.mark.skipif(why_not() is not None, reason=why_not() or "")
def test_a_few_programs_decide_alike_on_all_switches(tmp_path: Path) -> None:
    """`make differential` tries a million packets."""
    reports = list[Report]()
    seeds = iter([f"test-{number}" for number in range(PROGRAMS)])
    work(seeds, lambda report: reports.append(report) is None, tmp_path)
    assert [report.failure for report in reports if report.failure] == []
    assert sum(report.same for report in reports) > PROGRAMS * 200
