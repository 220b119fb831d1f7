"""The exam: what to run, and running one title on a lab."""

from __future__ import annotations

import fnmatch
import inspect
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from tests.exams.conntrack import (
    datapath_titles,
    extra_titles,
    fragment_titles,
    nat_titles,
    state_titles,
)
from tests.exams.conntrack.switches import Lab
from tests.exams.conntrack.titles import ALL, slug

Body = Callable[[Lab], None]
MODULES = (datapath_titles, state_titles, fragment_titles, nat_titles, extra_titles)


def bodies() -> dict[str, Body]:
    """Every public function of the modules that takes a lab, by the title in its docstring."""
    found = {}
    for module in MODULES:
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if not name.startswith("_") and function.__module__ == module.__name__:
                found[(function.__doc__ or name).strip()] = function
    return found


def chosen(pattern: str = "*") -> list[str]:
    """Titles in the order of the public file whose name, or whose function's, has the pattern."""
    wanted = f"*{pattern.strip('*')}*".lower()
    return [t for t in ALL if fnmatch.fnmatch(t.lower(), wanted) or fnmatch.fnmatch(slug(t), wanted)]


@dataclass(frozen=True, slots=True)
class Result:
    title: str
    passed: bool
    seconds: float
    why: str = ""


def sit(lab: Lab, title: str) -> Result:
    """Run one title on a lab that is reset first."""
    began = time.monotonic()
    try:
        lab.reset()
        bodies()[title](lab)
    except Exception as error:  # noqa: BLE001 - whatever a body meets is its result
        why = "".join(traceback.format_exception(error))
        return Result(title, False, time.monotonic() - began, why)
    return Result(title, True, time.monotonic() - began)
