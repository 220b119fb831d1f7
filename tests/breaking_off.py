"""Breaks work off at each place where it waits, one after the other, not at some time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class BrokenOff(Coroutine[Any, Any, Any]):
    """A coroutine whose task is cancelled when it waits for the `wait`-th time, counted from one.

    What it waits for may have come at that very moment, as it may for a real Ctrl-C.
    """

    def __init__(self, work: Coroutine[Any, Any, Any], wait: int) -> None:
        self._work = work
        self._left = wait

    def send(self, value: Any) -> Any:
        waited_for = self._work.send(value)
        self._left -= 1
        if self._left == 0:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        return waited_for

    def throw(self, *error: Any) -> Any:
        return self._work.throw(*error)

    def close(self) -> None:
        self._work.close()

    def __await__(self) -> Any:
        raise NotImplementedError("run it as a task")
