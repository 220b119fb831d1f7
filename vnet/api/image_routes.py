"""Endpoints about images: list, import, remove, verify, build."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.boot import ImageFormat
from vnet.base.errors import InputError
from vnet.fabric.live import images
from vnet.fabric.live.registry import Registry
from vnet.fabric.live.telling import notes, telling
from vnet.fabric.progress import Report
from vnet.hv.image_file import AT_IMPORT
from vnet.hv.live.image_import import Wanted

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ImageRoutes:
    """They share the registry, which knows who uses what."""

    registry: Registry
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route("/v1/images", self.listed),
            Route("/v1/images", self.put, methods=["POST"]),
            Route("/v1/images/unused", self.remove_unused, methods=["DELETE"]),
            Route("/v1/images/verify", self.verify, methods=["POST"]),
            Route("/v1/images/{image}", self.remove, methods=["DELETE"]),
            Route("/v1/images/{image}/build", self.build, methods=["POST"]),
        ]

    async def listed(self, request: Request) -> Response:
        """All images of this host."""
        return JSONResponse(await images.listed(self.registry))

    async def put(self, request: Request) -> ASGIApp:
        """Import a file of this host."""
        body = await body_of(request)
        if "from" in body:
            return self._put_own(body)
        wanted, name = _wanted(body), str(body.get("name", ""))
        what = f"import {wanted.path.name}"
        return self._work(what, lambda tell: images.put(wanted, name, tell))

    def _put_own(self, body: Json) -> ASGIApp:
        """Make an image of a VM's disk."""
        origin, name = body["from"], str(body.get("name", ""))
        if not isinstance(origin, dict) or not origin.get("vm"):
            raise InputError("an image of a disk is asked for as {from: {fabric, vm, disk}, name}")
        fabric, vm, disk = (str(origin.get(key, "")) for key in ("fabric", "vm", "disk"))
        fabric = self.registry.only() if fabric in ("", "-") else fabric
        return self._work(
            f"make an image of {vm}",
            lambda tell: images.put_own(self.registry, fabric, vm, disk, name, tell),
        )

    async def remove(self, request: Request) -> Response:
        """Remove an image that nobody needs."""
        return JSONResponse(await images.remove(self.registry, request.path_params["image"]))

    async def remove_unused(self, request: Request) -> Response:
        """Remove all that have no name and that nobody needs."""
        return JSONResponse(await images.remove_unused(self.registry))

    async def verify(self, request: Request) -> ASGIApp:
        """Read images as a whole."""
        word = (await body_of(request)).get("image")

        async def work(tell: Callable[[str], None]) -> Json:
            return {"images": await images.verify(str(word) if word else None)}

        return self._work("verify", work)

    async def build(self, request: Request) -> ASGIApp:
        """Make one of vnet's own images."""
        name = request.path_params["image"]
        return self._work(f"build {name}", lambda tell: images.build(name, tell))

    def _work(self, what: str, work: Callable[[Callable[[str], None]], Awaitable[Json]]) -> ASGIApp:
        async def told(report: Report) -> Json:
            with telling(report, 1, what, 1):
                return await work(notes(report))

        return JsonLines(self.operations, told)


def _wanted(body: Json) -> Wanted:
    path, form = Path(str(body.get("path", ""))), str(body.get("format", ""))
    if not path.is_absolute():
        raise InputError("an image is imported as {path, name, sha256, format, cloud_init}; path is absolute")
    known = [each.value for each in ImageFormat]
    if form and form not in known:
        raise InputError(f"{form} is no format of images: {', '.join(known)}")
    checksum = str(body.get("sha256", "")).lower()
    if checksum and (len(checksum) != 64 or set(checksum) - set("0123456789abcdef")):
        raise InputError("a SHA-256 is 64 hexadecimal digits")
    return Wanted(path, checksum, form, body.get("cloud_init") is True, AT_IMPORT)
