"""Exam 4: fuzz.

python -m tests.exams.fuzz [--seed N] [--seconds N] [--cases N] [--part NAME ...]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from tests.exams.fuzz.case import FOLDER, Case, Part, examine, judge
from tests.exams.fuzz.parts import PARTS, made

PROGRESS_S = 10.0
MOST_FAILURES = 8
"""Of one part, after which it is given up: one bug has many cases."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What ends a part, whichever comes first."""

    seconds: float
    cases: int


@dataclass(slots=True)
class Tally:
    """How many cases passed, and those that did not."""

    passed: int = 0
    failed: int = 0


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exams.fuzz", description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--seconds", type=float, default=60.0, help="for each part")
    parser.add_argument("--count", type=int, default=1_000_000, help="most cases of each part")
    parser.add_argument("--part", action="append", choices=sorted(PARTS), help="only these")
    parser.add_argument("--keep", type=Path, default=FOLDER, help="where shrunk failures are kept")
    parser.add_argument("--again", type=Path, nargs="+", metavar="FILE", help="only play kept cases")
    given = parser.parse_args()
    total = Tally()
    if given.again:
        _replay([Case.load(path) for path in given.again], total)
    else:
        for name in given.part or PARTS:
            with made(name) as part:
                _run(part, given.seed, Bounds(given.seconds, given.count), given.keep, total)
    print(f"{total.passed} passed, {total.failed} failed")
    return min(total.failed, 1)


def _run(part: Part, seed: str, bounds: Bounds, keep: Path, total: Tally) -> None:
    """Cases of one part until a bound is reached."""
    failures, tried = 0, 0
    for number in _numbers(part.name, bounds):
        tried += 1
        case = examine(part, f"{seed}:{number}")
        if case is None:
            total.passed += 1
            continue
        total.failed += 1
        failures += 1
        print(f"{case.name}: {case.found}\nkept as {case.save(keep)}", file=sys.stderr, flush=True)
        if failures >= MOST_FAILURES:
            print(f"{part.name}: given up", file=sys.stderr, flush=True)
            break
    print(f"{part.name}: {tried} cases, {failures} failed", flush=True)


def _numbers(name: str, bounds: Bounds) -> Iterator[int]:
    began, shown = time.monotonic(), 0.0
    for number in count():
        passed = time.monotonic() - began
        if passed >= bounds.seconds or number >= bounds.cases:
            return
        if passed - shown >= PROGRESS_S:
            shown = passed
            print(f"{name}: {number} cases, {number / passed:.0f}/s", file=sys.stderr, flush=True)
        yield number


def _replay(cases: list[Case], total: Tally) -> None:
    for case in cases:
        with made(case.part) as part:
            found = judge(part, case.steps)
        total.passed += found is None
        total.failed += found is not None
        if found:
            print(f"{case.name}: {found}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
