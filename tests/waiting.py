"""Waits for what becomes true by itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    ask: Callable[[], T],
    timeout_s: float = 30.0,
    every_s: float = 0.05,
    holds: Callable[[T], object] = bool,
) -> T:
    """What a function gives once that `holds`: is true of anything. AssertionError if it never does."""
    deadline = time.monotonic() + timeout_s
    while not holds(found := ask()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s; in the end it was {found!r}"
        time.sleep(every_s)
    return found


async def until_async(
    ask: Callable[[], T], timeout_s: float = 30.0, every_s: float = 0.005, holds: Callable[[T], object] = bool
) -> T:
    """The same for what goes on in this event loop meanwhile."""
    deadline = time.monotonic() + timeout_s
    while not holds(found := ask()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s; in the end it was {found!r}"
        await asyncio.sleep(every_s)
    return found


async def until_answered(
    ask: Callable[[], Awaitable[T]],
    timeout_s: float = 30.0,
    every_s: float = 0.05,
    holds: Callable[[T], object] = bool,
) -> T:
    """The same for what has to be waited for each time it is asked."""
    deadline = time.monotonic() + timeout_s
    while not holds(found := await ask()):
        assert time.monotonic() < deadline, f"not within {timeout_s:g} s; in the end it was {found!r}"
        await asyncio.sleep(every_s)
    return found
