"""The endpoint that copies a VM's disks for another one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.errors import InputError
from vnet.fabric.live import cloning
from vnet.fabric.live.cloning import Wanted
from vnet.fabric.live.engine import Engine


@dataclass(frozen=True, slots=True)
class CloneRoutes:
    """It shares the engine; `name` gives the fabric that a request means."""

    engine: Engine
    name: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route("/v1/fabrics/{fabric}/vms/{vm}/clone", self.clone, methods=["POST"])]

    async def clone(self, request: Request) -> ASGIApp:
        """Copy the disks."""
        name, vm, asked = self.name(request), request.path_params["vm"], await body_of(request)
        new, disks = asked.get("name"), asked.get("disks")
        if not isinstance(new, str) or not isinstance(disks, list | None):
            raise InputError("a clone is asked for as {name, linked, disks}")
        declared = None if disks is None else tuple(map(str, disks))
        wanted = Wanted(new, asked.get("linked") is True, declared)

        async def work(report: Any) -> Mapping[str, Any]:
            return await cloning.clone(self.engine, name, vm, wanted, report)

        return JsonLines(self.operations, work)
