"""Endpoints for those who watch: metrics, liveness, readiness; on the daemon's socket and, if asked, on TCP.

On TCP there is nothing else, and nothing that can be changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vnet.api.metrics import CONTENT_TYPE, exposition
from vnet.fabric.disk_rates import DiskRate
from vnet.fabric.live.numbers import Taker
from vnet.fabric.numbers import Numbers, VmNumbers, to_json
from vnet.fabric.rates import Rates, VmRate
from vnet.fabric.readiness import unready
from vnet.fabric.strain import strains
from vnet.hv.latency import together


def with_usage(
    vms: Iterable[Mapping[str, Any]], recent: Rates, now: Numbers | None
) -> list[Mapping[str, Any]]:
    """Rows of VMs, and what each used and waited for lately; None of one that is too new to say so."""
    known = {(fabric.name, vm.name): vm for fabric in (now.fabrics if now else ()) for vm in fabric.vms}
    keys = ((row, (row["fabric"], row["vm"])) for row in vms)
    return [{**row, **_usage(recent.vms.get(key)), **_memory(known.get(key))} for row, key in keys]


def _memory(vm: VmNumbers | None) -> Mapping[str, int | None]:
    memory = vm.vitals.memory if vm else None
    return {
        "guest_memory_bytes": memory.total_bytes if memory else None,
        "guest_available_bytes": memory.available_bytes if memory else None,
        "ballooned_bytes": vm.ballooned_bytes if vm else None,
        "swapped_bytes": vm.swapped_bytes if vm else None,
    }


def _usage(rate: VmRate | None) -> Mapping[str, float | None]:
    return {
        "cpu_percent": round(100 * rate.cpu, 1) if rate else None,
        "ready_percent": round(100 * rate.ready, 1) if rate else None,
        "sent_bytes_ps": round(rate.traffic.sent_bytes_ps, 1) if rate else None,
        "received_bytes_ps": round(rate.traffic.received_bytes_ps, 1) if rate else None,
        "drops_pps": round(rate.traffic.drops_pps, 1) if rate else None,
        **_disks(rate.disks if rate else ()),
    }


def _disks(disks: Sequence[DiskRate]) -> Mapping[str, float | None]:
    """All of a VM's together; how long they took is None when they were asked for nothing."""
    answers = together(each.answers for each in disks)
    return {
        "disk_reads_ps": round(sum(each.reads_ps for each in disks), 1) if disks else None,
        "disk_writes_ps": round(sum(each.writes_ps for each in disks), 1) if disks else None,
        "disk_p95_ms": round(1000 * answers.percentile_s(95), 3) if answers.count else None,
    }


class Observed:
    """What one daemon shows of itself."""

    def __init__(self, taker: Taker) -> None:
        self._taker = taker

    def public(self) -> Starlette:
        """The application for TCP."""
        return Starlette(routes=self.public_routes())

    def public_routes(self) -> list[Route]:
        """Where Prometheus, load balancers and service managers ask."""
        return [
            Route("/metrics", self.metrics),
            Route("/health", self.health),
            Route("/ready", self.ready),
        ]

    def routes(self) -> list[Route]:
        """The same, and what vnet's own commands ask."""
        return [
            *self.public_routes(),
            Route("/v1/numbers", self.numbers),
            Route("/v1/strains", self.strains),
            Route("/v1/ready", self.readiness),
        ]

    async def numbers(self, request: Request) -> Response:
        """Everything that is counted."""
        return JSONResponse(to_json(await self._taker.take()))

    async def strains(self, request: Request) -> Response:
        """Who has waited too long lately for what the host lacks."""
        found = strains(await self._taker.take(), self._taker.recent())
        return JSONResponse([asdict(each) for each in found])

    async def metrics(self, request: Request) -> Response:
        """The same for Prometheus."""
        return Response(exposition(await self._taker.take()), headers={"content-type": CONTENT_TYPE})

    async def health(self, request: Request) -> Response:
        """Whether the daemon lives; that it answers says so."""
        return JSONResponse({"alive": True, **self._taker.pulse()})

    async def ready(self, request: Request) -> Response:
        """Status 200 or 503, and why."""
        found = await self._readiness()
        return JSONResponse(found, 200 if found["ready"] else 503)

    async def readiness(self, request: Request) -> Response:
        """The same with status 200, for those who read what it says."""
        return JSONResponse(await self._readiness())

    async def _readiness(self) -> dict[str, Any]:
        numbers = await self._taker.take()
        found = unready(numbers)
        fabrics = [fabric.name for fabric in numbers.fabrics]
        warnings = [why] if (why := numbers.daemon.history_stopped) else []
        reasons = [asdict(each) for each in found]
        return {"ready": not found, "fabrics": fabrics, "reasons": reasons, "warnings": warnings}
