"""Routes to calls: each endpoint reads its request, asks the service, writes JSON."""

from __future__ import annotations

import asyncio
import os
from base64 import b64decode, b64encode
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from vnet import __version__
from vnet.api.answers import outcome_json
from vnet.api.attach_routes import AttachRoutes
from vnet.api.backup_routes import BackupRoutes
from vnet.api.clone_routes import CloneRoutes
from vnet.api.disk_routes import DiskRoutes
from vnet.api.export_routes import ExportRoutes
from vnet.api.image_routes import ImageRoutes
from vnet.api.link_routes import LinkRoutes
from vnet.api.observed import Observed, with_usage
from vnet.api.requests import body_of
from vnet.api.screen_routes import ScreenRoutes
from vnet.api.seen_routes import SeenRoutes
from vnet.api.snapshot_routes import SnapshotRoutes
from vnet.api.stream import Bytes, JsonLines, Operations, error_json
from vnet.base.errors import HostError, InputError, UsageError, VnetError
from vnet.fabric.asked import Asked
from vnet.fabric.events import is_wanted
from vnet.fabric.live import captures, consoles, disks, recorded, snapshots
from vnet.fabric.live.backups import Backups
from vnet.fabric.live.captures import CaptureRequest
from vnet.fabric.live.consoles import LinesWanted
from vnet.fabric.live.engine import Engine, Terms
from vnet.fabric.live.numbers import Taker
from vnet.fabric.live.past import Past
from vnet.fabric.live.service import Service
from vnet.fabric.live.talking import Talking
from vnet.fabric.seen_lines import lines_of, read
from vnet.fabric.store import Source
from vnet.hv.live.console_log import Start

BLOCKS_QUEUED = 4096
"""What a slow reader of a capture may lag behind before packets are counted as lost."""


SEEN_BY_DEFAULT = timedelta(hours=24)


