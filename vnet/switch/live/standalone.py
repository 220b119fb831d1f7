"""A switch on its own, for anybody's controller: interfaces that are there already become its ports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vnet.base.errors import AdmissionError, HostError
from vnet.switch.abi import Point
from vnet.switch.address import Address
from vnet.switch.events import packet_in
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.links import LinkMonitor
from vnet.switch.live.netns import inside
from vnet.switch.live.server import SwitchServer
from vnet.switch.live.tls import Identity


@dataclass(frozen=True, slots=True)
class Standalone:
    """What is wanted. All of it is in `netns`, the sockets of its addresses too; None is where one is."""

    name: str
    datapath_id: int
    netns: str | None
    ports: Mapping[int, str]
    """Interface names by port number."""
    addresses: tuple[Address, ...]
    """Controllers that are called, and passive ones where the switch listens."""
    pins: Path
    lock: Path
    """A file that whoever is the switch's agent has locked."""
    identity: Identity | None = None
    uplinks: frozenset[int] = frozenset()
    """Ports with many hosts behind them."""
    keep: bool = False
    """Whether at the end the kernel goes on forwarding by the rules that are there; else nothing is left."""


@contextlib.asynccontextmanager
async def running(wanted: Standalone) -> AsyncIterator[SwitchServer]:
    """The switch in the kernel and its server, for the time of the context.

    A switch of that name whose process is gone is taken over with its flows; ports that are not wanted any
    more are taken out. Only for the thread of the process's event loop, which stays in the namespace.

    Raises: AdmissionError if another process has this switch, HostError, InputError.
    """
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(_alone(wanted))
        stack.enter_context(inside(wanted.netns))
        datapath = EbpfDatapath.open(wanted.name, None, wanted.pins)
        stack.callback(_leave if wanted.keep else _remove, datapath, wanted.pins)
        server = SwitchServer(datapath, wanted.name, wanted.datapath_id)
        stack.push_async_callback(server.stop)
        await server.run(_attach, datapath, wanted)
        for address in wanted.addresses:
            await (server.listen if address.passive else server.call)(address, wanted.identity)
        stack.enter_context(_heard(datapath, server))
        yield server


def _attach(datapath: EbpfDatapath, wanted: Standalone) -> None:
    for port in datapath.ports():
        if port.number not in wanted.ports:
            datapath.detach(port.number)
    for number, ifname in wanted.ports.items():
        datapath.attach(number, ifname, number in wanted.uplinks)


@contextlib.contextmanager
def _alone(wanted: Standalone) -> Iterator[None]:
    """Two agents of one switch would overwrite each other's changes. One that was killed holds nothing."""
    with _lock_file(wanted.lock) as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not wanted.lock.samefile(f"/proc/self/fd/{held.fileno()}"):  # of one that has just ended
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise AdmissionError(f"switch {wanted.name} runs already, in another process") from None
        try:
            yield
        finally:
            wanted.lock.unlink(missing_ok=True)


def _lock_file(path: Path) -> IO[str]:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("w")
    except OSError as error:
        raise HostError(
            f"cannot write {path}: {error.strerror}; run it as root, or let VNET_RUN_DIR name another folder"
        ) from error


@contextlib.contextmanager
def _heard(datapath: EbpfDatapath, server: SwitchServer) -> Iterator[None]:
    """Packets for the controllers and changes of links reach the server."""
    loop, links = asyncio.get_running_loop(), LinkMonitor(None)

    def event() -> None:
        for one in datapath.read_events():
            if one.point is Point.CONTROLLER:
                server.packet_in(packet_in(one))

    def link_changed() -> None:
        links.drain()
        server.port_changed()

    loop.add_reader(datapath.event_fd, event)
    loop.add_reader(links.fd, link_changed)
    try:
        yield
    finally:
        loop.remove_reader(datapath.event_fd)
        loop.remove_reader(links.fd)
        links.close()


def _leave(datapath: EbpfDatapath, _pins: Path) -> None:
    datapath.close()


def _remove(datapath: EbpfDatapath, pins: Path) -> None:
    with contextlib.suppress(HostError):
        datapath.destroy()
    with contextlib.suppress(OSError):  # another switch lives there still
        pins.parent.rmdir()
