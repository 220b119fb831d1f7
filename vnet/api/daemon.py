"""vnetd: one per host, by a lock; one unix socket; ends without touching what it made."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import grp
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import uvicorn

from vnet import __version__
from vnet.api import listen, requests
from vnet.api.app import Api
from vnet.api.notify import Notifier
from vnet.base import logs, paths
from vnet.base.errors import Exit, HostError
from vnet.base.logs import LogFormat
from vnet.fabric.events import Kind
from vnet.fabric.live import going_on, ipfix, keeper, lookout, nursing, tending
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.history import Observers, make_observers
from vnet.fabric.live.past import Past
from vnet.fabric.live.service import Service
from vnet.fabric.live.wiring import make_engine
from vnet.hv.live import sweeping
from vnet.hv.live.manager import HvManager
from vnet.hv.spec import GuestEvent, Happening

GROUP = "vnet"
"""Members may use the socket, which is as much as being root: they can attach to any VM."""
HANDOVER_S = 30.0
"""How long a daemon that a command started waits for its predecessor to end, or to be ready."""
ROLLBACK_POLL_S = 0.5
"""How often it is looked whether the time to confirm a change is over."""
READERS = 32
"""Connections on TCP at a time."""
IDLE_S = 10.0
"""A daemon that a command started and that has no fabric waits so long for the next command."""


class PublicServer(uvicorn.Server):
    """The one on TCP: signals are the other's."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """None."""
        yield


class Server(uvicorn.Server):
    """Breaks running operations off before it waits for their connections; says when it serves and ends."""

    api: Api
    notifier: Notifier

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Everything that runs has been taken over by now."""
        await super().startup(sockets)
        names = ", ".join(sorted(self.api.service.engine.fabrics)) or "no fabric"
        self.notifier.tell("READY=1", f"STATUS=serves {names}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Undo what is half done, then close."""
        self.notifier.tell("STOPPING=1")
        await self.api.operations.cancel_all()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class Mode:
    """How a daemon is to run.

    `auto`: a command started it, so it ends when it has nothing to do. `metrics`: the TCP address, HOST:PORT,
    where numbers and health are told besides; empty for none. `log_format`, `verbose`: see `vnet.base.logs`.
    """

    auto: bool = False
    metrics: str = ""
    log_format: LogFormat = LogFormat.TEXT
    verbose: bool = False


def serve(mode: Mode) -> int:
    """Run until told to end. Raises HostError when another daemon runs or the host refuses."""
    auto = mode.auto
    address = listen.parse(mode.metrics) if mode.metrics else None
    if os.geteuid() != 0:
        raise HostError("vnetd needs root (network namespaces, eBPF, TAP): run it as root, or with sudo")
    lock = _lock_when_free() if auto else _lock()
    if lock is None:
        return Exit.OK
    try:
        messages = logs.set_up(
            sys.stderr, mode.log_format, mode.verbose, logs.is_journal(sys.stderr, os.environ)
        )
        asyncio.run(_run(auto, address, messages))
    finally:
        paths.daemon_socket().unlink(missing_ok=True)
        os.close(lock)
    return Exit.OK


def _lock_when_free() -> int | None:
    """The lock, once a daemon that is just ending has let go of it; None when another one serves."""
    deadline = time.monotonic() + HANDOVER_S
    while True:
        try:
            return _lock()
        except Busy:
            if _answers(paths.daemon_socket()):
                return None
            if time.monotonic() > deadline:
                raise
        time.sleep(0.05)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


class Busy(HostError):
    """Another daemon holds the lock."""


