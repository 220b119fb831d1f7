"""Endpoints about what happens and happened: connections, addresses, drops, history."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vnet.base.errors import UsageError
from vnet.fabric.live import seeing
from vnet.fabric.live.registry import Registry
from vnet.fabric.tracked import Wanted


@dataclass(frozen=True, slots=True)
class SeenRoutes:
    """They share the registry; `name` gives the fabric that a request means."""

    registry: Registry
    name: Callable[[Request], str]

    def routes(self) -> list[Route]:
        """All of them."""
        fabric = "/v1/fabrics/{fabric}"
        return [Route(f"{fabric}/ct", self.ct), Route(f"{fabric}/fdb", self.fdb)]

    async def ct(self, request: Request) -> Response:
        """The connections that the switch tracks."""
        query = request.query_params
        wanted = Wanted(
            query.get("vm"),
            query.get("to"),
            number(query, "port"),
            query.get("state"),
            query.get("sort", "bytes"),
            number(query, "limit") or 1000,
        )
        return JSONResponse(await seeing.connections(self.registry, self.name(request), wanted))

    async def fdb(self, request: Request) -> Response:
        """The MAC table."""
        network = request.query_params.get("network")
        return JSONResponse(await seeing.addresses(self.registry, self.name(request), network))


def number(query: Mapping[str, Any], name: str) -> int | None:
    """A number of a query. Raises UsageError."""
    text = query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a number") from None