class Api:
    """All endpoints on one service. `end` is called when the daemon should end."""

    def __init__(
        self, service: Service, end: Callable[[], None], auto: bool = False, past: Past | None = None
    ) -> None:
        self.service, self.end, self.auto, self.past = service, end, auto, past
        self.operations = Operations()
        history_stopped = (lambda: past.history.stopped) if past else (lambda: "")
        self.taker = Taker(service.engine, lambda: len(self.operations.running), history_stopped)
        self.observed = Observed(self.taker)
        self.talking = Talking()

    def app(self) -> Starlette:
        """The ASGI application."""
        fabric, vm = "/v1/fabrics/{fabric}", "/v1/fabrics/{fabric}/vms/{vm}"
        routes = [
            Route("/v1/version", self.version),
            Route("/v1/vms", self.vms),
            Route("/v1/silent", self.silent),
            Route("/v1/uplinks", self.uplinks),
            Route("/v1/plan", self.plan, methods=["POST"]),
            Route("/v1/fabrics", self.up, methods=["POST"]),
            Route(fabric, self.down, methods=["DELETE"]),
            Route(fabric, self.inspect),
            Route(f"{fabric}/confirmation", self.confirmation),
            Route(f"{fabric}/confirm", self.confirm, methods=["POST"]),
            Route(f"{fabric}/rollback", self.rollback, methods=["POST"]),
            Route(f"{fabric}/verify", self.verify, methods=["POST"]),
            Route(f"{fabric}/drill", self.drill, methods=["POST"]),
            Route(f"{fabric}/flows", self.flows),
            Route(f"{fabric}/rules", self.rules),
            Route(f"{fabric}/drops", self.drops),
            Route(f"{fabric}/talkers", self.talkers),
            Route(f"{fabric}/picture", self.picture),
            Route(f"{fabric}/seen", self.seen),
            Route(f"{fabric}/capture", self.capture),
            Route(f"{fabric}/trace", self.trace, methods=["POST"]),
            Route(f"{fabric}/trace/live", self.follow),
            Route(f"{fabric}/policy/log", self.policy_log),
            Route(f"{vm}/start", self.start, methods=["POST"]),
            Route(f"{vm}/stop", self.stop, methods=["POST"]),
            *(
                Route(f"{vm}/{what}", self._one_vm(what), methods=["POST"])
                for what in ("pause", "resume", "reset")
            ),
            Route(f"{vm}/exec", self.exec, methods=["POST"]),
            Route(f"{vm}/console", self.console),
            Route(f"{vm}/logs", self.logs),
            Route("/v1/events", self.events),
            *AttachRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *LinkRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *DiskRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *CloneRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *SnapshotRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *ScreenRoutes(self.service.engine, self._fabric).routes(),
            *ImageRoutes(self.service.engine, self.operations).routes(),
            *ExportRoutes(self.service.engine, self._fabric, self.operations).routes(),
            *BackupRoutes(Backups(self.service.engine), self._fabric, self.operations).routes(),
            *SeenRoutes(self.service.engine, self._fabric, self.operations, self.past).routes(),
            Route("/v1/operations/{number}/cancel", self.cancel, methods=["POST"]),
            Route("/v1/operations/{number}/summary", self.summary),
            Route("/v1/shutdown", self.shutdown, methods=["POST"]),
            *self.observed.routes(),
        ]
        return Starlette(routes=routes, exception_handlers={VnetError: _refuse})

    async def version(self, request: Request) -> Response:
        """Who answers."""
        return JSONResponse({"version": __version__, "pid": os.getpid(), "auto": self.auto})

    async def vms(self, request: Request) -> Response:
        """VMs of one fabric or of all."""
        wanted = request.query_params.get("fabric")
        found = await self.service.vms(self._name(wanted) if wanted else None)
        return JSONResponse(with_usage(found, self.taker.recent(), self.taker.last()))

    async def silent(self, request: Request) -> Response:
        """VMs that run and whose agent does not answer."""
        return JSONResponse(await self.service.silent())

    async def uplinks(self, request: Request) -> Response:
        """Uplinks of one fabric or of all."""
        wanted = request.query_params.get("fabric")
        return JSONResponse(await self.service.uplinks(self._name(wanted) if wanted else None))

    async def inspect(self, request: Request) -> Response:
        """All about a fabric."""
        return JSONResponse(await self.service.inspect(self._fabric(request)))

    async def plan(self, request: Request) -> Response:
        """What `up` would do."""
        body = await body_of(request)
        outcome = await self.service.engine.plan(_source(body), _recorded(body, self.past))
        refused = {"refused": error_json(outcome.refused) if outcome.refused else None}
        id_ = {"id": await asyncio.to_thread(lambda: outcome.id)}
        return JSONResponse(outcome_json(outcome) | refused | id_)

    async def up(self, request: Request) -> ASGIApp:
        """Make a fabric what its topology says."""
        body = await body_of(request)
        source, terms = _source(body), _terms(body, self.past)

        async def work(report: Any) -> Mapping[str, Any]:
            outcome = await self.service.engine.up(source, report, terms)
            return outcome_json(outcome) | {"confirm_s": terms.confirm_s if outcome.actions else None}

        return JsonLines(self.operations, work)

    async def down(self, request: Request) -> ASGIApp:
        """Remove a fabric; the last one takes a daemon that a command started with it."""
        name = self._fabric(request)

        async def work(report: Any) -> Mapping[str, Any]:
            if self.past is not None:
                await self.past.observers.settle(name)  # the last look that there can be
            outcome = outcome_json(await self.service.engine.down(name, report))
            left = await _left(self.service.engine, name, remove="disks" in request.query_params)
            return {**outcome, **left, "daemon_ends": self._useless(), "pid": os.getpid()}

        return JsonLines(self.operations, work, lambda: self.end() if self._useless() else None)

    async def confirmation(self, request: Request) -> Response:
        """Whether the last change waits to be confirmed, and for how long."""
        return JSONResponse(self.service.confirmation(self._fabric(request)))

    async def confirm(self, request: Request) -> Response:
        """Keep the last change."""
        return JSONResponse(outcome_json(await self.service.engine.confirm(self._fabric(request))))

    async def rollback(self, request: Request) -> ASGIApp:
        """Undo the last change, which nobody has confirmed yet."""
        name = self._fabric(request)

        async def work(report: Any) -> Mapping[str, Any]:
            outcome = outcome_json(await self.service.engine.roll_back(name, report))
            return outcome | {"removed": name not in self.service.engine.fabrics}

        return JsonLines(self.operations, work)

    def _useless(self) -> bool:
        """Whether this daemon was started by a command and nothing is left for it to do."""
        return self.auto and not self.service.engine.fabrics and len(self.operations.running) <= 1

    async def verify(self, request: Request) -> ASGIApp:
        """Check the claims."""
        name, body = self._fabric(request), await body_of(request)

        async def work(report: Any) -> Mapping[str, Any]:
            return {"claims": await self.service.verify(name, bool(body.get("probe")), report)}

        return JsonLines(self.operations, work)

    async def drill(self, request: Request) -> ASGIApp:
        """Attack from a copy of a NIC."""
        name, body = self._fabric(request), await body_of(request)
        nic, only = str(body.get("nic", "")), tuple(map(str, body.get("only", ())))

        async def work(report: Any) -> Mapping[str, Any]:
            return {"attacks": await self.service.drill(name, nic, only, report)}

        return JsonLines(self.operations, work)

    async def flows(self, request: Request) -> Response:
        """The flows with where they come from."""
        return JSONResponse(await self.service.flows(self._fabric(request)))

    async def rules(self, request: Request) -> Response:
        """The rules in force with what they have decided."""
        vm = request.query_params.get("vm")
        return JSONResponse(await self.service.rules(self._fabric(request), vm))

    async def drops(self, request: Request) -> Response:
        """What was lost and why."""
        return JSONResponse(await self.service.drops(self._fabric(request)))

    async def talkers(self, request: Request) -> Response:
        """The connections that carried most since the last time anybody asked."""
        return JSONResponse(await self.talking.most(self.service.engine.fabric(self._fabric(request))))

    async def trace(self, request: Request) -> Response:
        """What would become of a packet."""
        name, body = self._fabric(request), await body_of(request)
        return JSONResponse(await self.service.trace(name, _asked(body)))

    async def follow(self, request: Request) -> ASGIApp:
        """The ways of packets as they come."""
        wanted = _wanted(request)
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_QUEUED)
        produce = await asyncio.to_thread(captures.follow, self.service.engine, self._fabric(request), wanted)
        media_type = b"text/plain; charset=utf-8" if wanted.lines else b"application/jsonl"
        return Bytes(produce, self.operations, media_type, blocks)

    async def picture(self, request: Request) -> Response:
        """What a picture is drawn from."""
        return JSONResponse(await self.service.picture(self._fabric(request)))

    async def seen(self, request: Request) -> Response:
        """What was seen of flows, as JSON Lines."""
        query, now = request.query_params, datetime.now(UTC)
        since, until = (_number(query.get(name), float) for name in ("since_s", "until_s"))
        begin = now - SEEN_BY_DEFAULT if since is None else datetime.fromtimestamp(since, UTC)
        end = now if until is None else datetime.fromtimestamp(until, UTC)
        if self.past is None:
            raise HostError("this daemon keeps no history; give the flows with --flows FILE")
        found = await recorded.seen(self.past, self._fabric(request), begin, end)
        return Response("".join(lines_of(found)), media_type="application/jsonl")

    async def capture(self, request: Request) -> ASGIApp:
        """Packets as they come."""
        query = request.query_params
        wanted = CaptureRequest(
            nics=tuple(query.getlist("nic")),
            filter=query.get("filter", ""),
            snaplen_bytes=_number(query.get("snaplen"), int),
            count=_number(query.get("count"), int),
            duration_s=_number(query.get("duration"), float),
            lines=query.get("form") == "lines",
            only_dropped="dropped" in query,
            networks=tuple(query.getlist("network")),
            points=tuple(query.getlist("point")),
        )
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_QUEUED)
        sums: list[Mapping[str, Any]] = []
        given = self.service.engine, self._fabric(request), wanted, sums.append
        produce = await asyncio.to_thread(captures.capture, *given)
        media_type = b"text/plain; charset=utf-8" if wanted.lines else b"application/x-pcapng"
        return Bytes(produce, self.operations, media_type, blocks, sums)

    async def summary(self, request: Request) -> Response:
        """What an operation that has ended came to."""
        number = request.path_params["number"]
        if number not in self.operations.summaries:
            raise InputError(f"of operation {number} no summary is known")
        return JSONResponse(self.operations.summaries[number])

    async def policy_log(self, request: Request) -> ASGIApp:
        """What rules with `log: true` decided."""
        query = request.query_params
        since_ns, until_ns = (_number(query.get(name), int) for name in ("since_ns", "until_ns"))
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_QUEUED)
        produce = self.service.policy_log(self._fabric(request), since_ns, until_ns, "follow" in query)
        return Bytes(produce, self.operations, b"application/jsonl", blocks)

    async def events(self, request: Request) -> ASGIApp:
        """What happened, and what happens."""
        query = request.query_params
        since_ns, until_ns = (_number(query.get(name), int) for name in ("since_ns", "until_ns"))
        fabric, kinds = query.get("fabric"), frozenset(query.getlist("kind"))
        wanted = partial(is_wanted, fabric=fabric, kinds=kinds)
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_QUEUED)
        produce = self.service.engine.events.read(since_ns, until_ns, "follow" in query, wanted)
        return Bytes(produce, self.operations, b"application/jsonl", blocks)

    async def start(self, request: Request) -> ASGIApp:
        """Start a VM."""
        name, vm, body = self._fabric(request), request.path_params["vm"], await body_of(request)

        async def work(report: Any) -> Mapping[str, Any]:
            boot = body.get("boot") is True
            return outcome_json(await self.service.engine.start(name, vm, report, boot=boot))

        return JsonLines(self.operations, work)

    async def stop(self, request: Request) -> ASGIApp:
        """Stop a VM."""
        name, vm, body = self._fabric(request), request.path_params["vm"], await body_of(request)

        async def work(report: Any) -> Mapping[str, Any]:
            timeout_s = float(body.get("timeout_s", 10))
            return outcome_json(await self.service.engine.stop(name, vm, timeout_s, report))

        return JsonLines(self.operations, work)

    def _one_vm(self, what: str) -> Callable[[Request], Awaitable[ASGIApp]]:
        """The endpoint that has the engine do so to a VM."""
        change = getattr(self.service.engine, what)

        async def endpoint(request: Request) -> ASGIApp:
            name, vm = self._fabric(request), request.path_params["vm"]

            async def work(report: Any) -> Mapping[str, Any]:
                return outcome_json(await change(name, vm, report))

            return JsonLines(self.operations, work)

        return endpoint

    async def exec(self, request: Request) -> ASGIApp:
        """Run a command in a VM."""
        name, vm, body = self._fabric(request), request.path_params["vm"], await body_of(request)
        argv, timeout_s = tuple(map(str, body.get("argv", ()))), float(body.get("timeout_s", 60))
        stdin = b64decode(body.get("stdin", ""))

        async def work(report: Any) -> Mapping[str, Any]:
            result = await self.service.exec(name, vm, argv, timeout_s, stdin)
            output = {
                "stdout": b64encode(result.stdout).decode(),
                "stderr": b64encode(result.stderr).decode(),
            }
            return {"exit_code": result.exit_code, **output}

        return JsonLines(self.operations, work)

    async def console(self, request: Request) -> Response:
        """Where a VM's console is."""
        socket = await self.service.console(self._fabric(request), request.path_params["vm"])
        return JSONResponse({"socket": str(socket)})

    async def logs(self, request: Request) -> ASGIApp:
        """What a VM printed on its console."""
        query, name = request.query_params, self._fabric(request)
        start = Start.PREVIOUS if "previous" in query else Start.CURRENT
        wanted = LinesWanted(start, _number(query.get("lines"), int), "follow" in query)
        vm = self.service.engine.guest(name, request.path_params["vm"]).name
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue(BLOCKS_QUEUED)
        produce = await asyncio.to_thread(consoles.read, name, vm, wanted)
        return Bytes(produce, self.operations, b"application/jsonl", blocks)

    async def cancel(self, request: Request) -> Response:
        """Break an operation off."""
        return JSONResponse({"cancelled": self.operations.cancel(request.path_params["number"])})

    async def shutdown(self, request: Request) -> Response:
        """End the daemon; everything it made goes on."""
        asyncio.get_running_loop().call_soon(self.end)
        return JSONResponse({"pid": os.getpid(), "unconfirmed": self.service.unconfirmed()})

    def _fabric(self, request: Request) -> str:
        return self._name(request.path_params["fabric"])

    def _name(self, wanted: str) -> str:
        return self.service.engine.only() if wanted == "-" else wanted


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, VnetError)
    return JSONResponse({"error": error_json(error)}, 400)


