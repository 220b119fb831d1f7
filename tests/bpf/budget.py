"""What the programs may cost the verifier, by kernel series: `budget.toml` and the comparison with it."""

from __future__ import annotations

import math
import os
import tomllib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from tests.bpf.verifier import Cost

FILE = Path(__file__).with_name("budget.toml")
ROOM = 1.10
"""A ceiling lies that much above what was measured when it was written."""
SLACK = 0.80
"""Below that part of its ceiling a cost has fallen so far that the ceiling guards nothing any more."""
STACK_LIMIT = 512
"""MAX_BPF_STACK (include/linux/filter.h)."""
HINT = "if that is meant: make budget, and review the difference"
HEADER = """\
# What each program may cost the verifier, by kernel series: instructions processed to load it, instructions
# it has afterwards, bytes of its deepest chain of calls. Measured with Debian 12's clang 14; the ceilings are
# a tenth above. The verifier itself refuses beyond 1,000,000 instructions and 512 bytes of stack.
# Written by `make budget`.
"""

Costs = Mapping[str, Cost]


def complaints(series: str, measured: Costs, text: str | None = None) -> list[str]:
    """Where a kernel's verifier found other costs than the file allows, in words."""
    allowed = tomllib.loads(FILE.read_text() if text is None else text).get(series, {})
    found = [f"{name}: no program of that name any more; {HINT}" for name in allowed if name not in measured]
    for name, cost in measured.items():
        if name not in allowed:
            found.append(f"{name}: no budget; {HINT}")
            continue
        for what, value in asdict(cost).items():
            found += _complaint(
                f"Linux {series}, {name}: {value} {what}", value, allowed[name][what]["ceiling"]
            )
    return found


def _complaint(said: str, value: int, ceiling: int) -> list[str]:
    if value > ceiling:
        return [f"{said}, over the ceiling of {ceiling}; {HINT}"]
    if value < SLACK * ceiling:
        return [f"{said}, far below the ceiling of {ceiling}; {HINT}"]
    return []


def known(series: str) -> bool:
    """Whether there is a budget for a kernel series."""
    return series in tomllib.loads(FILE.read_text())


def rewriting() -> bool:
    """Whether what is measured is to become the budget."""
    return os.environ.get("GOLDEN") == "rewrite"


def rewrite(series: str, measured: Costs) -> None:
    """Make what was measured the budget of a kernel series; the others' stay."""
    budgets = tomllib.loads(FILE.read_text()) if FILE.exists() else {}
    budgets[series] = {name: budget(cost) for name, cost in measured.items()}
    FILE.write_text(document(budgets))


def budget(cost: Cost) -> dict[str, dict[str, int]]:
    """Ceilings for a program that costs this now."""
    return {
        what: {"measured": value, "ceiling": _ceiling(what, value)} for what, value in asdict(cost).items()
    }


def _ceiling(what: str, value: int) -> int:
    room = math.ceil(value * ROOM)
    return min(room, STACK_LIMIT) if what == "stack_bytes" else room


def document(budgets: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]]) -> str:
    """The file's text."""
    lines = [HEADER]
    for series in sorted(budgets, key=lambda name: [int(part) for part in name.split(".")]):
        for name, program in budgets[series].items():
            lines.append(f'["{series}".{name}]')
            lines += (
                f"{what} = {{ measured = {each['measured']}, ceiling = {each['ceiling']} }}"
                for what, each in program.items()
            )
            lines.append("")
    return "\n".join(lines).rstrip() + "\n"
