"""The loaded eBPF program as a function: frame in, outputs and drop reason out.

`decide` runs the program on a packet (BPF_PROG_TEST_RUN) with all its effects on connections, cache
and counters; all ports are captured, so the dataplane itself tells what left by which port, byte for
byte. The ports are veth pairs, so copies that the program sends out really leave.
"""

from __future__ import annotations

import itertools
import os
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vnet.base.drop import DropReason
from vnet.openflow.flow import Action, Flow
from vnet.openflow.group import Group, Meter
from vnet.switch.abi import Point
from vnet.switch.datapath import Change
from vnet.switch.events import PacketEvent
from vnet.switch.live.datapath import EbpfDatapath

BPFFS = Path("/sys/fs/bpf")
_serial = itertools.count(1)


def sh(command: str) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a packet.

    `frames` holds (port, bytes) in the order in which they left; `rules` the rules that it met, in order;
    `to_controller` the packet-ins.
    """

    frames: tuple[tuple[int, bytes], ...]
    to_controller: tuple[PacketEvent, ...]
    drop: DropReason | None
    ct_state: int
    rules: tuple[int, ...]
    table: int

    @property
    def outputs(self) -> tuple[tuple[int, int | None], ...]:
        """(port, tag control information or None)."""
        return tuple((port, _tag(frame)) for port, frame in self.frames)


def _tag(frame: bytes) -> int | None:
    return int.from_bytes(frame[14:16], "big") if frame[12:14] in (b"\x81\x00", b"\x88\xa8") else None


class Bench:
    """One switch with ports 1…n; everything is gone when the context ends."""

    def __init__(self, ports: int = 8) -> None:
        self.netns = f"vnt-bench-{os.getpid()}-{next(_serial)}"
        self.pins = BPFFS / self.netns
        self.ports = ports
        self._cpus = os.sched_getaffinity(0)

    def __enter__(self) -> Bench:
        os.sched_setaffinity(0, {min(self._cpus)})  # the scratch map read is that of the CPU that ran
        sh(f"ip netns add {self.netns}")
        try:
            sh(f"ip netns exec {self.netns} sysctl -qw net.ipv6.conf.default.disable_ipv6=1")  # no chatter
            for number in range(1, self.ports + 1):
                sh(f"ip -n {self.netns} link add p{number} type veth peer name q{number}")
                sh(f"ip -n {self.netns} link set q{number} up")
                sh(f"ip -n {self.netns} link set p{number} up")
            self.open()
            for number in range(1, self.ports + 1):
                self.datapath.attach(number, f"p{number}")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if hasattr(self, "datapath"):
            self.datapath.destroy()
        sh(f"ip netns del {self.netns}")
        os.sched_setaffinity(0, self._cpus)
        assert not self.pins.exists()

    def open(self) -> None:
        """Create the switch or adopt what is pinned, as a restarted daemon does."""
        self.datapath = EbpfDatapath.open("bench", self.netns, self.pins)

    def restart(self) -> None:
        """What a crash and a new daemon come to."""
        self.datapath.close()
        self.open()

    def load(self, flows: Iterable[Flow], groups: Iterable[Group] = (), meters: Iterable[Meter] = ()) -> None:
        """Make exactly these be in force."""
        wanted, datapath = {flow.key: flow for flow in flows}, self.datapath
        groups, meters = tuple(groups), tuple(meters)
        kept = {group.number for group in groups}, {meter.number for meter in meters}
        datapath.commit(
            Change(
                put=tuple(wanted.values()),
                remove=tuple(flow.key for flow in datapath.flows() if flow.key not in wanted),
                put_groups=groups,
                remove_groups=tuple(g.number for g in datapath.groups() if g.number not in kept[0]),
                put_meters=meters,
                remove_meters=tuple(m.number for m in datapath.meters() if m.number not in kept[1]),
            )
        )

    def forget_connections(self) -> None:
        """Empty the connection tracker."""
        self.datapath.flush_connections()

    def watch(self) -> None:
        """From now on all ports are captured: `decide_next` needs it once."""
        self.datapath.watch(frozenset(range(1, self.ports + 1)))
        self.datapath.read_events()

    def decide(self, in_port: int, frame: bytes) -> Decision:
        """Let the program decide one frame as if it came in by `in_port`."""
        self.watch()
        return self.decide_next(in_port, frame)

    def decide_next(self, in_port: int, frame: bytes) -> Decision:
        """The same, when nothing but packets came since `watch`."""
        _, _, after = self.datapath.run(in_port, frame)
        return self.told(after.cb[1])

    def packet_out(self, in_port: int, actions: tuple[Action, ...], frame: bytes) -> Decision:
        """Have the datapath send a controller's packet."""
        self.datapath.watch(frozenset(range(1, self.ports + 1)))
        self.datapath.read_events()
        self.datapath.packet_out(in_port, actions, frame)
        return self.told(0)

    def told(self, reason: int) -> Decision:
        """What the events since the last look tell of one packet."""
        events = self.datapath.read_events()
        seen = [event for event in events if event.point is Point.GUEST]
        last = seen[-1] if seen else None
        return Decision(
            tuple((event.port, event.data) for event in events if event.point is Point.DELIVERED),
            tuple(event for event in events if event.point is Point.CONTROLLER),
            DropReason(reason) if reason else None,
            last.ct_state if last else 0,
            last.rules if last else (),
            last.table if last else 0,
        )
