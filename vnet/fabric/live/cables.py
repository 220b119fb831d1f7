"""The `Cables` of this host: interfaces that move into the fabric's namespace, and back.

What an interface was is noted before it is touched, and the note goes when all of it has been restored. So
whatever a daemon was killed at, the next one knows whose each interface is.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.cable import LinkState, Obstacle, Was, lent, missing, obstacle
from vnet.fabric.live import interface, netns
from vnet.fabric.live.gateway_record import Records
from vnet.fabric.live.uplink_mtus import mtus
from vnet.fabric.state import Cable, Port, cable_remnant
from vnet.switch.live import bpf, nic
from vnet.switch.live.attach import FILTER_NAME
from vnet.switch.live.netns import NETNS_DIR, inside
from vnet.topology.model import Topology

FOLDER = "cables"
FREE_S = 2.0
"""How long the kernel may take to let go of a program that nothing holds any more."""


@dataclass(frozen=True, slots=True)
class Note:
    """What is remembered of an interface."""

    cable: Cable
    was: Was


class HostCables:
    """See `vnet.fabric.live.parts.Cables`.

    `netns` is the fabric's namespace, `host` that of the host if it is another than the daemon's.
    """

    def __init__(self, fabric: str, netns: str, host: str | None = None) -> None:
        self._fabric, self._netns, self._host = fabric, netns, host
        self._folder = paths.fabric_run_dir(fabric) / FOLDER
        self._lock = asyncio.Lock()

    async def observed(self) -> frozenset[Cable]:
        """Those that the fabric has, as they were put, the missing too; of all else a `cable_remnant`."""
        return await asyncio.to_thread(self._observed)

    async def uplinks(self) -> tuple[str, ...]:
        """The uplinks for which anything was done on the host."""
        return tuple(note.cable.uplink for note in _notes(self._folder))

    async def obstacles(self, cables: Iterable[Cable]) -> Mapping[str, Obstacle]:
        """Why some of these cannot be put, by their uplinks."""
        return await asyncio.to_thread(self._obstacles, tuple(cables))

    async def put(self, cable: Cable) -> None:
        """Take the interface into the fabric's namespace, and switch it on there."""
        async with self._lock:
            await netns.finished(None, self._put, cable)

    async def remove(self, uplink: str) -> None:
        """Give its interface back to the host as it was."""
        async with self._lock:
            await netns.finished(None, self._remove, uplink)

    async def links(self) -> Mapping[str, LinkState]:
        """How the interfaces are that the fabric has."""
        return await asyncio.to_thread(self._links)

    async def mtus(self, topology: Topology) -> Mapping[str, int]:
        """The MTUs of the interfaces that its uplinks name, by their names on the host.

        One that is missing and waited for has that which it had when it was taken.
        """
        return await asyncio.to_thread(self._mtus, topology)

    async def retake(self) -> tuple[Cable, ...]:
        """Take again those that were missing and are back on the host."""
        async with self._lock:
            return await netns.finished(None, self._retake)

    # blocking

    def _mtus(self, topology: Topology) -> Mapping[str, int]:
        noted = {note.cable.interface: note.was.mtu for note in _notes(self._folder) if note.was.mtu}
        return noted | dict(mtus(topology, self._netns, self._host))

    def _observed(self) -> frozenset[Cable]:
        return frozenset(
            note.cable if self._is_as_put(note.cable) else cable_remnant(note.cable.uplink)
            for note in _notes(self._folder)
        )

    def _is_as_put(self, cable: Cable) -> bool:
        """One that is missing waits to be taken again."""
        if not netns.exists(self._netns):
            return False
        with inside(self._netns):
            if nic.exists(cable.port.ifname):
                return interface.is_up(cable.port.ifname)
        return self._on_host(cable) is None

    def _on_host(self, cable: Cable) -> str | None:
        """The name of its interface there: the kernel brings home what was in a namespace that is deleted."""
        with inside(self._host):
            names = (name for name in (cable.interface, cable.port.ifname) if nic.exists(name))
            return next(names, None)

    def _is_inside(self, cable: Cable) -> bool:
        if not netns.exists(self._netns):
            return False
        with inside(self._netns):
            return nic.exists(cable.port.ifname)

    def _links(self) -> Mapping[str, LinkState]:
        cables = [note.cable for note in _notes(self._folder)]
        if not cables or not netns.exists(self._netns):
            return {cable.uplink: LinkState.MISSING for cable in cables}
        with inside(self._netns):
            return {cable.uplink: interface.state(cable.port.ifname) for cable in cables}

    def _obstacles(self, cables: tuple[Cable, ...]) -> Mapping[str, Obstacle]:
        found = {cable.uplink: self._obstacle(cable) for cable in cables}
        return {uplink: each for uplink, each in found.items() if each is not None}

    def _obstacle(self, cable: Cable) -> Obstacle | None:
        own = [note.cable for note in _notes(self._folder) if note.cable.interface == cable.interface]
        if any(map(self._is_inside, own)):
            return None
        with inside(self._host):
            there = interface.find(cable.interface)
            if there:
                return obstacle(there)
            absent = missing(cable.interface, interface.movable(), owner(cable.interface, self._fabric))
            return self._lent(cable) or absent

    def _lent(self, cable: Cable) -> Obstacle | None:
        """That a gateway has the interface, if one has."""
        records = Records(paths.gateway_dir(self._fabric))
        own = ((self._fabric, records.load(router)) for router in records.routers())
        for fabric, kept in (*own, *records.elsewhere()):
            if kept is not None and kept.gateway.forwarding.device == cable.interface:
                return lent(cable.interface, fabric, kept.gateway.router)
        return None

    def _put(self, cable: Cable) -> None:
        noted = self._note(cable.uplink)
        if noted is not None and noted.cable != cable:
            self._remove(cable.uplink)
        if not self._is_inside(cable):
            self._take(cable)
        with inside(self._netns):
            interface.listen(cable.port.ifname)

    def _take(self, cable: Cable) -> None:
        with inside(self._host):
            if nic.exists(cable.port.ifname):
                interface.rename(cable.port.ifname, cable.interface)
            there = interface.find(cable.interface)
            found = obstacle(there) if there else missing(cable.interface, interface.movable())
            if found is not None:
                raise HostError(str(found))
            self._keep(Note(cable, interface.remember(cable.interface)))
            with _opened(NETNS_DIR / self._netns) as target:
                interface.move(cable.interface, cable.port.ifname, target)

    def _remove(self, uplink: str) -> None:
        note = self._note(uplink)
        if note is None:
            return
        if self._is_inside(note.cable):
            self._bring_home(note)
        self._restore(note)
        self._path(uplink).unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def _bring_home(self, note: Note) -> None:
        cable = note.cable
        with inside(self._host):
            if nic.exists(cable.interface):
                raise HostError(
                    f"cannot give the interface {cable.interface} back: the host has another of that name"
                    " by now; rename that, and run the command again"
                )
            home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            with inside(self._netns):
                _wait_for_no_program(cable.port.ifname)
                interface.silence(cable.port.ifname, note.was)
                interface.move(cable.port.ifname, cable.interface, home)
        finally:
            os.close(home)

    def _restore(self, note: Note) -> None:
        """What is there of it on the host; one that has vanished needs nothing."""
        name = self._on_host(note.cable)
        if name is None:
            return
        with inside(self._host):
            if name != note.cable.interface:
                interface.rename(name, note.cable.interface)
            interface.restore(note.cable.interface, note.was)

    def _retake(self) -> tuple[Cable, ...]:
        if not netns.exists(self._netns):
            return ()
        cables = [note.cable for note in _notes(self._folder)]
        back = tuple(each for each in cables if not self._is_inside(each) and self._on_host(each))
        for cable in back:
            self._put(cable)
        return back

    # what is remembered

    def _path(self, uplink: str) -> Path:
        return self._folder / f"{uplink}.json"

    def _note(self, uplink: str) -> Note | None:
        return next((note for note in _notes(self._folder) if note.cable.uplink == uplink), None)

    def _keep(self, note: Note) -> None:
        path = self._path(note.cable.uplink)
        fresh = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            fresh.write_text(json.dumps(asdict(note)))
            fresh.replace(path)
        except OSError as error:
            raise HostError(f"cannot write {path}: {error.strerror}") from error


def owner(name: str, fabric: str) -> str:
    """The fabric, but this one, that has an interface as a cable; empty if none has."""
    for folder in paths.fabric_run_dir(fabric).parent.glob(f"*/{FOLDER}"):
        if folder.parent.name != fabric and any(note.cable.interface == name for note in _notes(folder)):
            return folder.parent.name
    return ""


def _notes(folder: Path) -> Iterator[Note]:
    for path in sorted(folder.glob("*.json")):
        with suppress(FileNotFoundError):  # another fabric's may go at any time
            yield _read(json.loads(path.read_text()))


def _read(plain: Any) -> Note:
    cable = plain["cable"]
    return Note(Cable(cable["uplink"], cable["interface"], Port(**cable["port"])), Was(**plain["was"]))


def _wait_for_no_program(ifname: str) -> None:
    """The host's packets must not meet a switch. A link that is unpinned is cut a moment later."""
    index, deadline_s = socket.if_nametoindex(ifname), time.monotonic() + FREE_S
    while FILTER_NAME in bpf.tcx_programs(index):
        if time.monotonic() > deadline_s:
            raise HostError(f"the interface {ifname} is still a port of a switch; run the command again")
        time.sleep(0.01)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
