"""Writes what was measured into docs/performance.md, the figures beside it as JSON, and draws the plots.

`python -m tests.perf --document` does this after a run. The plots are made by `plots.py` in a virtual
environment of its own, because nothing else needs matplotlib.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import venv
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from tests.perf import report
from tests.perf.targets import ROWS, Figure, Row

UNEXPLAINED = "Why is not known yet."
MATPLOTLIB = "matplotlib==3.10.7"
PART = re.compile(r"(<!-- measured -->\n).*(<!-- end of what was measured -->)", re.DOTALL)


def write(figures: Sequence[Figure], root: Path) -> None:
    """Figures of rows that were not measured now stay as they were."""
    file = root / "docs" / "performance.json"
    kept = [Figure(**each) for each in json.loads(file.read_text())] if file.exists() else []
    rows = {figure.row for figure in figures}
    together = sorted((*(f for f in kept if f.row not in rows), *figures), key=lambda figure: figure.row)
    file.write_text(json.dumps([asdict(figure) for figure in together], indent=1) + "\n")
    page = root / "docs" / "performance.md"
    table = "\n".join(_table(together)) + "\n"
    missed = "\n".join(misses(together))
    if missed:
        table += f"\n### What is missed, and why\n\n{missed}\n"
    page.write_text(PART.sub(lambda part: part[1] + table + part[2], page.read_text()))
    _draw(file, root)


def _table(figures: Sequence[Figure]) -> Iterator[str]:
    yield "| # | work | measured | against the targets |"
    yield "|---|---|---|---|"
    for row in ROWS:
        own = report.net(row, figures)
        if own:
            yield f"| {row.number} | {row.work} | {_measured(row, own)} | {_judged(row, own)} |"


def _measured(row: Row, figures: Sequence[Figure]) -> str:
    cases = dict.fromkeys(figure.case for figure in figures)
    parts = []
    for case in cases:
        values = ", ".join(f"{f.peer} {report.number(f)}" for f in figures if f.case == case)
        parts.append(f"{case}: {values}" if case else values)
    return f"{'; '.join(parts)} ({row.unit})"


def _judged(row: Row, figures: Sequence[Figure]) -> str:
    return "<br>".join(
        verdict.text if verdict.met else f"**{verdict.text}**" for verdict in report.verdicts(row, figures)
    )


def misses(figures: Sequence[Figure]) -> Iterator[str]:
    """Of each row that misses a limit: by how much, why, and what would close the gap."""
    for row in ROWS:
        texts = [v.text for v in report.verdicts(row, report.net(row, figures)) if not v.met]
        if texts:
            yield f"- **Row {row.number}**, {row.work}: {'; '.join(texts)}. {row.missed or UNEXPLAINED}"


def _draw(file: Path, root: Path) -> None:
    folder = root / "build" / "perf" / "venv"
    python = folder / "bin" / "python"
    if not python.exists():
        venv.create(folder, with_pip=True)
        _run(str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", MATPLOTLIB)
    _run(str(python), str(Path(__file__).with_name("plots.py")), str(file), str(root / "docs" / "images"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode:
        print(done.stderr, file=sys.stderr)
        raise SystemExit(f"{' '.join(command)} failed")
