"""What has come for one reader and was not read yet: bounded, and what finds no room is counted."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Backlog(Generic[T]):
    """Belongs to one event loop. `most` items may wait."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._items: deque[T] = deque()
        self._lost = 0
        self._ended = False
        self._news = asyncio.Event()

    def offer(self, item: T) -> None:
        """Something new; what finds no room is lost."""
        if len(self._items) < self._most:
            self._items.append(item)
        else:
            self._lost += 1
        self._news.set()

    def lose(self, items: int) -> None:
        """So many never came."""
        self._lost += items
        if items:
            self._news.set()

    def end(self) -> None:
        """Nothing more comes."""
        self._ended = True
        self._news.set()

    async def take(self) -> tuple[tuple[T, ...], int] | None:
        """All that waits, and how much of what came after it is lost; None behind the last."""
        while not self._items and not self._lost:
            if self._ended:
                return None
            self._news.clear()
            await self._news.wait()
        taken = tuple(self._items), self._lost
        self._items.clear()
        self._lost = 0
        return taken
