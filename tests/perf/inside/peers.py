"""The switches that are compared, each set up between existing ports and taken down again."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.perf.inside.frames import End
from tests.perf.inside.harness import PINS, Harness, sh
from tests.perf.inside.ports import at_ingress
from vnet.openflow.flow import Flow
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath

SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"
DEADLINE_S = 60.0

Peer = Callable[[Sequence[str]], AbstractContextManager[None]]


@contextmanager
def nothing(devices: Sequence[str]) -> Iterator[None]:
    """Frames are counted and dropped where they come in: what the harness itself costs."""
    at_ingress(devices[0], "sink")
    yield


def redirect(harness: Harness) -> Peer:
    """A tc program that only redirects to the second port."""

    @contextmanager
    def peer(devices: Sequence[str]) -> Iterator[None]:
        at_ingress(devices[0], "redirect")
        harness.set_feed(target=devices[1])
        yield

    return peer


@contextmanager
def bridge(devices: Sequence[str]) -> Iterator[None]:
    """A Linux bridge that learns."""
    sh("ip link add br0 type bridge forward_delay 0")
    sh("ip -batch -", "\n".join(f"link set {device} master br0" for device in devices))
    sh("ip link set br0 up")
    try:
        yield
    finally:
        sh("ip link del br0")


def nft(rules: str) -> Peer:
    """A Linux bridge with nftables rules in its forward hook."""

    @contextmanager
    def peer(devices: Sequence[str]) -> Iterator[None]:
        with bridge(devices):
            chain = f"chain f {{ type filter hook forward priority 0; policy drop; {rules} }}"
            sh("nft -f -", f"table bridge t {{\n{chain}\n}}\n")
            try:
                yield
            finally:
                sh("nft flush ruleset")

    return peer


STATEFUL = "ct state established,related accept; ether type arp accept; tcp dport 80 ct state new accept;"
"""What a bridge needs to let one service be reached, and answers back."""


def linear(count: int) -> Peer:
    """Rules that do not match, then one that does."""
    rules = (f"ip saddr 192.168.{n >> 8}.{n & 255} udp dport {2000 + n} drop;" for n in range(count))
    return nft(f"{' '.join(rules)} accept;")


def openvswitch(flows: Sequence[tuple[str, str]]) -> Peer:
    """openvswitch.ko with datapath flows as ovs-vswitchd would install them; ports are numbered 1…N."""

    @contextmanager
    def peer(devices: Sequence[str]) -> Iterator[None]:
        sh("ovs-dpctl add-dp dp0")
        try:
            sh(f"ovs-dpctl add-if dp0 {' '.join(devices)}")
            for match, actions in flows:
                sh(f"ovs-dpctl add-flow dp0 {match} {actions}")
            yield
        finally:
            sh("ovs-dpctl del-dp dp0")

    return peer


def openvswitch_plain(ends: Sequence[End]) -> Peer:
    """What NORMAL of a learning bridge comes to: one flow for each direction."""
    a, b = ends
    both = ((a, b), (b, a))
    return openvswitch([
        (f"in_port({s.port}),eth(src={_mac(s)},dst={_mac(t)}),eth_type(0x0800),ipv4(frag=no)", str(t.port))
        for s, t in both
    ])  # fmt: skip


def openvswitch_flood(ends: Sequence[End], devices: int) -> Peer:
    """One flow with an output to every other port."""
    others = ",".join(str(n) for n in range(1, devices + 1) if n != ends[0].port)
    source = f"in_port({ends[0].port}),eth(src={_mac(ends[0])},dst={_mac(ends[1])})"
    return openvswitch([(f"{source},eth_type(0x0800),ipv4(frag=no)", others)])


def openvswitch_stateful(client: End, server: End) -> Peer:
    """Two passes: the tracker, then what the policy says of its answer."""
    flows = []
    for source, target in ((client, server), (server, client)):
        eth = f"in_port({source.port}),eth(src={_mac(source)},dst={_mac(target)}),eth_type(0x0800)"
        flows.append((f"recirc_id(0),{eth},ipv4(frag=no)", "ct(zone=1),recirc(1)"))
        flows.append((f"recirc_id(0x1),ct_state(-new+est+trk),{eth},ipv4(frag=no)", str(target.port)))
    eth = f"in_port({client.port}),eth(src={_mac(client)},dst={_mac(server)}),eth_type(0x0800)"
    new = f"recirc_id(0x1),ct_state(+new-est+trk),{eth},ipv4(proto=6,frag=no),tcp(dst=80),tcp_flags(0/0)"
    return openvswitch([*flows, (new, f"ct(commit,zone=1),{server.port}")])


@contextmanager
def _daemons(folder: Path) -> Iterator[str]:
    """Open vSwitch with the kernel's datapath; what begins a call of ovs-vsctl."""
    folder.mkdir()
    database, control = folder / "db.sock", folder / "switch.ctl"
    sh(f"ovsdb-tool create {folder}/conf.db {SCHEMA}")
    started = []

    def start(command: str, ready: Path) -> None:
        quiet = subprocess.DEVNULL
        environment = {**os.environ, "OVS_RUNDIR": str(folder)}
        started.append(subprocess.Popen(command.split(), stdout=quiet, stderr=quiet, env=environment))
        end = time.monotonic() + DEADLINE_S
        while not ready.exists():
            if time.monotonic() > end:
                raise RuntimeError(f"{command} did not start")
            time.sleep(0.02)

    try:
        log = f"--log-file={folder}/log"
        start(
            f"ovsdb-server {folder}/conf.db --remote=punix:{database} --unixctl={folder}/db.ctl {log}",
            database,
        )
        vsctl = f"ovs-vsctl --db=unix:{database} --timeout=60"
        sh(f"{vsctl} --no-wait init")
        start(f"ovs-vswitchd unix:{database} --unixctl={control} {log}", control)
        yield vsctl
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait()


def openvswitch_daemon(lines: Sequence[str]) -> Peer:
    """Open vSwitch as a whole with OpenFlow rules: what the kernel does not know goes up to ovs-vswitchd."""

    @contextmanager
    def peer(devices: Sequence[str]) -> Iterator[None]:
        folder = Path(f"/run/ovs-{time.monotonic_ns()}")
        with _daemons(folder) as vsctl:
            sh(f"{vsctl} add-br br0 -- set bridge br0 protocols=OpenFlow13 fail_mode=secure")
            for number, device in enumerate(devices, 1):
                sh(f"{vsctl} add-port br0 {device} -- set interface {device} ofport_request={number}")
            text = "".join(f"{line}\n" for line in lines)
            sh(f"ovs-ofctl -O OpenFlow13 add-flows unix:{folder}/br0.mgmt -", text)
            try:
                yield
            finally:
                sh(f"{vsctl} del-br br0")

    return peer


def _mac(end: End) -> str:
    return end.mac.to_bytes(6, "big").hex(":")


def vnet(flows: Sequence[Flow], watched: Sequence[int] = ()) -> Peer:
    """The switch under test, as the product loads it; of the ports `watched` a capture runs."""

    @contextmanager
    def peer(devices: Sequence[str]) -> Iterator[None]:
        datapath = EbpfDatapath.open("perf", None, PINS / "switch")
        try:
            for number, device in enumerate(devices, 1):
                datapath.attach(number, device)
            datapath.commit(Change(put=tuple(flows)))
            if watched:
                datapath.watch(frozenset(watched))
            yield
        finally:
            datapath.destroy()

    return peer
