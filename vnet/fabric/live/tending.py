"""Sees to it that the guests of all networks are answered: starts again what has died."""

from __future__ import annotations

import asyncio
import logging
import time

from vnet.base import limits
from vnet.base.errors import VnetError
from vnet.fabric.events import Kind
from vnet.fabric.live.registry import Fabric, Registry

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
                log.warning("guests of %s are not answered: %s", name, error)
                not_before_s[name] = time.monotonic() + RETRY_S
            except Exception:  # a bug met in one fabric must not leave the guests of the others alone
                log.exception("cannot tend the services of %s", name)
                not_before_s[name] = time.monotonic() + RETRY_S


async def turn(registry: Registry, fabric: Fabric) -> None:
    """Look once at one fabric."""
    name, parts = fabric.record.name, fabric.parts
    revived = await parts.services.revive()
    for service in await parts.services.observed() if revived and parts.switch.is_open else ():
        if service.network in revived:  # its interface may be a new one
            await parts.switch.attach(service.port, limits.STRICT)
    for network in revived:
        text = f"the dnsmasq of network {network} had ended and was started again"
        registry.events.tell(Kind.SERVICE_REVIVED, text, name, network)
