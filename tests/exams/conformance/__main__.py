"""The command line of the exam."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.exams.conformance import report
from tests.exams.conformance.cases import CATEGORIES, Case, read, sample, select
from tests.exams.conformance.lab import ROOT, SWITCHES, LabError, Verdict, cases_folder
from tests.exams.conformance.run import Run

DOCUMENT = ROOT / "docs" / "conformance.md"
PROGRESS_S = 5.0
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _Progress:
    """A line for every failure if wished, and every few seconds one that tells how far it is."""

    def __init__(self, total: int, verbose: bool) -> None:
        self._total, self._verbose = total, verbose
        self._started = self._shown = time.monotonic()
        self._done = self._passed = 0

    def __call__(self, case: Case, verdict: Verdict) -> None:
        self._done += 1
        self._passed += verdict.passed
        if self._verbose:
            state = "ok  " if verdict.passed else "FAIL"
            print(f"{state} {case.key} {case.description}", file=sys.stderr)
            if not verdict.passed:
                print(f"     {verdict.reason}", file=sys.stderr)
        now = time.monotonic()
        if now - self._shown >= PROGRESS_S or self._done == self._total:
            self._shown = now
            passed, failed = self._passed, self._done - self._passed
            elapsed = f"{now - self._started:.0f} s"
            print(
                f"   {self._done}/{self._total}: {passed} passed, {failed} failed, {elapsed}", file=sys.stderr
            )


def main() -> int:
    """Run what is asked for. The exit code is 0 if an examination took place, whatever its result."""
    given = _arguments()
    for number in SIGNALS:
        signal.signal(number, _interrupt)
    try:
        for switch in given.switch or ([] if given.document else SWITCHES):
            _examine(switch, given)
    except LabError as error:
        print(f"conformance: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("conformance: interrupted; all is cleaned up", file=sys.stderr)
        return 130
    if given.document:
        _write_document()
    return 0


def _interrupt(*_arguments: object) -> None:
    """Once: a second signal would interrupt the cleaning up."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def _examine(switch: str, given: argparse.Namespace) -> None:
    cases = _chosen(given)
    print(f"== {report.NAMES[switch]}: {len(cases)} cases", file=sys.stderr)
    run = Run(switch, given.jobs, _Progress(len(cases), given.verbose), given.repair_sctp)
    found = report.results(cases, run.examine(cases))
    if given.results is not None:
        report.save(_file(given.results, switch), switch, found)
    if given.output == "json":
        print(report.as_json(switch, found), end="")
    else:
        print(report.table(found))
        print(f"{report.NAMES[switch]}: {report.summary(found)}")


def _chosen(given: argparse.Namespace) -> Sequence[Case]:
    cases = read(cases_folder())
    if given.sample:
        cases = sample(cases)
    return select(cases, given.category or CATEGORIES, given.only or ())


def _file(path: Path, switch: str) -> Path:
    """A folder holds a file for each switch."""
    return path / f"{switch}.json" if path.is_dir() else path


def _write_document() -> None:
    kept = {switch: report.RESULTS / f"{switch}.json" for switch in SWITCHES}
    found = {switch: report.load(path) for switch, path in kept.items() if path.exists()}
    DOCUMENT.write_text(report.document(found))
    print(f"wrote {DOCUMENT.relative_to(ROOT)}", file=sys.stderr)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.exams.conformance")
    parser.add_argument("--switch", action="append", choices=SWITCHES, help="which to examine; default both")
    parser.add_argument("--category", action="append", choices=CATEGORIES, help="default all")
    parser.add_argument("--only", action="append", metavar="WORD", help="cases whose name holds the word")
    parser.add_argument("--sample", action="store_true", help="the fast subset")
    parser.add_argument("--jobs", type=int, default=4, help="labs at once; they mostly wait (default 4)")
    parser.add_argument("-o", "--output", choices=("text", "json"), default="text")
    parser.add_argument(
        "--results", type=Path, help="keep them as JSON: a file, or a folder of one per switch"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every case")
    parser.add_argument("--repair-sctp", action="store_true", help="give SCTP test packets correct checksums")
    parser.add_argument(
        "--document", action="store_true", help="write docs/conformance.md from saved results"
    )
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
