"""Endpoints about backups. A key that comes along is kept no longer than the operation takes."""

from __future__ import annotations

import binascii
from base64 import b64decode
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
from vnet.fabric.live import backup_making, backup_restoring, backup_shelf
from vnet.fabric.live.backups import Backups, Target, Wanted
from vnet.hv.freeze import FreezeMode
from vnet.hv.live.backup import CHAIN_MAX
from vnet.hv.retention import Keep
from vnet.hv.secret import check_key

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BackupRoutes:
    """They share the backups; `name` gives the fabric that a request means."""

    backups: Backups
    name: Callable[[Request], str]
    operations: Operations

    def routes(self) -> list[Route]:
        """All of them."""
        one = "/v1/backups/{id}"
        return [
            Route("/v1/fabrics/{fabric}/vms/{vm}/backups", self.create, methods=["POST"]),
            Route("/v1/backups", self.listed),
            Route("/v1/backups/verify", self.verify, methods=["POST"]),
            Route("/v1/backups/prune", self.prune, methods=["POST"]),
            Route("/v1/backups/remove", self.remove, methods=["POST"]),
            Route(one, self.shown),
            Route(f"{one}/restore", self.restore, methods=["POST"]),
            Route(f"{one}/resume", self.resume, methods=["POST"]),
            Route(f"{one}/discard", self.discard, methods=["POST"]),
        ]

    async def create(self, request: Request) -> ASGIApp:
        """Back a VM up."""
        name, vm, wanted = self.name(request), request.path_params["vm"], _wanted(await body_of(request))

        async def work(report: Any) -> Json:
            return {"backup": await backup_making.create(self.backups, name, vm, wanted, report)}

        return JsonLines(self.operations, work)

    async def listed(self, request: Request) -> Response:
        """What is in a store."""
        query = request.query_params
        found = await backup_shelf.listed(
            self.backups, query.get("store", ""), query.get("fabric"), query.get("vm")
        )
        return JSONResponse(found)

    async def shown(self, request: Request) -> Response:
        """All that an entry says of itself."""
        query = request.query_params
        found = await backup_shelf.shown(
            self.backups,
            request.path_params["id"],
            query.get("store", ""),
            query.get("name", ""),
            same="same" in query,
        )
        return JSONResponse(found)

    async def verify(self, request: Request) -> ASGIApp:
        """Read all of entries."""
        body = await body_of(request)
        ids, wanted = _ids(body), _wanted(body)

        async def work(report: Any) -> Json:
            return {"backups": await backup_shelf.verify(self.backups, ids, wanted, report)}

        return JsonLines(self.operations, work)

    async def restore(self, request: Request) -> ASGIApp:
        """Write disks as they were."""
        id_, body = request.path_params["id"], await body_of(request)
        words = {name: str(body.get(name, "")) for name in ("fabric", "vm", "disk", "saved")}
        target = Target(**words, overwrite=body.get("overwrite") is True)
        wanted = _wanted(body)

        async def work(report: Any) -> Json:
            return {"backup": await backup_restoring.restore(self.backups, id_, target, wanted, report)}

        return JsonLines(self.operations, work)

    async def prune(self, request: Request) -> ASGIApp:
        """Remove what no rule keeps."""
        body = await body_of(request)
        keep = Keep(**{name: _count(body, name) for name in ("last", "daily", "weekly", "monthly")})
        only = Target(str(body.get("fabric", "")), str(body.get("vm", "")))
        store, dry_run = str(body.get("store", "")), body.get("dry_run") is True

        async def work(report: Any) -> Json:
            return {
                "backups": await backup_shelf.prune(
                    self.backups, store, keep, only, dry_run=dry_run, report=report
                )
            }

        return JsonLines(self.operations, work)

    async def remove(self, request: Request) -> ASGIApp:
        """Remove entries."""
        body = await body_of(request)
        store, ids = str(body.get("store", "")), _ids(body)

        async def work(report: Any) -> Json:
            return {"backups": await backup_shelf.remove(self.backups, store, ids, report)}

        return JsonLines(self.operations, work)

    async def resume(self, request: Request) -> ASGIApp:
        """Finish what was broken off."""
        id_, wanted = request.path_params["id"], _wanted(await body_of(request))

        async def work(report: Any) -> Json:
            return {"backup": await backup_making.resume(self.backups, id_, wanted, report)}

        return JsonLines(self.operations, work)

    async def discard(self, request: Request) -> Response:
        """Remove what was broken off."""
        wanted = _wanted(await body_of(request))
        return JSONResponse(await backup_making.discard(self.backups, request.path_params["id"], wanted))


def _wanted(body: Json) -> Wanted:
    modes = {each.value: each for each in FreezeMode}
    freeze = body.get("freeze", FreezeMode.AUTO.value)
    if freeze not in modes:
        raise InputError(f"`freeze` is one of {', '.join(modes)}")
    return Wanted(
        str(body.get("store", "")),
        _key(body),
        body.get("full") is True,
        _count(body, "chain_max", CHAIN_MAX),
        _count(body, "rate_bytes"),
        modes[freeze],
        body.get("tight") is True,
    )


def _key(body: Json) -> bytes | None:
    given = body.get("key")
    if given is None:
        return None
    try:
        return check_key(b64decode(str(given), validate=True), "the key")
    except binascii.Error:
        raise InputError("`key` is the key's bytes in Base64") from None


def _count(body: Json, name: str, default: int = 0) -> int:
    given = body.get(name, default)
    if not isinstance(given, int) or given < 0:
        raise InputError(f"`{name}` is a number of 0 or more")
    return given


def _ids(body: Json) -> list[str]:
    ids = body.get("ids", [])
    if not isinstance(ids, list):
        raise InputError("`ids` is a list of names of backups")
    return list(map(str, ids))
