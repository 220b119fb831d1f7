"""Exam 3: generated programs and packets, the slow interpreter = eBPF = Open vSwitch.

python -m tests.exams.differential [--seed N] [--packets N] [--processes N] [--again SEED]
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from multiprocessing.queues import Queue
from multiprocessing.synchronize import Event
from pathlib import Path

from tests.exams.differential.case import FOLDER
from tests.exams.differential.worker import Report, work

PROGRESS_S = 10.0
SILENCE_S = 300.0
"""After which a worker that says nothing is taken for lost."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.exams.differential", description=__doc__)
    parser.add_argument("--seed", default="1")
    parser.add_argument("--packets", type=int, default=1_000_000)
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--again", metavar="SEED", help="only the program of this seed, as a report names it")
    parser.add_argument("--cases", type=Path, default=FOLDER, help="where shrunk failures are kept")
    given = parser.parse_args()
    if given.again:
        reports = list[Report]()
        work(iter((given.again,)), lambda report: bool(reports.append(report)), given.cases)
        return _summary(reports)
    return _summary(list(_reports(given.seed, given.packets, given.processes, given.cases)))


def _reports(seed: str, packets: int, processes: int, folder: Path) -> Iterator[Report]:
    """What all workers say, until enough packets were tried."""
    context = multiprocessing.get_context("fork")
    said: Queue[Report | str] = context.Queue()
    enough = context.Event()
    workers = [
        context.Process(target=_worker, args=(seed, number, processes, said, enough, folder))
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    began, shown, tried = time.monotonic(), 0.0, 0
    while any(worker.is_alive() for worker in workers) or not said.empty():
        try:
            report = said.get(timeout=1 if any(w.is_alive() for w in workers) else 0.1)
        except queue.Empty:
            continue
        if isinstance(report, str):
            raise SystemExit(report)
        yield report
        tried += report.same + report.by_design.total()
        if tried >= packets:
            enough.set()
        if report.failure:
            print(report.failure, file=sys.stderr, flush=True)
        if time.monotonic() - shown > PROGRESS_S:
            shown = time.monotonic()
            rate = tried / (shown - began)
            print(f"{tried:,} packets, {rate:,.0f}/s", file=sys.stderr, flush=True)
    for worker in workers:
        worker.join()


def _worker(
    seed: str, number: int, step: int, said: Queue[Report | str], enough: Event, folder: Path
) -> None:
    def report(one: Report) -> bool:
        said.put(one)
        return not enough.is_set()

    work((f"{seed}-{round_}" for round_ in count(number, step)), report, folder)


def _summary(reports: list[Report]) -> int:
    by_design = Counter[str]()
    for report in reports:
        by_design += report.by_design
    same = sum(report.same for report in reports)
    failed = [report for report in reports if report.failure]
    for name, number in by_design.most_common():
        print(f"{number:9,} by design: {name}")
    print(f"{same:9,} the same, in {len(reports):,} programs")
    print(f"{same + by_design.total()} passed, {len(failed)} failed")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
