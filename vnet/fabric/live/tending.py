"""Sees to it that guests are answered and reach the outside: makes again what has died or was damaged, and
takes uplinks again that come back."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from vnet.base import limits
from vnet.base.errors import VnetError
from vnet.fabric.events import Kind
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.state import MANY

log = logging.getLogger(__name__)

LOOK_S = 1.0
RETRY_S = 10.0
"""After a start that failed."""

Job = Callable[[Registry, Fabric], Awaitable[None]]


async def tend(registry: Registry) -> None:
    """For ever. What fails in one fabric, or takes its time, keeps nobody else waiting."""
    not_before_s: dict[tuple[str, Job], float] = {}
    while True:
        await asyncio.sleep(LOOK_S)
        fabrics = tuple(registry.fabrics.values())
        await asyncio.gather(*(_try(registry, each, job, not_before_s) for each in fabrics for job in JOBS))


async def _try(
    registry: Registry, fabric: Fabric, job: Job, not_before_s: dict[tuple[str, Job], float]
) -> None:
    name = fabric.record.name
    if time.monotonic() < not_before_s.get((name, job), 0.0):
        return
    try:
        await job(registry, fabric)
    except VnetError as error:
        log.warning("guests of %s are not served: %s", name, error)
        not_before_s[name, job] = time.monotonic() + RETRY_S
    except Exception:  # a bug met in one fabric must not leave the guests of the others alone
        log.exception("cannot tend %s", name)
        not_before_s[name, job] = time.monotonic() + RETRY_S


async def turn(registry: Registry, fabric: Fabric) -> None:
    """Look once at one fabric."""
    for job in JOBS:
        await job(registry, fabric)


async def _services(registry: Registry, fabric: Fabric) -> None:
    name, parts = fabric.record.name, fabric.parts
    for service in await parts.services.revive():
        if parts.switch.is_open:
            await parts.switch.attach(service.port, limits.STRICT)
        text = f"the dnsmasq of network {service.network} had ended and was started again"
        registry.events.tell(Kind.SERVICE_REVIVED, text, name, service.network)


async def _gateways(registry: Registry, fabric: Fabric) -> None:
    name = fabric.record.name
    for gateway in await fabric.parts.gateways.mend():
        await fabric.parts.switch.attach(gateway.port, MANY)
        text = f"the gateway of router {gateway.router} had been damaged and was made again"
        registry.events.tell(Kind.GATEWAY_MENDED, text, name, gateway.router)


async def _targets(registry: Registry, fabric: Fabric) -> None:
    for answer in await fabric.parts.gateways.check():
        kind = Kind.TARGET_UP if answer.is_there else Kind.TARGET_DOWN
        how = "answers again" if answer.is_there else "does not answer"
        fields = {"address": answer.address, "port": answer.port}
        text = f"{answer.address} port {answer.port} {how}"
        registry.events.tell(kind, text, fabric.record.name, answer.router, fields)


async def _cables(registry: Registry, fabric: Fabric) -> None:
    name = fabric.record.name
    for cable in await fabric.parts.cables.retake():
        await fabric.parts.switch.attach(cable.port, MANY)
        text = f"the interface {cable.interface} of uplink {cable.uplink} was gone, and is taken again"
        registry.events.tell(Kind.UPLINK_RETAKEN, text, name, cable.uplink)


async def _endpoints(registry: Registry, fabric: Fabric) -> None:
    name = fabric.record.name
    mended = await fabric.parts.endpoints.mend()
    wanted = fabric.declared.state() if mended and fabric.declared else None
    for endpoint in mended:
        attached = wanted.attachment(endpoint.port) if wanted else None
        await fabric.parts.switch.attach(endpoint.port, attached.limits if attached else limits.STRICT)
        text = f"{endpoint.where} of endpoint {endpoint.name} was gone, and is attached again"
        registry.events.tell(Kind.ENDPOINT_MENDED, text, name, endpoint.name)


async def _mend(registry: Registry, fabric: Fabric) -> None:
    """Under the fabric's lock: while a plan is carried out what is there is not what was put.

    One after the other: side by side, the first would hold the lock for which the others do not wait.
    """
    lock, failures = registry.locks[fabric.record.name], []
    if lock.locked():
        return
    async with lock:
        for job in (_gateways, _cables, _endpoints):
            try:
                await job(registry, fabric)
            except VnetError as error:
                failures.append(error)
    if failures:
        raise failures[0]


JOBS: tuple[Job, ...] = (_services, _targets, _mend)
