"""Breaks work off at each place where it waits, one after the other, not at some time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

Work = Coroutine[Any, Any, Any]
T = TypeVar("T")


async def broken_off(work: Coroutine[Any, Any, T], wait: int) -> T:
    """Does it, but is cancelled when it, or a task of its, waits for the `wait`-th time, counted from one.

    What is waited for may have come at that very moment, as it may for a real Ctrl-C.
    """
    loop, whole = asyncio.get_running_loop(), asyncio.current_task()
    assert whole is not None
    left = wait

    def waits() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            whole.cancel()

    before = loop.get_task_factory()
    loop.set_task_factory(lambda loop, work, **words: asyncio.Task(_Counted(work, waits), loop=loop, **words))
    try:
        return await asyncio.ensure_future(work)
    finally:
        loop.set_task_factory(before)


class _Counted(Coroutine[Any, Any, Any]):
    """A coroutine that tells of each of its waits."""

    def __init__(self, work: Work, waits: Callable[[], None]) -> None:
        self._work, self._waits = work, waits

    def send(self, value: Any) -> Any:
        waited_for = self._work.send(value)
        self._waits()
        return waited_for

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        raise NotImplementedError("run it as a task")
