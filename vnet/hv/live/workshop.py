"""Folders in which something is made that is not there yet, each gone with its work.

A folder is held by a lock for as long as somebody works in it, and a lock ends with its process. So those
that nobody holds are what was killed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

from vnet.hv.live.lock import exclusive, exclusive_at_once
from vnet.hv.live.threads import kept

_PREFIX = ".building-"


@asynccontextmanager
async def workshop(place: Path) -> AsyncIterator[Path]:
    """A folder in `place` for one piece of work, gone with all that is in it when that ends; root's alone."""
    with ExitStack() as stack:
        folder = await kept(_remove, _made, place, stack)
        try:
            yield folder
        finally:
            await asyncio.shield(asyncio.to_thread(_remove, folder))


def sweep(place: Path) -> None:
    """Removes those of processes that were killed."""
    if place.exists():
        with exclusive(place):
            _sweep(place)


def _made(place: Path, stack: ExitStack) -> Path:
    """Held before anybody else looks whether it is."""
    with exclusive(place):
        _sweep(place)
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        stack.enter_context(exclusive(folder))
    return folder


def _sweep(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*/"):
        with exclusive_at_once(folder) as is_left:
            if is_left:
                _remove(folder)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
