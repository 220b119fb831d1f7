"""Waits for what becomes true by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(holds: Callable[[], T], timeout_s: float = 30.0, every_s: float = 0.05) -> T:
    """What a function gives once that is true of anything; AssertionError if it never is."""
    deadline = time.monotonic() + timeout_s
    while not (found := holds()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s; in the end it was {found!r}"
        time.sleep(every_s)
    return found
