"""Several labs at once: each takes the next case when it is through with one."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from tests.exams.conformance.cases import Case
from tests.exams.conformance.lab import FULL_LOAD, Lab, LabError, Verdict

Told = Callable[[Case, Verdict], None]

ATTEMPTS = 3
"""How often a case is put if the lab breaks with it, or if the machine cannot send the load it asks for."""


@dataclass
class Run:
    """One examination of one switch. `told` is called for every verdict, by one thread at a time."""

    switch: str
    jobs: int
    told: Told
    repair_sctp: bool = False
    _verdicts: dict[str, Verdict] = field(default_factory=dict)
    _labs: set[Lab] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stopped: bool = False

    def examine(self, cases: Sequence[Case]) -> tuple[Verdict, ...]:
        """Put all cases; the verdicts in the cases' order. Those that need the machine alone come last."""
        light = [case for case in cases if not case.heavy]
        # The long ones first, so that at the end nobody waits for one of them.
        light.sort(key=lambda case: -case.duration_s)
        try:
            self._share(light, self.jobs)
            self._share([case for case in cases if case.heavy], 1, urgent=True)
        except BaseException:
            self._stop()
            raise
        return tuple(self._verdicts[case.key] for case in cases)

    def _share(self, cases: Sequence[Case], jobs: int, urgent: bool = False) -> None:
        waiting = deque((case, 1) for case in cases)
        jobs = min(jobs, len(cases))
        if not jobs:
            return
        with ThreadPoolExecutor(jobs, thread_name_prefix="lab") as pool:
            workers = [pool.submit(self._work, waiting, urgent) for _ in range(jobs)]
            try:
                for worker in workers:
                    worker.result()
            except BaseException:
                self._stop()
                raise

    def _work(self, waiting: deque[tuple[Case, int]], urgent: bool) -> None:
        """Until nothing waits: a lab, and in it cases for as long as it works."""
        while waiting and not self._stopped:
            lab = Lab(self.switch, self.repair_sctp, urgent)
            with self._lock:
                self._labs.add(lab)
            if self._stopped:
                return
            try:
                with lab:
                    self._put_cases(lab, waiting)
            except LabError:
                if not self._stopped:
                    raise
            finally:
                with self._lock:
                    self._labs.discard(lab)

    def _put_cases(self, lab: Lab, waiting: deque[tuple[Case, int]]) -> None:
        while not self._stopped:
            try:
                case, attempt = waiting.popleft()
            except IndexError:
                return
            try:
                verdict = lab.examine(case)
            except LabError as error:
                if self._stopped:
                    return
                if attempt < ATTEMPTS:
                    waiting.append((case, attempt + 1))
                else:
                    self._record(case, Verdict(case.key, False, f"no verdict: {error}", 0.0))
                return
            if not verdict.passed and verdict.load < FULL_LOAD and attempt < ATTEMPTS:
                waiting.append((case, attempt + 1))
            else:
                self._record(case, verdict)

    def _record(self, case: Case, verdict: Verdict) -> None:
        with self._lock:
            self._verdicts[case.key] = verdict
            self.told(case, verdict)

    def _stop(self) -> None:
        """Make all labs end at once; their own threads clean up."""
        self._stopped = True
        with self._lock:
            for lab in self._labs:
                lab.interrupt()