async def _left(engine: Engine, name: str, *, remove: bool) -> Mapping[str, Any]:
    """What is kept of a fabric that is down; with `remove` what was, and is removed now."""
    there = await snapshots.listed(name)
    removed = await disks.remove_left(engine, name) if remove else []
    return {
        "disks_kept": await disks.left(name),
        "disks_removed": removed,
        "snapshots_kept": 0 if remove else len(there),
        "snapshots_removed": there if remove else [],
    }


def _source(body: Mapping[str, Any]) -> Source:
    file, text = body.get("file"), body.get("text")
    env, included = body.get("env", {}), body.get("included", {})
    if not isinstance(file, str) or not isinstance(text, str):
        raise InputError("a topology is sent as {file, text, env, included}")
    return Source(file, text, _texts(env), _texts(included))


def _recorded(body: Mapping[str, Any], past: Past | None) -> recorded.Recorded:
    """The flows to run through a plan: those of a time, those sent along, or none."""
    wanted = body.get("replay")
    match wanted:
        case None:
            return recorded.nothing
        case {"seconds": int() | float() as seconds} if seconds > 0:
            return recorded.since(past, datetime.now(UTC) - timedelta(seconds=seconds))
        case {"lines": list() as lines, "file": str() as file}:
            return recorded.given(read(map(str, lines), file, datetime.now(UTC)))
        case _:
            raise InputError("replay is {seconds}, {lines, file} or null")


