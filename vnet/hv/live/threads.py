"""Work in threads that asyncio waits for. None can be broken off: what it opens must not be forgotten."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def finished(function: Callable[P, T], *args: P.args, **words: P.kwargs) -> T:
    """Call a function in a thread; a cancelled caller still waits for its end."""
    return await kept(lambda result: None, function, *args, **words)


async def kept(drop: Callable[[T], None], function: Callable[P, T], *args: P.args, **words: P.kwargs) -> T:
    """The same for what has to be given back: a cancelled caller gets nothing, so `drop` does it."""
    call = asyncio.get_running_loop().run_in_executor(None, partial(function, *args, **words))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        while not call.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait([call])
        if call.exception() is None:
            drop(call.result())
        raise
