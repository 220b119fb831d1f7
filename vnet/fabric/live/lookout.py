"""Looks at the numbers again and again, and tells what has happened in between."""

from __future__ import annotations

import asyncio
import logging

from vnet.fabric.events import Episodes, notice
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.numbers import Taker
from vnet.fabric.numbers import Numbers
from vnet.fabric.strain import Spells, follow

log = logging.getLogger(__name__)

LOOK_S = 1.0


async def look_out(taker: Taker, events: EventLog) -> None:
    """For ever."""
    before: Numbers | None = None
    episodes: Episodes = {}
    spells: Spells = {}
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            now = await taker.take()
            noticed = notice(before, now, episodes)
            strained = follow(now, taker.recent(), spells)
        except Exception:  # a bug met here must not end what comes after it
            log.exception("cannot look at the numbers")
            continue
        for event in (*noticed.events, *strained.events):
            events.add(event)
        before, episodes, spells = now, noticed.episodes, strained.spells