def _terms(body: Mapping[str, Any], past: Past | None) -> Terms:
    confirm_s, plan = body.get("confirm_s"), body.get("plan", "")
    if confirm_s is not None and not (isinstance(confirm_s, int | float) and confirm_s > 0):
        raise InputError("`confirm_s` is a number of seconds")
    return Terms(confirm_s, body.get("agreed") is True, str(plan), _recorded(body, past))


def _wanted(request: Request) -> CaptureRequest:
    query = request.query_params
    count, duration_s = _number(query.get("count"), int), _number(query.get("duration"), float)
    nics, filter_ = tuple(query.getlist("nic")), query.get("filter", "")
    return CaptureRequest(nics, filter_, None, count, duration_s, query.get("form") == "lines")


def _asked(body: Mapping[str, Any]) -> Asked:
    words = {name: str(body.get(name, "")) for name in ("source", "target", "service", "packet")}
    try:
        frame = bytes.fromhex(str(body.get("frame", "")))
    except ValueError:
        raise InputError("`frame` is a packet's bytes in hexadecimal") from None
    captured = body.get("captured")
    return Asked(
        **words,
        frame=frame,
        captured=captured if isinstance(captured, int) else None,
        new=body.get("new") is True,
        reply=body.get("reply") is True,
    )


def _texts(given: object) -> Mapping[str, str]:
    if not isinstance(given, dict):
        raise InputError("a topology's `env` and `included` are maps of texts")
    return {str(name): str(value) for name, value in given.items()}


def _number(text: str | None, kind: Callable[[str], Any]) -> Any:
    try:
        return None if text is None else kind(text)
    except ValueError:
        raise UsageError(f"{text!r} is not a number") from None
