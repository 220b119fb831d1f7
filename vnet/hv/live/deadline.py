"""What takes too long, said in words."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from vnet.base.errors import TimedOut


@contextlib.asynccontextmanager
async def deadline(timeout_s: float, text: str) -> AsyncIterator[None]:
    """Raises TimedOut, saying `text`, if what is done within takes longer."""
    try:
        async with asyncio.timeout(timeout_s):
            yield
    except TimeoutError as error:
        raise TimedOut(f"{text} within {timeout_s:g} s") from error
