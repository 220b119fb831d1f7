"""The fast subset of os-ken's switch tests: what this switch passed when results were kept, it passes."""

from __future__ import annotations

import pytest

from tests.exams.conformance import report
from tests.exams.conformance.cases import CATEGORIES, Case, read, sample
from tests.exams.conformance.lab import LabError, Verdict, cases_folder
from tests.exams.conformance.run import Run
from tests.ovs import why_not

JOBS = 4


def _missing() -> str | None:
    try:
        cases_folder()
    except LabError as error:
        return str(error)
    return why_not()


pytestmark = pytest.mark.skipif(_missing() is not None, reason=_missing() or "")


def _examine(cases: list[Case], capsys: pytest.CaptureFixture[str]) -> dict[str, Verdict]:
    done: list[Verdict] = []

    def told(case: Case, verdict: Verdict) -> None:
        done.append(verdict)
        if len(done) % 25 == 0:
            with capsys.disabled():
                print(f" {len(done)}/{len(cases)}", end="", flush=True)

    return {verdict.key: verdict for verdict in Run("vnet", JOBS, told).examine(cases)}


@pytest.mark.timeout(240)
def test_what_passed_when_results_were_kept_passes(capsys: pytest.CaptureFixture[str]) -> None:
    """`make conformance` renews the results; this runs a fifth of them in a minute or so."""
    kept = {result.key for result in report.load(report.RESULTS / "vnet.json") if result.passed}
    cases = [case for case in sample(read(cases_folder())) if case.key in kept]
    assert len(cases) > 100, "the kept results are those of a switch that passes little"
    assert {case.category for case in cases} == set(CATEGORIES)
    verdicts = _examine(cases, capsys)
    lost = [f"{key}: {verdict.reason}" for key, verdict in verdicts.items() if not verdict.passed]
    assert not lost
