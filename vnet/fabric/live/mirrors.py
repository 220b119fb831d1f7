"""The mirrors of one fabric: taps of its switch, what they copy to, and the recorders of those into files.

Copies to NICs and other machines are made in the kernel, and go on when the daemon ends; the next one finds
its taps there. A recorder is the daemon's: the next one goes on with the next file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.capture.limits import Limits
from vnet.capture.live import stream
from vnet.capture.live.bounded import compile_bounded
from vnet.capture.live.sink import RingSink
from vnet.capture.pcapng import PcapngEncoder, Producer
from vnet.capture.recorder import Recorder
from vnet.capture.ring import RingLimits
from vnet.fabric.capturing import Wanted
from vnet.fabric.live import tunnels
from vnet.fabric.live.netns import finished
from vnet.fabric.live.teller import Teller, table_name
from vnet.fabric.live.watch import Watch
from vnet.fabric.mirror import TUNNEL, Mirror
from vnet.fabric.state import ifname
from vnet.fabric.store import Record
from vnet.switch.taps import Tap, TapCount
from vnet.topology.model import MirrorNic, ToErspan, ToFile, ToVxlan

log = logging.getLogger(__name__)

FILE_BYTES, FILES = 64 * 1000**2, 10
"""A mirror keeps so many files of so many bytes; then the oldest goes."""
NOWHERE = MirrorNic("", "")


@dataclass(frozen=True, slots=True)
class Running:
    """A mirror that was put in force, and what carries it."""

    mirror: Mirror
    number: int
    recording: asyncio.Task[stream.Outcome] | None = None


@dataclass(frozen=True, slots=True)
class Ports:
    """What mirrors need of the switch: a port that is closed to all but copies, and to take it out again."""

    close: Callable[[int, str], Awaitable[None]]
    detach: Callable[[int, str], Awaitable[None]]
    there: Callable[[], Awaitable[Mapping[int, str]]]
    """The interfaces of the ports that take copies only, by number."""


class HostMirrors:
    """`underlay` is the namespace that leads to other machines; None for the daemon's own."""

    def __init__(self, fabric: str, watch: Watch, ports: Ports, underlay: str | None = None) -> None:
        self.fabric, self._watch, self._ports, self._underlay = fabric, watch, ports, underlay
        self._running: dict[str, Running] = {}

    async def now(self) -> frozenset[Mirror]:
        """Those in force; and, under names that no mirror has, taps that an earlier daemon left."""
        closed = await self._ports.there()
        alive = {each.mirror for each in self._running.values() if self._is_alive(each, closed)}
        return frozenset(alive) | {_left(number, tap) for number, tap in self._watch.left.items()}

    def _is_alive(self, running: Running, closed: Mapping[int, str]) -> bool:
        if running.recording is not None:
            return not running.recording.done()
        return running.number in self._watch.taps and running.mirror.to_port in closed

    async def put(self, mirror: Mirror, record: Callable[[], Record]) -> None:
        """Put a mirror in force in place of what had its name. `record` gives the fabric's, for comments."""
        await self.remove(mirror.name)
        program = await asyncio.to_thread(compile_bounded, mirror.filter)
        ports, none = frozenset(mirror.ports), frozenset[int]()
        nics, uplinks = (none, ports) if mirror.is_of_uplink else (ports, none)
        wanted = Wanted(nics, mirror.points, program, mirror.snaplen_bytes, uplinks=uplinks)
        if isinstance(mirror.to, ToFile):
            self._running[mirror.name] = await self._record(mirror, mirror.to, wanted, record)
            return
        interface = _interface(mirror)
        tap = wanted.tap(mirror.to_port)
        if isinstance(mirror.to, ToVxlan | ToErspan) and tap not in self._watch.left.values():
            netns = paths.netns(self.fabric)
            await finished(None, tunnels.make, interface, mirror.to, netns, self._underlay)
        await self._ports.close(mirror.to_port, interface)
        self._running[mirror.name] = Running(mirror, await self._watch.add(tap))

    async def _record(
        self, mirror: Mirror, to: ToFile, wanted: Wanted, record: Callable[[], Record]
    ) -> Running:
        directory = paths.mirror_dir(self.fabric)
        try:
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise HostError(f"cannot make {directory}: {error.strerror}") from error
        sink = RingSink(directory / to.name, RingLimits(FILE_BYTES, files=FILES), goes_on=True)
        begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._recording(mirror, wanted, sink, record, begun))
        await asyncio.wait((task, begun), return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            await task  # raises why it could not begin
        return Running(mirror, begun.result(), task)

    async def _recording(
        self,
        mirror: Mirror,
        wanted: Wanted,
        sink: RingSink,
        record: Callable[[], Record],
        begun: asyncio.Future[int],
    ) -> stream.Outcome:
        teller = Teller(record)
        encoder = PcapngEncoder(Producer(), mirror.filter, mirror.snaplen_bytes)
        recorder = Recorder(encoder, teller.explain, table_name, Limits(mirror.snaplen_bytes))
        async with self._watch.subscribed(wanted) as subscription:
            begun.set_result(subscription.number)
            told = teller.told(subscription.records(), self._watch.generation)
            outcome = await stream.run(
                told, recorder, sink, lambda text: log.warning("mirror %s: %s", mirror.name, text)
            )
            log.warning(
                "mirror %s has ended, %s: %s", mirror.name, outcome.totals, outcome.error or "no error"
            )
            return outcome

    async def remove(self, name: str) -> None:
        """Take a mirror out of force; one that is not there is no error. Files stay."""
        running = self._running.pop(name, None)
        if running is None:
            left = next((n for n, tap in self._watch.left.items() if _left(n, tap).name == name), None)
            if left is not None:
                await self._end(left, self._watch.left[left].to_port)
            return
        if running.recording is not None:
            await _cancelled(running.recording)
        else:
            await self._end(running.number, running.mirror.to_port)

    async def _end(self, number: int, to_port: int) -> None:
        """A tap that copies to a port; the port of a tunnel goes with it."""
        await self._watch.discard(number)
        interface = (await self._ports.there()).get(to_port, "")
        if interface.startswith(TUNNEL):
            await self._ports.detach(to_port, interface)
            await finished(None, tunnels.remove, interface, paths.netns(self.fabric))

    def counts(self) -> Mapping[str, TapCount]:
        """What became of the packets that each was asked about, by name."""
        return {name: self._watch.count(each.number) for name, each in self._running.items()}

    async def close(self) -> None:
        """Let go: recorders end, what the kernel copies it goes on copying."""
        running, self._running = self._running, {}
        for each in running.values():
            if each.recording is not None:
                await _cancelled(each.recording)


def _interface(mirror: Mirror) -> str:
    if isinstance(mirror.to, MirrorNic):
        return ifname(f"{mirror.to.vm}.{mirror.to.interface}")
    return ifname(f"{TUNNEL}{mirror.name}")


def _left(number: int, tap: Tap) -> Mirror:
    """A tap that an earlier daemon left, as a mirror that nobody declares: so that a plan takes it away."""
    ports = tuple(sorted(tap.ports))
    return Mirror(f"#{number}", "", "both", ports, (), "", tap.snaplen_bytes, NOWHERE, tap.to_port)


async def _cancelled(task: asyncio.Task[stream.Outcome]) -> None:
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
