"""Recorded flows, to be run through a change or to make rules of: from the history, or given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime

from vnet.fabric.live.history_file import HistoryStopped
from vnet.fabric.live.past import Past
from vnet.fabric.seen import Seen

Recorded = Callable[[str], Awaitable[tuple[Seen, ...]]]
"""What is recorded of a fabric, by its name."""


async def nothing(fabric: str) -> tuple[Seen, ...]:
    """No flows."""
    return ()


def given(flows: tuple[Seen, ...]) -> Recorded:
    """These flows, whatever the fabric has seen."""

    async def recorded(fabric: str) -> tuple[Seen, ...]:
        return flows

    return recorded


def since(past: Past | None, begin: datetime) -> Recorded:
    """What the history has from then on; nothing where none is kept."""

    async def recorded(fabric: str) -> tuple[Seen, ...]:
        try:
            return await seen(past, fabric, begin, datetime.now(begin.tzinfo)) if past else ()
        except HistoryStopped:
            return ()

    return recorded


async def seen(past: Past, fabric: str, since: datetime, until: datetime) -> tuple[Seen, ...]:
    """What was seen of a fabric from `since` to `until`. Raises HistoryStopped."""
    return await past.seen(fabric, _ns(since), _ns(until))


def _ns(time: datetime) -> int:
    return round(time.timestamp() * 1e9)
