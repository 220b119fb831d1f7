"""vnetd: one per host, by a lock; one unix socket; ends without touching what it made."""

from __future__ import annotations

import asyncio
import fcntl
import grp
import os
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import uvicorn

from vnet.api.app import Api
from vnet.base import paths
from vnet.base.errors import Exit, HostError
from vnet.fabric.live import ipfix, keeper
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.history import Observers, make_observers
from vnet.fabric.live.past import Past
from vnet.fabric.live.service import Service
from vnet.fabric.live.wiring import make_engine
from vnet.hv.live.manager import HvManager
from vnet.hv.spec import GuestEvent

GROUP = "vnet"
"""Members may use the socket, which is as much as being root: they can attach to any VM."""
HANDOVER_S = 30.0
"""How long a daemon that a command started waits for its predecessor to end, or to be ready."""
ROLLBACK_POLL_S = 0.5
"""How often it is looked whether the time to confirm a change is over."""
IDLE_S = 10.0
"""A daemon that a command started and that has no fabric waits so long for the next command."""


class Server(uvicorn.Server):
    """Breaks running operations off before it waits for their connections."""

    api: Api

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Undo what is half done, then close."""
        await self.api.operations.cancel_all()
        await super().shutdown(sockets)


def serve(auto: bool) -> int:
    """Run until told to end. Raises HostError when another daemon runs or the host refuses."""
    if os.geteuid() != 0:
        raise HostError("vnetd needs root (network namespaces, eBPF, TAP): run it as root, or with sudo")
    lock = _lock_when_free() if auto else _lock()
    if lock is None:
        return Exit.OK
    try:
        asyncio.run(_run(auto))
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


async def _run(auto: bool) -> None:
    manager = HvManager(_tell)
    engine = make_engine(manager)
    observers = make_observers(engine)
    _export(observers)
    try:
        await engine.adopt()
        for name, fabric in engine.fabrics.items():
            print(f"vnetd: adopted {name}{': ' + fabric.trouble if fabric.trouble else ''}", file=sys.stderr)
        await _serve(Service(engine), auto, observers)
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


def _tell(event: GuestEvent) -> None:
    print(f"vnetd: {event.fabric}/{event.name}: {event.text}", file=sys.stderr, flush=True)


async def _serve(service: Service, auto: bool, observers: Observers | None = None) -> None:
    past = Past(observers) if observers else None
    api = Api(service, lambda: setattr(server, "should_exit", True), auto, past)
    config = uvicorn.Config(
        api.app(), log_level="warning", access_log=False, lifespan="off", timeout_graceful_shutdown=5
    )
    server = Server(config)
    server.api = api
    beside = [
        asyncio.ensure_future(_expire(service.engine)),
        asyncio.ensure_future(_roll_back(service.engine)),
        asyncio.ensure_future(keeper.keep(service.engine)),
    ]
    if observers:
        beside.append(asyncio.ensure_future(observers.keep()))
    if auto:
        beside.append(asyncio.ensure_future(_end_when_idle(api, server)))
    with _listening(paths.daemon_socket()) as listener:
        await server.serve(sockets=[listener])
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)


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
