"""Work of several at a time, and work that nobody breaks off."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from contextlib import suppress
from typing import Any, TypeVar

T = TypeVar("T")


async def together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Side by side; the first failure breaks off the others, and is raised."""
    try:
        async with asyncio.TaskGroup() as tasks:
            for each in work:
                tasks.create_task(each)
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


async def all_of(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Side by side, each to its own end; then the first failure is raised."""
    for result in await asyncio.gather(*work, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Finishes work that was begun: who is cancelled meanwhile waits for that, and is cancelled then."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([task])
        if not task.cancelled():
            task.exception()  # whatever became of it, it is the cancellation that is told
        raise


async def uninterrupted(work: Coroutine[Any, Any, T]) -> T:
    """Finishes work even if the caller is cancelled meanwhile: undoing must not be undone."""
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.shield(task)
    return task.result()
