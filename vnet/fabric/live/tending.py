"""Sees to it that the guests of all networks are answered, and uplinks that come back are ports again."""

from __future__ import annotations

import asyncio
import logging
import time

from vnet.base.errors import VnetError
from vnet.fabric.events import Kind
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.state import MANY

log = logging.getLogger(__name__)

LOOK_S = 1.0
RETRY_S = 10.0
"""After a start that failed."""


async def tend(registry: Registry) -> None:
    """For ever."""
    not_before_s: dict[str, float] = {}
    while True:
        await asyncio.sleep(LOOK_S)
        for name, fabric in tuple(registry.fabrics.items()):
            if time.monotonic() < not_before_s.get(name, 0.0):
                continue
            try:
                await turn(registry, fabric)
            except VnetError as error:
                log.warning("not all of %s can be brought back: %s", name, error)
                not_before_s[name] = time.monotonic() + RETRY_S
            except Exception:  # a bug met in one fabric must not leave the others alone
                log.exception("cannot tend %s", name)
                not_before_s[name] = time.monotonic() + RETRY_S


async def turn(registry: Registry, fabric: Fabric) -> None:
    """Look once at one fabric."""
    name = fabric.record.name
    for network in await fabric.parts.services.revive():
        text = f"the dnsmasq of network {network} had ended and was started again"
        registry.events.tell(Kind.SERVICE_REVIVED, text, name, network)
    if not registry.locks[name].locked():  # else it is being changed
        async with registry.locks[name]:
            await _retake(registry, fabric)


async def _retake(registry: Registry, fabric: Fabric) -> None:
    name = fabric.record.name
    for cable in await fabric.parts.cables.retake():
        await fabric.parts.switch.attach(cable.port, MANY)
        text = f"the interface {cable.interface} of uplink {cable.uplink} was gone, and is taken again"
        registry.events.tell(Kind.UPLINK_RETAKEN, text, name, cable.uplink)
