"""A throw-away copy of a fabric's switch: the same flows, TAPs of its own in place of all guests.

What is sent here reaches nobody real and changes no real connection, and yet is decided by the same
program and delivered by the same kernel. Everything is in a namespace and under pins of its own;
what a killed daemon leaves of it is swept away by the next drill and by `vnet down`.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vnet.base import paths
from vnet.base.drop import DropReason
from vnet.drill.attack import PLAIN, Step
from vnet.drill.run import Observed
from vnet.fabric.live import netns
from vnet.openflow.flow import Flow
from vnet.switch.datapath import Change
from vnet.switch.live import ports
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.maps import remove
from vnet.switch.live.netns import NETNS_DIR, inside
from vnet.topology.inventory import Nic

BATCH = 128
"""Frames sent before the stand-ins are looked at: fewer than a TAP keeps (500)."""
WINDOW_S = 0.14
"""A little more than the switch's unit of time for what a port may have refused, and reported."""
SHARE = 100
"""Frames in one such time: below what the switch reports of a port (128) and lets it have refused (512)."""
SETTLE_S = 0.25
"""How long frames are waited for that were sent and not seen, or seen and not delivered."""
LARGEST = 1 << 16
_MARK = "+drill-"


@dataclass(slots=True)
class Pace:
    """Holds back so that the switch looks at every frame and tells of it; a flood waits for its turn only."""

    sleep: Callable[[float], None] = time.sleep
    _used: int = 0

    def before(self, frames: int) -> None:
        """Wait until so many frames may be sent."""
        if self._used and self._used + frames > SHARE:
            self.sleep(WINDOW_S)
            self._used = 0
        self._used += frames


@dataclass(frozen=True, slots=True)
class _Counts:
    """What the switch has counted so far."""

    received: int
    """Of the sender."""
    sent: int
    """To all."""
    drops: Mapping[int, int]


@dataclass(slots=True)
class LiveTwin:
    """See `vnet.drill.run.Twin`. Made by `standing_by`; all calls from one thread."""

    datapath: EbpfDatapath
    taps: Mapping[str, int]
    """The descriptor of each stand-in, by its NIC's name."""
    numbers: Mapping[str, int]
    """Their port numbers."""
    pace: Pace = field(default_factory=Pace)

    def send(self, step: Step) -> Observed:
        """Have a stand-in send, and see what becomes of it."""
        self.pace.before(len(step.frames))
        self.datapath.read_events()
        before = self._counts(step.sender)
        arrived: Counter[str] = Counter()
        taken = 0
        for start in range(0, len(step.frames), BATCH):
            for frame in step.frames[start : start + BATCH]:
                taken += self._write(step.sender, step.offload + frame)
            arrived.update(self._read())
        after = self._settled(step.sender, before, taken)
        self._gather(arrived, after.sent - before.sent)
        reasons = Counter(after.drops) - Counter(before.drops)
        return Observed(
            sent=len(step.frames),
            refused=len(step.frames) - (after.received - before.received),
            reasons={DropReason(reason): count for reason, count in reasons.items()},
            cookies=self._cookies(),
            arrived={name: count for name, count in arrived.items() if name != step.sender},
        )

    def forget(self) -> None:
        """Forget all connections."""
        self.datapath.flush_connections()

    def _write(self, sender: str, data: bytes) -> bool:
        """Whether the kernel takes a frame from a TAP."""
        try:
            return os.write(self.taps[sender], data) > 0
        except OSError:  # too short, or the header says what cannot be
            return False

    def _read(self) -> Iterator[str]:
        """The name of a stand-in for each frame that it has got."""
        for name, tap in self.taps.items():
            with contextlib.suppress(BlockingIOError):
                while os.read(tap, len(PLAIN) + LARGEST):
                    yield name

    def _counts(self, sender: str) -> _Counts:
        counters = self.datapath.port_counters()
        received = counters[self.numbers[sender]].rx.packets
        sent = sum(counter.tx.packets for counter in counters.values())
        return _Counts(received, sent, self.datapath.drop_counters())

    def _settled(self, sender: str, before: _Counts, taken: int) -> _Counts:
        """The counts once the switch has seen all frames that the kernel took, or will see no more."""
        _until(lambda: self._counts(sender).received - before.received >= taken)
        return self._counts(sender)

    def _gather(self, arrived: Counter[str], expected: int) -> None:
        """Read until so many frames have arrived in all, or no more come."""

        def complete() -> bool:
            arrived.update(self._read())
            return arrived.total() >= expected

        _until(complete)

    def _cookies(self) -> dict[DropReason, int]:
        """By reason, of the flow that dropped first for it."""
        found: dict[DropReason, int] = {}
        for event in self.datapath.read_events():
            if event.dropped and event.cookie:
                found.setdefault(event.reason, event.cookie)
        return found


def _until(done: Callable[[], bool]) -> None:
    """Wait for something that is nearly always so at once."""
    deadline = time.monotonic() + SETTLE_S
    while not done() and time.monotonic() < deadline:
        time.sleep(0.001)


@contextlib.contextmanager
def standing_by(fabric: str, flows: Iterable[Flow], nics: Sequence[Nic]) -> Iterator[LiveTwin]:
    """A twin of the fabric's switch with stand-ins for these NICs, for the time of the context.

    Raises: HostError when the host refuses; then nothing is left either.
    """
    sweep(fabric)
    name = f"{fabric}{_MARK}{os.getpid()}"
    space = f"{paths.netns(fabric)}{_MARK}{os.getpid()}"
    numbers = {nic.name: nic.port for nic in nics}
    limits = {nic.port: nic.profile.limits for nic in nics}
    with contextlib.ExitStack() as stack:
        stack.callback(netns.remove, space)
        netns.create(space)
        with inside(space):
            ports.silence()
            taps = {nic.name: _tap(f"t{nic.port}", nic.mtu_bytes, stack) for nic in nics}
        datapath = EbpfDatapath.open(name, space, paths.bpf_dir() / name)
        stack.callback(datapath.destroy)
        for number in numbers.values():
            datapath.attach(number, f"t{number}")
            datapath.limit(number, limits[number])
        datapath.commit(Change(put=tuple(_concerning(flows, frozenset(numbers.values())))))
        yield LiveTwin(datapath, taps, numbers)


def _tap(ifname: str, mtu_bytes: int, stack: contextlib.ExitStack) -> int:
    ports.create_tap(ifname)
    ports.resize(ifname, mtu_bytes)
    tap = ports.open_tap(ifname)
    stack.callback(os.close, tap)
    return tap


def _concerning(flows: Iterable[Flow], numbers: frozenset[int]) -> Iterator[Flow]:
    """All flows but those for packets that come in by a port which is not there."""
    for flow in flows:
        by = flow.match.get("in_port")
        if by is None or by[0] in numbers:
            yield flow


def sweep(fabric: str) -> None:
    """Remove what a killed daemon left of a drill of this fabric."""
    for pins in _left(paths.bpf_dir(), fabric):
        remove(pins)
    for space in _left(NETNS_DIR, paths.netns(fabric)):
        netns.remove(space.name)


def _left(folder: Path, name: str) -> list[Path]:
    return sorted(folder.glob(f"{name}{_MARK}*")) if folder.exists() else []
