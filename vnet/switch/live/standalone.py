"""A switch on its own, for anybody's controller: interfaces that are there already become its ports."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from vnet.base.errors import AdmissionError, HostError
from vnet.switch.abi import Point
from vnet.switch.address import Address
from vnet.switch.events import packet_in
from vnet.switch.live import nic
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.links import LinkMonitor
from vnet.switch.live.netns import inside
from vnet.switch.live.server import SwitchServer
from vnet.switch.live.tls import Identity

_log = logging.getLogger(__name__)


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
        is_kept = wanted.keep or wanted.pins.exists()
        datapath = EbpfDatapath.open(wanted.name, None, wanted.pins)
        stack.callback(lambda: (_leave if is_kept else _remove)(datapath, wanted.pins))
        server = SwitchServer(datapath, wanted.name, wanted.datapath_id)
        stack.push_async_callback(server.stop)
        await server.run(_attach, datapath, wanted)
        for address in wanted.addresses:
            await (server.listen if address.passive else server.call)(address, wanted.identity)
        await stack.enter_async_context(_heard(datapath, server, wanted))
        is_kept = wanted.keep
        yield server


def _attach(datapath: EbpfDatapath, wanted: Standalone) -> None:
    """Make the ports those that are wanted. One whose interface went away while nobody looked stays.

    Raises: HostError, before anything is changed if an interface of a new port is not there.
    """
    found = {port.number for port in datapath.ports()}
    gone = {number for number in datapath.bare_ports() if not nic.exists(wanted.ports.get(number, ""))}
    there = {number: ifname for number, ifname in wanted.ports.items() if number not in gone}
    for number, ifname in there.items():
        datapath.check_port(number, ifname)
    for number in found - wanted.ports.keys():
        datapath.detach(number)
    for number in there:
        _make_port(datapath, wanted, number)
    for number in sorted(gone & wanted.ports.keys()):
        _log.warning("port %d is down: there is no interface %s", number, wanted.ports[number])


def _attach_again(datapath: EbpfDatapath, wanted: Standalone) -> None:
    """Those whose interface has come back, or was left without the program."""
    for number in datapath.bare_ports():
        if nic.exists(wanted.ports[number]):
            try:
                _make_port(datapath, wanted, number)
            except (HostError, OSError) as error:  # it has gone again, or is another switch's by now
                _log.warning("port %d: %s", number, error)


def _make_port(datapath: EbpfDatapath, wanted: Standalone, number: int) -> None:
    datapath.attach(number, wanted.ports[number], number in wanted.uplinks)
    datapath.hear_all(number)


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


@contextlib.asynccontextmanager
async def _heard(datapath: EbpfDatapath, server: SwitchServer, wanted: Standalone) -> AsyncIterator[None]:
    """Packets for the controllers and changes of links reach the server; interfaces that come back are
    ports again."""
    loop, links, has_changed = asyncio.get_running_loop(), LinkMonitor(None), asyncio.Event()

    def event() -> None:
        for one in datapath.read_events():
            if one.point is Point.CONTROLLER:
                server.packet_in(packet_in(one))

    def link_changed() -> None:
        links.drain()
        has_changed.set()

    async def follow_links() -> None:
        while True:
            await has_changed.wait()
            has_changed.clear()
            await server.run(_attach_again, datapath, wanted)
            server.port_changed()

    loop.add_reader(datapath.event_fd, event)
    loop.add_reader(links.fd, link_changed)
    following = loop.create_task(follow_links())
    try:
        yield
    finally:
        following.cancel()
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