def _lock() -> int:
    """The lock that makes this the only daemon of the host; freed by the kernel when it dies."""
    path = paths.run_dir() / "vnetd.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise HostError(f"cannot create {path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        pid = os.read(fd, 32).decode().strip() or "unknown"
        os.close(fd)
        raise Busy(
            f"another vnetd (pid {pid}) already serves {paths.run_dir()}; "
            "use it, or end it with `vnet serve --stop`: guests and traffic go on"
        ) from None
    os.truncate(fd, 0)
    os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
    return fd


async def _run(auto: bool, address: tuple[str, int] | None, messages: Counter[str]) -> None:
    manager = HvManager(lambda event: _tell(engine.events, event))
    engine = make_engine(manager)
    observers = make_observers(engine)
    _export(observers)
    try:
        about = {"version": __version__, "pid": os.getpid()}
        engine.events.tell(Kind.DAEMON_STARTED, f"vnetd {__version__} runs", fields=about)
        with contextlib.ExitStack() as opened:
            public = opened.enter_context(listen.listening(*address)) if address else None
            await sweeping.sweep()
            await engine.adopt()
            await _serve(Service(engine), auto, public, messages, observers)
        engine.events.tell(Kind.DAEMON_STOPPED, "vnetd ends", fields={"pid": os.getpid()})
    finally:
        await observers.close()
        await engine.close()
        await manager.close()


def _export(observers: Observers) -> None:
    """Send flow records to the collector that the environment names."""
    collector = ipfix.wanted()
    if collector is not None:
        sender = ipfix.Sender(*collector)
        observers.begun.append(partial(ipfix.export, sender))


_KINDS = {
    Happening.DIED: Kind.VM_DIED,
    Happening.STOPPED: Kind.VM_STOPPED,
    Happening.PANICKED: Kind.VM_PANICKED,
    Happening.HALTED: Kind.VM_HALTED,
    Happening.DISK_FAILED: Kind.DISK_FAILED,
    Happening.REBOOTED: Kind.VM_REBOOTED,
}


def _tell(events: EventLog, event: GuestEvent) -> None:
    """Something happened to a guest that nobody asked for."""
    kind = _KINDS[event.what]
    fields = {} if kind is Kind.VM_PANICKED else {"why": event.text}
    fields |= {"disk": event.disk} if event.disk else {}
    events.tell(kind, f"{event.name}: {event.text}", event.fabric, event.name, fields)


async def _serve(
    service: Service,
    auto: bool,
    public: socket.socket | None = None,
    messages: Counter[str] | None = None,
    observers: Observers | None = None,
) -> None:
    past = Past(observers) if observers else None
    api = Api(service, lambda: setattr(server, "should_exit", True), auto, past)
    api.taker.messages = messages if messages is not None else Counter()
    config = uvicorn.Config(
        requests.logged(api.app()),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=5,
    )
    notifier = Notifier(os.environ)
    server = Server(config)
    server.api, server.notifier = api, notifier
    beside = [
        asyncio.ensure_future(_expire(service.engine)),
        asyncio.ensure_future(_roll_back(service.engine)),
        asyncio.ensure_future(keeper.keep(service.engine)),
        asyncio.ensure_future(tending.tend(service.engine)),
        asyncio.ensure_future(nursing.look_after(service.engine)),
        asyncio.ensure_future(nursing.restart_ended(service.engine)),
        asyncio.ensure_future(going_on.look_for_room(service.engine)),
        asyncio.ensure_future(api.taker.measure_lag()),
        asyncio.ensure_future(notifier.live()),
        asyncio.ensure_future(lookout.look_out(api.taker, service.engine.events)),
    ]
    if public is not None:
        beside.append(asyncio.ensure_future(_show(api, public)))
    if observers:
        beside.append(asyncio.ensure_future(observers.keep()))
    if auto:
        beside.append(asyncio.ensure_future(_end_when_idle(api, server)))
    with _listening(paths.daemon_socket()) as listener:
        await server.serve(sockets=[listener])
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)


async def _show(api: Api, public: socket.socket) -> None:
    """Tell numbers and health on TCP, to a few at a time."""
    config = uvicorn.Config(
        requests.logged(api.observed.public()),
        log_config=None,
        log_level="warning",
        access_log=False,
        lifespan="off",
        limit_concurrency=READERS,
        timeout_keep_alive=5,
    )
    await PublicServer(config).serve(sockets=[public])


def _listening(path: Path) -> socket.socket:
    """The socket; a stale one is replaced, since the lock says that nobody listens on it."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError as error:
        listener.close()
        raise HostError(f"cannot listen on {path}: {error.strerror or error}") from error
    finally:
        os.umask(before)
    with suppress(KeyError):
        os.chown(path, -1, grp.getgrnam(GROUP).gr_gid)
    listener.listen(128)
    return listener


async def _expire(engine: Engine) -> None:
    """See to it that rules cease when their time is over."""
    while True:
        await asyncio.sleep(1.0)
        expires = engine.next_expiry()
        if expires is not None and expires <= engine.host.now():
            await engine.expire()


async def _roll_back(engine: Engine) -> None:
    """See to it that a change is undone when nobody confirms it in time."""
    while True:
        await engine.roll_back_due()
        await asyncio.sleep(ROLLBACK_POLL_S)


async def _end_when_idle(api: Api, server: Server) -> None:
    """A daemon started for `vnet plan` on a fresh host leaves by itself."""
    idle_s = 0.0
    while idle_s < IDLE_S:
        await asyncio.sleep(1.0)
        busy = api.service.engine.fabrics or api.operations.running
        idle_s = 0.0 if busy else idle_s + 1.0
    server.should_exit = True
