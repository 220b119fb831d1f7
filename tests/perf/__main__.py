"""`python -m tests.perf [--rows 1,2] [--tree PATH]`: measures the rows of the table of targets."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.guests import boot, image
from tests.perf import document, host, report, stage, targets
from tests.perf.guest import MACHINE
from tests.perf.recipe import RECIPE
from tests.perf.targets import Figure

ROOT = Path(__file__).resolve().parents[2]

GUEST_ROWS, HOST_ROWS = (1, 2, 3, 4, 6, 17, 18), (4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16)
RULES = (10, 100, 1000, 10_000)

GUEST_S, HOST_S = 840, 600
"""So long at most, both together under 25 minutes; on an idle machine it is half of that."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description=__doc__)
    parser.add_argument(
        "--rows", default=",".join(map(str, targets.BY_NUMBER)), help="numbers, comma between"
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout under test")
    parser.add_argument("--kernel", default="6.12", choices=image.SUITES, help="of the guest")
    parser.add_argument("--document", action="store_true", help="write docs/performance.md and its plots")
    given = parser.parse_args()
    rows = [int(row) for row in given.rows.split(",")]
    folder = ROOT / "build" / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as run:
        figures = list(measured(rows, given.tree.resolve(), image.SUITES[given.kernel], Path(run)))
    for row in rows:
        print("\n".join(report.lines(targets.BY_NUMBER[row], figures)))
    (folder / "figures.json").write_text(json.dumps([asdict(figure) for figure in figures], indent=1) + "\n")
    if given.document:
        document.write(figures, ROOT)
    return 0


def measured(rows: Sequence[int], tree: Path, suite: str, run: Path) -> Iterator[Figure]:
    """The figures of the rows, progress on stderr."""
    begun = time.monotonic()
    for said in sayings(rows, tree, suite, run):
        print(f"{time.monotonic() - begun:6.1f} s  {progress(said)}", file=sys.stderr, flush=True)
        if "row" in said:
            yield Figure(**said)


def sayings(rows: Sequence[int], tree: Path, suite: str, run: Path) -> Iterator[dict[str, Any]]:
    """What guest and host say. A guest that dies is started once more for what it did not finish.

    Emulated kernels do die: of two hundred boots of 6.12 a few did, none of 6.1.
    """
    waiting = [row for row in rows if row in GUEST_ROWS]
    end = time.monotonic() + GUEST_S
    for _ in range(2):
        if waiting and time.monotonic() < end:
            stage.stage(tree, waiting, RULES, run)
            made = image.ensure(RECIPE, suite)
            for said in boot.run(made, MACHINE, image.archive(run), run, end - time.monotonic()):
                yield said
                if "finished" in said:
                    waiting.remove(said["finished"])
            shutil.copy(run / "console.log", run.parent)
    yield from ({"failed": row, "why": "the guest did not finish it"} for row in waiting)
    if any(row in HOST_ROWS for row in rows):
        stage.stage(tree, rows, (), run)
        yield from host.run(run, HOST_S)


def progress(said: dict[str, Any]) -> str:
    """What the bench said, in a line."""
    if "failed" in said:
        return f"row {said['failed']} failed: {said['why']}"
    if "row" in said:
        return f"row {said['row']}: {said['peer']} {said['case']} {said['value']:,.4g}"
    return " ".join(f"{name} {value}" for name, value in said.items())


if __name__ == "__main__":
    sys.exit(main())
