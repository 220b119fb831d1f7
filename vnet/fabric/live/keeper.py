"""Keeps the logs of all fabrics: gives each its turn, and looks after what the switch could not report."""

from __future__ import annotations

import asyncio
import logging
import time

from vnet.base.errors import VnetError
from vnet.fabric.live.registry import Fabric, Registry

log = logging.getLogger(__name__)

TURN_S = 0.25
SETTLE_S = 2.0


async def keep(registry: Registry) -> None:
    """For ever."""
    settled_s = time.monotonic()
    while True:
        await asyncio.sleep(TURN_S)
        fabrics = tuple(registry.fabrics.values())
        for fabric in fabrics:
            _try(fabric)
        if time.monotonic() >= settled_s + SETTLE_S:
            await asyncio.gather(*map(_try_to_settle, fabrics))
            settled_s = time.monotonic()


def _try(fabric: Fabric) -> None:
    try:
        turn(fabric)
    except Exception:  # a bug met in one fabric must not end the logs of the others
        log.exception("cannot keep the log of %s", fabric.record.name)


async def _try_to_settle(fabric: Fabric) -> None:
    try:
        await settle(fabric)
    except Exception:  # the same
        log.exception("cannot settle the log of %s", fabric.record.name)


def turn(fabric: Fabric) -> None:
    """Write what a fabric's switch has told."""
    kept = fabric.parts.log
    kept.know(fabric.record.provenance, fabric.declared)
    kept.work(time.monotonic(), time.time_ns())


async def settle(fabric: Fabric) -> None:
    """Tell what its switch met and could not tell. A switch that cannot be asked now is asked later."""
    switch, kept = fabric.parts.switch, fabric.parts.log
    try:
        unreported = await switch.unreported()
        counted = await switch.logged_counts() if kept.needs_counts(unreported) else None
        if counted is not None:
            kept.settle(counted, unreported, time.time_ns())
    except VnetError:
        return
