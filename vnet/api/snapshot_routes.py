"""Endpoints about snapshots of VMs, and about VMs that are suspended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.errors import InputError
from vnet.fabric.live import snapshots
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.snapshots import Pruning
from vnet.hv.live.snapshots import Wanted


@dataclass(frozen=True, slots=True)
class SnapshotRoutes:
    """They share the engine; `name` gives the fabric that a request means."""

    engine: Engine
    name: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        fabric = "/v1/fabrics/{fabric}"
        one = f"{fabric}/snapshots/{{snapshot}}"
        return [
            Route("/v1/snapshots", self.ls),
            Route(f"{fabric}/snapshots", self.save, methods=["POST"]),
            Route(f"{fabric}/snapshots/prune", self.prune, methods=["POST"]),
            Route(f"{one}/restore", self.restore, methods=["POST"]),
            Route(one, self.rm, methods=["DELETE"]),
            Route(f"{fabric}/vms/{{vm}}/suspend", self.suspend, methods=["POST"]),
        ]

    async def ls(self, request: Request) -> Response:
        """Those of all fabrics, of one, or of one VM."""
        query = request.query_params
        return JSONResponse(await snapshots.listed(query.get("fabric"), query.get("vm")))

    async def save(self, request: Request) -> ASGIApp:
        """Snapshot VMs."""
        name, body = self.name(request), await body_of(request)
        wanted = Wanted(_text(body, "name"), _text(body, "description"), body.get("memory") is not False)

        async def work(report: Any) -> Mapping[str, Any]:
            return await snapshots.save(self.engine, name, _vms(body), wanted, report)

        return JsonLines(self.operations, work)

    async def restore(self, request: Request) -> ASGIApp:
        """Make VMs what they were."""
        name, body = self.name(request), await body_of(request)
        snapshot, memory = request.path_params["snapshot"], body.get("memory")

        async def work(report: Any) -> Mapping[str, Any]:
            return await snapshots.restore(self.engine, name, _vms(body), snapshot, memory, report)

        return JsonLines(self.operations, work)

    async def rm(self, request: Request) -> Response:
        """Remove a snapshot, of all its VMs or of some."""
        vms = tuple(request.query_params.getlist("vm"))
        name, snapshot = self.name(request), request.path_params["snapshot"]
        return JSONResponse(await snapshots.remove(self.engine, name, vms, snapshot))

    async def prune(self, request: Request) -> Response:
        """Remove those that are no longer wanted."""
        body = await body_of(request)
        keep, older_s = body.get("keep_last"), body.get("older_than_s")
        if keep is None and older_s is None:
            raise InputError("which? give `keep_last`, `older_than_s`, or both")
        pruning = Pruning(_vms(body), keep, older_s, body.get("dry_run") is True)
        return JSONResponse(await snapshots.prune(self.engine, self.name(request), pruning))

    async def suspend(self, request: Request) -> ASGIApp:
        """Keep a VM's memory and end it."""
        name, vm = self.name(request), request.path_params["vm"]

        async def work(report: Any) -> Mapping[str, Any]:
            return await snapshots.suspend(self.engine, name, vm, report)

        return JsonLines(self.operations, work)


def _text(body: Mapping[str, Any], name: str) -> str:
    return str(body.get(name, ""))


def _vms(body: Mapping[str, Any]) -> tuple[str, ...]:
    """The VMs that are meant, none for all; each once."""
    return tuple(dict.fromkeys(map(str, body.get("vms", ()))))
