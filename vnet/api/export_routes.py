"""Endpoints about exports: make one, fetch it, forget it; and about what is put on a disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.boot import DEFAULT_LOCATION, ImageFormat
from vnet.base.errors import InputError
from vnet.fabric.live import disk_contents, exports
from vnet.fabric.live.exports import Form, Wanted
from vnet.fabric.live.registry import Registry
from vnet.fabric.live.telling import telling
from vnet.fabric.progress import Report
from vnet.hv.live import export

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ExportRoutes:
    """They share the registry, which knows the VMs; `fabric` reads which fabric a request means."""

    registry: Registry
    fabric: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/fabrics/{fabric}/vms/{vm}/export", self.make, methods=["POST"]),
            Route("/v1/exports/{token}", self.fetch),
            Route("/v1/exports/{token}", self.forget, methods=["DELETE"]),
            Route("/v1/fabrics/{fabric}/vms/{vm}/disks/{disk}/contents", self.bring, methods=["POST"]),
        ]

    async def make(self, request: Request) -> ASGIApp:
        """Make the file of a VM; it waits to be fetched."""
        name, body = self.fabric(request), await body_of(request)
        wanted = _wanted(request.path_params["vm"], body)

        async def work(report: Report) -> Json:
            with telling(report, 1, f"export {wanted.vm}", 1) as remark:
                made = await exports.make(self.registry, name, wanted, remark.moved)
                remark.text = f"{made['size_bytes'] / (1 << 20):.1f} MiB"
            return made

        return JsonLines(self.operations, work)

    async def bring(self, request: Request) -> ASGIApp:
        """Put what is in a file of this host onto a disk that is not there yet."""
        body, given = await body_of(request), request.path_params
        name = given["fabric"] if given["fabric"] != "-" else self.fabric(request)
        vm, disk, path = given["vm"], given["disk"], Path(str(body.get("path", "")))
        location = str(body.get("location", DEFAULT_LOCATION))
        what, form = f"import disk {disk} of {vm}", str(body.get("format", ""))
        if form and form not in [each.value for each in ImageFormat]:
            raise InputError(f"{form} is no format of disks")
        file = disk_contents.Given(path, form, location)

        async def work(report: Report) -> Json:
            with telling(report, 1, what, 1) as remark:
                put = await disk_contents.put(self.registry, name, vm, disk, file, remark.moved)
                remark.text = put["path"]
            return put

        return JsonLines(self.operations, work)

    async def fetch(self, request: Request) -> Response:
        """Its bytes; it is gone when it was sent."""
        token = request.path_params["token"]
        path = export.find(token)
        if path is None:
            raise InputError("that export is not there any more; make it again")
        return FileResponse(path, background=BackgroundTask(export.forget, token))

    async def forget(self, request: Request) -> Response:
        """It is not wanted any more."""
        export.forget(request.path_params["token"])
        return JSONResponse({})


def _wanted(vm: str, body: Json) -> Wanted:
    form = str(body.get("format", ""))
    if form not in [each.value for each in Form]:
        raise InputError(f"{form or 'nothing'} is no format of exports: ova or qcow2")
    return Wanted(vm, Form(form), str(body.get("disk", "")), body.get("pause") is True)
