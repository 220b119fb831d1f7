"""Two namespaces with an address each, joined by the switch that is compared: for real TCP."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.perf.inside.frames import End
from tests.perf.inside.harness import sh
from vnet.openflow.flow import Flow
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath

DEADLINE_S = 20.0
BRIDGE_NETFILTER = tuple(
    f"net/bridge/bridge-nf-call-{what}" for what in ("iptables", "ip6tables", "arptables")
)
"""Off, as on a Debian host: a kernel that has it built in sends every bridged packet through iptables."""
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


@dataclass(frozen=True, slots=True)
class Lab:
    """`name` is the switch's namespace, `name-1`… those of the ends."""

    name: str
    ends: tuple[End, ...]

    def space(self, end: int) -> str:
        """The namespace of the end at a port."""
        return f"{self.name}-{end}"

    def address(self, end: int) -> str:
        return ".".join(str(byte) for byte in self.ends[end - 1].ip.to_bytes(4, "big"))


Joined = Callable[[Lab], AbstractContextManager[None]]


@contextmanager
def lab(kind: str, joined: Joined, ends: Sequence[End]) -> Iterator[Lab]:
    """The ends on `eth0` of their own namespaces; their other sides are p1, p2… of the switch's."""
    made = Lab(f"vnt-perf{os.getpid()}-{kind}", tuple(ends))
    spaces = [made.name, *(made.space(end.port) for end in ends)]
    try:
        for space in spaces:
            sh(f"ip netns add {space}")
            for scope in ("all", "default"):
                sh(f"ip netns exec {space} sysctl -qw net.ipv6.conf.{scope}.disable_ipv6=1")
        for end in ends:
            n, space = end.port, made.space(end.port)
            sh(f"ip -n {made.name} link add p{n} type veth peer name eth0 netns {space}")
            sh(f"ip -n {space} link set eth0 address {end.mac.to_bytes(6, 'big').hex(':')}")
            sh(f"ip -n {space} addr add {made.address(n)}/16 dev eth0")
            sh(f"ip -n {space} link set eth0 up")
            sh(f"ip -n {made.name} link set p{n} up")
        with joined(made):
            yield made
    finally:
        for space in spaces:
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextmanager
def direct(lab: Lab) -> Iterator[None]:
    """No switch: the two ends are one pair."""
    for end in (1, 2):
        sh(f"ip -n {lab.name} link del p{end}")
    first, second = lab.space(1), lab.space(2)
    sh(f"ip -n {first} link add eth0 type veth peer name eth0 netns {second}")
    for end, space in ((1, first), (2, second)):
        sh(f"ip -n {space} addr add {lab.address(end)}/16 dev eth0")
        sh(f"ip -n {space} link set eth0 up")
    yield


@contextmanager
def bridge(lab: Lab) -> Iterator[None]:
    for setting in BRIDGE_NETFILTER:
        if Path("/proc/sys", setting).exists():
            sh(f"ip netns exec {lab.name} sysctl -qw {setting}=0")
    sh(f"ip -n {lab.name} link add br0 type bridge forward_delay 0")
    for end in lab.ends:
        sh(f"ip -n {lab.name} link set p{end.port} master br0")
    sh(f"ip -n {lab.name} link set br0 up")
    yield


def vnet(flows: Sequence[Flow], opened: Callable[[EbpfDatapath], None] = lambda _: None) -> Joined:
    """The switch under test with these flows; `opened` is given it."""

    @contextmanager
    def joined(lab: Lab) -> Iterator[None]:
        datapath = EbpfDatapath.open("perf", lab.name, pins(lab))
        try:
            for end in lab.ends:
                datapath.attach(end.port, f"p{end.port}")
            datapath.commit(Change(put=tuple(flows)))
            opened(datapath)
            yield
        finally:
            datapath.destroy()

    return joined


def pins(lab: Lab) -> Path:
    """Where the switch of a lab keeps its programs and maps."""
    return Path("/sys/fs/bpf") / f"vnet-perf-{lab.name}"


@contextmanager
def ovs_userspace(lab: Lab) -> Iterator[None]:
    """Open vSwitch with its userspace datapath, a learning bridge."""
    with ovs_bridge(lab.name) as folder:
        for end in lab.ends:
            port = f"add-port br0 p{end.port} -- set interface p{end.port} ofport_request={end.port}"
            sh(f"ovs-vsctl --db=unix:{folder}/db.sock --timeout=10 {port}")
            # a userspace datapath of this version mends no partial checksums
            sh(f"ip netns exec {lab.space(end.port)} ethtool -K eth0 tx off")
        yield


@contextmanager
def ovs_bridge(netns: str) -> Iterator[Path]:
    """An Open vSwitch of its own with a bridge `br0` in a namespace; the folder of its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="vnet-perf-ovs-"))
    started: list[subprocess.Popen[bytes]] = []

    def start(command: str, ready: Path) -> None:
        inside = f"ip netns exec {netns} setpriv --pdeathsig KILL {command} --log-file={folder}/log"
        quiet = subprocess.DEVNULL
        started.append(
            subprocess.Popen(
                inside.split(), stdout=quiet, stderr=quiet, env={**os.environ, "OVS_RUNDIR": str(folder)}
            )
        )
        deadline = time.monotonic() + DEADLINE_S
        while not ready.exists():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{command} did not start: see {folder}/log")
            time.sleep(0.02)

    try:
        sh(f"ovsdb-tool create {folder}/conf.db {SCHEMA}")
        start(
            f"ovsdb-server {folder}/conf.db --remote=punix:{folder}/db.sock --unixctl={folder}/db.ctl",
            folder / "db.sock",
        )
        vsctl = f"ovs-vsctl --db=unix:{folder}/db.sock --timeout=10"
        sh(f"{vsctl} --no-wait init")
        control = folder / "switch.ctl"
        start(f"ovs-vswitchd unix:{folder}/db.sock --unixctl={control} --disable-system", control)
        sh(f"{vsctl} add-br br0 -- set bridge br0 datapath_type=netdev")
        yield folder
    finally:
        for process in reversed(started):
            process.kill()
            process.wait()
        shutil.rmtree(folder, ignore_errors=True)
