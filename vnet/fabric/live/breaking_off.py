"""What is broken off by its user: told as such, whether it was undone or could only be finished."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from vnet.base.errors import Exit, VnetError
from vnet.hv.live.tasks import uninterrupted

T = TypeVar("T")


class Interrupted(VnetError):
    """The user broke the operation off; the text says what has become of it."""

    exit_code = Exit.INTERRUPTED


async def finished(work: Coroutine[Any, Any, T], told: str) -> T:
    """Finishes work from which there is no way back, however often it is broken off.

    Raises: Interrupted, with what there is to tell then; what the work raises.
    """
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    result = await uninterrupted(work)
    if task.cancelling() > before:
        raise Interrupted(f"interrupted; {told}")
    return result
