"""The endpoints that give a VM a NIC or a disk by hand, or take one away."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.answers import outcome_json
from vnet.api.requests import body_of
from vnet.api.stream import JsonLines, Operations
from vnet.base.errors import InputError
from vnet.fabric.live import attaching
from vnet.fabric.live.engine import Engine


@dataclass(frozen=True, slots=True)
class AttachRoutes:
    """`name` gives the fabric that a request means."""

    engine: Engine
    name: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        vm = "/v1/fabrics/{fabric}/vms/{vm}"
        return [
            Route(f"{vm}/attach", partial(self._change, attach=True), methods=["POST"]),
            Route(f"{vm}/detach", partial(self._change, attach=False), methods=["POST"]),
        ]

    async def _change(self, request: Request, *, attach: bool) -> ASGIApp:
        """Attach or detach: `{"what": "lan"}`."""
        name, vm = self.name(request), request.path_params["vm"]
        what = (await body_of(request)).get("what")
        if not isinstance(what, str) or not what:
            raise InputError('what is attached or detached is sent as {"what": NAME}')

        async def work(report: Any) -> Mapping[str, Any]:
            outcome, edit = await attaching.change(self.engine, name, vm, what, attach=attach, report=report)
            return outcome_json(outcome) | {"edit": edit}

        return JsonLines(self.operations, work)
