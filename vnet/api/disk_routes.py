"""The endpoints about disks of VMs, and the locations where they lie."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.fabric.live import disk_locations, disk_moving, disks
from vnet.fabric.live.engine import Engine
from vnet.fabric.progress import Report


@dataclass(frozen=True, slots=True)
class DiskRoutes:
    """They share the engine; `fabric` reads which fabric a request means."""

    engine: Engine
    fabric: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        disk, location = "/v1/fabrics/{fabric}/vms/{vm}/disks/{disk}", "/v1/disk-locations"
        return [
            Route("/v1/disks", self.listed),
            Route(disk, self.remove, methods=["DELETE"]),
            Route(f"{disk}/move", self.move, methods=["POST"]),
            Route(location, self.locations),
            Route(location, self.add_location, methods=["POST"]),
            Route(f"{location}/{{name}}", self.remove_location, methods=["DELETE"]),
        ]

    async def listed(self, request: Request) -> Response:
        """The disks of all fabrics, or of one."""
        return JSONResponse(await disks.listed(self.engine, request.query_params.get("fabric")))

    async def remove(self, request: Request) -> Response:
        """Remove a disk with its contents."""
        vm, disk = request.path_params["vm"], request.path_params["disk"]
        query = request.query_params
        chosen = disks.Chosen(query.get("location", ""), query.get("format", ""))
        return JSONResponse(await disks.remove(self.engine, self.fabric(request), vm, disk, chosen))

    async def move(self, request: Request) -> ASGIApp:
        """Move a disk to another location."""
        fabric, body, given = self.fabric(request), await body_of(request), request.path_params

        async def work(report: Report) -> Mapping[str, Any]:
            to = str(body.get("location", ""))
            return await disk_moving.move(self.engine, fabric, given["vm"], given["disk"], to, report)

        return JsonLines(self.operations, work)

    async def locations(self, request: Request) -> Response:
        """All locations, with what is free there."""
        return JSONResponse(await asyncio.to_thread(disk_locations.listed))

    async def add_location(self, request: Request) -> Response:
        """Name a folder of this host."""
        body = await body_of(request)
        name, folder = str(body.get("name", "")), str(body.get("folder", ""))
        return JSONResponse(await asyncio.to_thread(disk_locations.add, name, folder))

    async def remove_location(self, request: Request) -> Response:
        """Forget one at which no disks lie."""
        lost = "lost" in request.query_params
        forget = partial(disk_locations.remove, request.path_params["name"], is_lost=lost)
        return JSONResponse(await asyncio.to_thread(forget))
