"""`python -m tests.perf [--rows 1,2] [--tree PATH]`: measures the rows of the table of targets."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.perf import guest, image, report, stage, targets
from tests.perf.targets import Figure

ROOT = Path(__file__).resolve().parents[2]

RULES = (10, 100, 1000, 10_000)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.perf", description=__doc__)
    parser.add_argument("--rows", default="1,2", help="numbers of rows, comma between")
    parser.add_argument("--tree", type=Path, default=ROOT, help="the checkout under test")
    parser.add_argument("--kernel", default="6.12", choices=image.SUITES, help="of the guest")
    given = parser.parse_args()
    rows = [int(row) for row in given.rows.split(",")]
    folder = ROOT / "build" / "perf"
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    base = image.ensure(folder, image.SUITES[given.kernel])
    figures = []
    with tempfile.TemporaryDirectory(prefix="run-", dir=folder) as run:
        stage.stage(given.tree.resolve(), rows, RULES, Path(run))
        for said in guest.run(base, stage.archive(Path(run)), Path(run), 1200):
            print(f"{time.monotonic() - begun:6.1f} s  {progress(said)}", file=sys.stderr, flush=True)
            if "row" in said:
                figures.append(Figure(**said))
        shutil.copy(Path(run) / "console.log", folder)
    for row in rows:
        print("\n".join(report.lines(targets.BY_NUMBER[row], figures)))
    return 0


def progress(said: dict[str, Any]) -> str:
    """What the guest said, in a line."""
    if "failed" in said:
        return f"row {said['failed']} failed:\n{said['why']}"
    if "row" in said:
        return f"row {said['row']}: {said['peer']} {said['case']} {said['value']:,.0f}"
    return " ".join(said)


if __name__ == "__main__":
    sys.exit(main())
