"""The loaded eBPF program as a function: frame in, outputs and drop reason out.

`decide` runs the program on a packet (BPF_PROG_TEST_RUN) with all its effects on connections, cache
and counters; what became of the packet is read from the CPU's scratch map. The ports are veth
pairs, so copies that the program sends out really leave.
"""

from __future__ import annotations

import itertools
import os
import struct
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from vnet.base.drop import DropReason
from vnet.openflow.flow import Flow
from vnet.switch import abi
from vnet.switch.abi import PathKind
from vnet.switch.datapath import Change
from vnet.switch.live.bpf import possible_cpus
from vnet.switch.live.datapath import EbpfDatapath

ROOT = Path("/sys/fs/bpf/vnet-test")
_serial = itertools.count(1)


def sh(command: str) -> None:
    """Run a command; its output is shown if it fails."""
    done = subprocess.run(command.split(), capture_output=True, text=True, check=False, timeout=20)
    assert done.returncode == 0, f"{command}: {done.stderr}"


@dataclass(frozen=True, slots=True)
class Decision:
    """`outputs` holds (port, tag control information or None); `rules` the flows that matched, in order."""

    outputs: tuple[tuple[int, int | None], ...]
    drop: DropReason | None
    ct_state: int
    rules: tuple[int, ...]
    table: int


class Bench:
    """One switch with ports 1…n; everything is gone when the context ends."""

    def __init__(self, ports: int = 8) -> None:
        self.netns = f"vnt-bench-{os.getpid()}-{next(_serial)}"
        self.pins = ROOT / self.netns
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
        if kind is None and ROOT.exists() and not any(ROOT.iterdir()):
            ROOT.rmdir()

    def open(self) -> None:
        """Create the switch or adopt what is pinned, as a restarted daemon does."""
        self.datapath = EbpfDatapath.open("bench", self.netns, self.pins)

    def restart(self) -> None:
        """What a crash and a new daemon come to."""
        self.datapath.close()
        self.open()

    def load(self, flows: Iterable[Flow]) -> None:
        """Make exactly these flows be in force."""
        wanted = {flow.key: flow for flow in flows}
        gone = tuple(flow.key for flow in self.datapath.flows() if flow.key not in wanted)
        self.datapath.commit(Change(put=tuple(wanted.values()), remove=gone))

    def forget_connections(self) -> None:
        """Empty the connection tracker."""
        maps = self.datapath._map
        for key in list(maps["conn_index"].keys()):
            slot = struct.unpack_from("<I", maps["conn_index"].lookup(key) or bytes(8))[0]
            generation = abi.Conn.from_buffer_copy(maps["conns"].index(slot) or b"").gen
            maps["conns"].set(slot, bytes(abi.Conn(gen=(generation | 1) + 1)))
            maps["conn_index"].delete(key)
        for number in range(1, self.ports + 1):
            maps["port_state"].set(number, bytes(maps["port_state"].value_size))

    def scratch(self) -> abi.Scratch:
        """What the program left behind on this CPU."""
        raw = self.datapath._map["scratch"].index(0) or b""
        size = len(raw) // possible_cpus()
        cpu = min(self._cpus)
        return abi.Scratch.from_buffer_copy(raw[cpu * size : (cpu + 1) * size])

    def decide(self, in_port: int, frame: bytes) -> Decision:
        """Let the program decide one frame as if it came in by `in_port`."""
        self.datapath.run(in_port, frame)
        scratch = self.scratch()
        path = scratch.path
        outputs = (
            [] if path.reason else [out for op in path.ops[: path.n_ops] for out in self._expand(in_port, op)]
        )
        return Decision(
            tuple(outputs),
            DropReason(path.reason) if path.reason else None,
            path.ct_state,
            tuple(path.rules[: path.n_rules]),
            path.table,
        )

    def _expand(self, in_port: int, op: abi.PathOp) -> list[tuple[int, int | None]]:
        tag = op.vlan_tci & 0xEFFF if op.vlan_tci else None
        if op.kind == PathKind.OUTPUT:
            return [(op.arg, tag)]
        assert op.kind == PathKind.OUTPUTS
        read = self.datapath._map["outputs"].index
        length = struct.unpack("<I", read(op.arg) or b"")[0]
        ports = [struct.unpack("<I", read(op.arg + 1 + n) or b"")[0] for n in range(length)]
        return [(port, tag) for port in ports if port != in_port]
