"""`python -m tests.perf [--rows 1,2] [--tree PATH]`: measures the rows of the table of targets."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from tests.perf import guest, image, stage

ROOT = Path(__file__).resolve().parents[2]


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
    tree = stage.stage(given.tree.resolve(), rows, folder / "stage")
    for figure in guest.run(base, tree, folder, 600):
        print(f"{time.monotonic() - begun:6.1f}", figure, file=sys.stderr, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
