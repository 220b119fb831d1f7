"""Sees to it that guests are answered and reach the outside: makes again what has died or was damaged."""

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
                log.warning("guests of %s are not served: %s", name, error)
                not_before_s[name] = time.monotonic() + RETRY_S
            except Exception:  # a bug met in one fabric must not leave the guests of the others alone
                log.exception("cannot tend %s", name)
                not_before_s[name] = time.monotonic() + RETRY_S


async def turn(registry: Registry, fabric: Fabric) -> None:
    """Look once at one fabric."""
    await _services(registry, fabric)
    await _gateways(registry, fabric)


async def _services(registry: Registry, fabric: Fabric) -> None:
    name = fabric.record.name
    for network in await fabric.parts.services.revive():
        text = f"the dnsmasq of network {network} had ended and was started again"
        registry.events.tell(Kind.SERVICE_REVIVED, text, name, network)


async def _gateways(registry: Registry, fabric: Fabric) -> None:
    """While a plan is carried out what is there is not what was put."""
    name, gateways = fabric.record.name, fabric.parts.gateways
    if registry.locks[name].locked():
        return
    async with registry.locks[name]:
        for gateway in await gateways.mend():
            await fabric.parts.switch.attach(gateway.port, MANY)
            text = f"the gateway of router {gateway.router} had been damaged and was made again"
            registry.events.tell(Kind.GATEWAY_MENDED, text, name, gateway.router)
    for answer in await gateways.check():
        kind = Kind.TARGET_UP if answer.is_there else Kind.TARGET_DOWN
        how = "answers again" if answer.is_there else "does not answer"
        fields = {"address": answer.address, "port": answer.port}
        text = f"{answer.address} port {answer.port} {how}"
        registry.events.tell(kind, text, name, answer.router, fields)
