"""The endpoint about the cables of VMs' NICs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.answers import outcome_json
from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.errors import InputError
from vnet.fabric.live import links
from vnet.fabric.live.engine import Engine


@dataclass(frozen=True, slots=True)
class LinkRoutes:
    """`name` gives the fabric that a request means."""

    engine: Engine
    name: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        link = "/v1/fabrics/{fabric}/vms/{vm}/nics/{interface}/link"
        return [Route(link, self.set_link, methods=["POST"])]

    async def set_link(self, request: Request) -> ASGIApp:
        """Pull a cable, or plug it in: `{"up": false}`."""
        name, given = self.name(request), request.path_params
        is_up = (await body_of(request)).get("up")
        if not isinstance(is_up, bool):
            raise InputError('a link is set by {"up": true} or {"up": false}')

        async def work(report: Any) -> Mapping[str, Any]:
            done = await links.set_link(self.engine, name, given["vm"], given["interface"], is_up, report)
            return outcome_json(done)

        return JsonLines(self.operations, work)
