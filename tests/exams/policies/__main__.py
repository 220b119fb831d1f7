"""Exam of all small policies: flows and matrix against the language. `python -m tests.exams.policies`"""

from __future__ import annotations

import multiprocessing
import os
import sys
import time

from tests.exams.policies.small import Written, differences, everything

PROGRESS_S = 10.0


def _tried(policies: tuple[Written, ...]) -> tuple[tuple[Written, ...], list[str]]:
    return policies, differences(policies)


def main() -> int:
    """Try all of them; exit status 1 if one differs."""
    tried, wrong, shown = 0, 0, time.monotonic()
    with multiprocessing.Pool(len(os.sched_getaffinity(0))) as pool:
        for policies, found in pool.imap_unordered(_tried, everything(), chunksize=256):
            tried += 1
            if found:
                wrong += 1
                print(*policies, *found, sep="\n  ", file=sys.stderr, flush=True)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                print(f"{tried:,} tried", file=sys.stderr, flush=True)
    print(f"{tried:,} small policies: {tried - wrong:,} decide as the language says, {wrong:,} do not")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
