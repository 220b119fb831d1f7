"""Endpoints about the screens of VMs: VNC, pictures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vnet.fabric.live import screens
from vnet.fabric.live.engine import Engine


@dataclass(frozen=True, slots=True)
class ScreenRoutes:
    """`name` gives the fabric that a request means."""

    engine: Engine
    name: Callable[[Request], str]

    def routes(self) -> list[Route]:
        """All of them."""
        vm = "/v1/fabrics/{fabric}/vms/{vm}"
        return [Route(f"{vm}/vnc", self.vnc), Route(f"{vm}/screenshot", self.screenshot)]

    async def vnc(self, request: Request) -> Response:
        """Where VNC is spoken."""
        socket = await screens.vnc_socket(self.engine, self.name(request), request.path_params["vm"])
        return JSONResponse({"socket": str(socket)})

    async def screenshot(self, request: Request) -> Response:
        """What is on the screen."""
        data = await screens.picture(self.engine, self.name(request), request.path_params["vm"])
        return Response(data, media_type="image/png")
