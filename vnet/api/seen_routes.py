"""Endpoints about what happens and happened: connections, addresses, drops, history."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet.api.stream import Bytes, Operations
from vnet.base.errors import HostError, UsageError
from vnet.fabric import happened
from vnet.fabric.happened import Question
from vnet.fabric.live import seeing
from vnet.fabric.live.past import Past
from vnet.fabric.live.registry import Registry
from vnet.fabric.tracked import Wanted

QUEUED = 4096
DIGITS = 18
"""Of the largest number of a packet: SQLite's have 64 bits."""
HOUR_NS = 3600 * 10**9


@dataclass(frozen=True, slots=True)
class SeenRoutes:
    """They share the registry; `name` gives the fabric that a request means. Without `past` none is told."""

    registry: Registry
    name: Callable[[Request], str]
    operations: Operations
    past: Past | None

    def routes(self) -> list[Route]:
        """All of them."""
        fabric = "/v1/fabrics/{fabric}"
        return [
            Route(f"{fabric}/ct", self.ct),
            Route(f"{fabric}/fdb", self.fdb),
            Route(f"{fabric}/leases", self.leases),
            Route(f"{fabric}/drops/history", self.drops),
            Route(f"{fabric}/drops/packets", self.packets),
            Route(f"{fabric}/drops/follow", self.follow),
            Route(f"{fabric}/history", self.history),
            Route(f"{fabric}/history/generations", self.generations),
            Route(f"{fabric}/history/text", self.text),
        ]

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

    async def leases(self, request: Request) -> Response:
        """Whose each IP address is."""
        network = request.query_params.get("network")
        return JSONResponse(await seeing.leases(self.registry, self.name(request), network))

    async def drops(self, request: Request) -> Response:
        """What was dropped in a time."""
        query = request.query_params
        return JSONResponse(await self._past.drops(self.name(request), _question(query), _limit(query)))

    async def packets(self, request: Request) -> Response:
        """The first packets of kinds of drops, as JSON or as a capture file."""
        query = request.query_params
        numbers = tuple(_numbers(query.getlist("id")))
        found = await self._past.packets(self.name(request), numbers)
        if query.get("form") == "pcapng":
            return Response(b"".join(happened.pcapng(found)), media_type="application/x-pcapng")
        return JSONResponse([happened.packet_plain(row, said) for row, said in found])

    async def follow(self, request: Request) -> ASGIApp:
        """Drops as they are reported."""
        query, name = request.query_params, self.name(request)
        as_json = query.get("form") == "json"
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(QUEUED)
        await self._past.observers.settle(name)
        produce = self._past.follow(name, query.get("vm"), query.get("reason"), as_json)
        media_type = b"application/jsonl" if as_json else b"text/plain; charset=utf-8"
        return Bytes(produce, self.operations, media_type, blocks)

    async def history(self, request: Request) -> Response:
        """Who talked to whom in a time."""
        query = request.query_params
        return JSONResponse(await self._past.flows(self.name(request), _question(query), _limit(query)))

    async def generations(self, request: Request) -> Response:
        """The generations that are remembered, and how much is kept."""
        return JSONResponse(await self._past.generations(self.name(request)))

    async def text(self, request: Request) -> Response:
        """The topology of a generation."""
        wanted = number(request.query_params, "generation") or 0
        return JSONResponse(await self._past.text(self.name(request), wanted))

    @property
    def _past(self) -> Past:
        if self.past is None:
            raise HostError("this daemon keeps no history")
        return self.past


def _question(query: QueryParams) -> Question:
    now_ns = time.time_ns()
    since_ns, until_ns = number(query, "since_ns"), number(query, "until_ns")
    return Question(
        now_ns - HOUR_NS if since_ns is None else since_ns,
        now_ns if until_ns is None else until_ns,
        tuple(filter(None, query.get("by", "").split(","))),
        query.get("vm"),
        query.get("reason"),
    )


def _limit(query: QueryParams) -> int:
    return number(query, "limit") or 1000


def _numbers(texts: list[str]) -> Iterator[int]:
    for text in texts:
        if not text.isdecimal() or len(text) > DIGITS:
            raise UsageError(f"{text!r} is not the number of a packet")
        yield int(text)


def number(query: Mapping[str, Any], name: str) -> int | None:
    """A number of a query. Raises UsageError."""
    text = query.get(name)
    try:
        return None if text is None else int(text)
    except ValueError:
        raise UsageError(f"{name}: {text!r} is not a number") from None
