"""The fuzz exam: what failed once is played again, a little that is new is tried. `make fuzz` tries more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path

import pytest

from tests.exams.fuzz.case import FOLDER, Case, Part, examine, judge
from tests.exams.fuzz.parts import PARTS, made

CASES = sorted(FOLDER.glob("*.json"))
COUNTS = {"codec": 3000, "agent": 60, "agent-ebpf": 25, "packets": 8, "maps": 60, "maps-ebpf": 8}
"""Cases of each part."""


@pytest.fixture(scope="module")
def part() -> Iterator[Callable[[str], Part]]:
    """What is examined, by name: made when first asked for, as that takes a second or two."""
    with ExitStack() as stack:
        yield cache(lambda name: stack.enter_context(made(name)))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_what_failed_once_passes_now(part: Callable[[str], Part], path: Path) -> None:
    case = Case.load(path)
    found = judge(part(case.part), case.steps)
    assert found is None, f"{case.found}\nnow: {found}"


@pytest.mark.parametrize("name", PARTS)
def test_a_few_cases_pass(part: Callable[[str], Part], name: str) -> None:
    for number in range(COUNTS[name]):
        case = examine(part(name), f"test:{number}")
        assert case is None, f"{case.found}\n{case.steps}"
