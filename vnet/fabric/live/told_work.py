"""Work in a thread that tells how far it is, and can be broken off where it does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from vnet.base.errors import HostError

T = TypeVar("T")
TOLD_EVERY_S = 1.0


async def worked(work: Callable[[Callable[[str], None]], T], told: Callable[[str], object]) -> T:
    """A caller that is cancelled ends it, and waits until it has cleared away; what was done by then is done.

    `told` hears of it seldom.
    """
    ends, loop = threading.Event(), asyncio.get_running_loop()
    last_s = time.monotonic()

    def tell(text: str) -> None:
        nonlocal last_s
        if ends.is_set():
            raise HostError("interrupted")
        if time.monotonic() - last_s > TOLD_EVERY_S:
            last_s = time.monotonic()
            loop.call_soon_threadsafe(told, text)

    task = asyncio.create_task(asyncio.to_thread(work, tell))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        ends.set()
        await asyncio.wait([task])
        if task.exception() is not None:
            raise
        caller = asyncio.current_task()
        assert caller is not None, "it was cancelled"
        caller.uncancel()
        return task.result()
