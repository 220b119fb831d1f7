"""A switch of another layout is replaced while packets go through it; a switch that is taken down leaves
nothing.

The other layout is that of another vnet: a copy of this one whose connections have a member more, with other
capacities, compiled and run from a folder of its own.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bench import Bench
from tests.net.test_switch_survives import Lab, lost, ping
from vnet.openflow.fields import ETH_ARP, ETH_IPV4
from vnet.openflow.flow import Flow, match
from vnet.switch.datapath import Change
from vnet.switch.layout import layout
from vnet.switch.live.btf import Record
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.described import DescribedSwitch, layout_of
from vnet.switch.live.maps import MAPS, PROGRAMS, remove

ROOT = Path(__file__).parents[2]
PATCHES = {
    "vnet/switch/bpf/abi.h": (
        ("#define VNET_CONNS 65536", "#define VNET_CONNS 32768"),
        ("#define VNET_PATHS 65536 ", "#define VNET_PATHS 32768 "),
        ("#define VNET_GROUPS 4096", "#define VNET_GROUPS 2048"),
        ("#define VNET_BANDS 8 ", "#define VNET_BANDS 4 "),
        ("\t__u64 created_ns;\n\t__u64 last", "\t__u64 note;\n\t__u64 created_ns;\n\t__u64 last"),
    ),
    "vnet/switch/abi.py": (
        ("CONNS = 65536", "CONNS = 32768"),
        ("PATHS = 65536", "PATHS = 32768"),
        ("GROUPS = 4096", "GROUPS = 2048"),
        ("BANDS = 8", "BANDS = 4"),
        ('("created_ns", c_uint64),', '("note", c_uint64), ("created_ns", c_uint64),'),
    ),
}

RUN = """
import sys, time
from pathlib import Path
from vnet.base.line import Line, rate_of
from vnet.openflow.fields import CtState, ETH_ARP, ETH_IPV4
from vnet.openflow.flow import Conntrack, Flow, Instructions, Output, Port, ToGroup, match
from vnet.openflow.group import Band, BandType, Bucket, Group, GroupType, Meter, MeterFlag
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath

name, pins = sys.argv[1:]
datapath = EbpfDatapath.open("upgraded", name, Path(pins))
for number in (1, 2):
    datapath.attach(number, f"p{number}")
line = Line(rate_of(5 * 10**9), rate_of(4 * 10**9))
if not datapath.adopted:
    datapath.lay(1, line)
assert datapath.lines()[1] == line, datapath.lines()
new, old = (CtState.TRK | CtState.NEW,) * 2, (CtState.TRK | CtState.EST,) * 2
track, commit = Conntrack(zone=7, table=1), Conntrack(zone=7, commit=True)
ip = {"eth_type": ETH_IPV4}
flows = (
    Flow(0, 5, match(eth_type=ETH_ARP), Instructions((Output(Port.NORMAL),))),
    Flow(0, 9, match(**ip), Instructions((track,))),
    Flow(0, 10, match(in_port=1, **ip), Instructions((track,), meter=1)),
    Flow(1, 10, match(in_port=1, ct_state=new, **ip), Instructions((commit, ToGroup(5)))),
    Flow(1, 10, match(in_port=1, ct_state=old, **ip), Instructions((ToGroup(5),))),
    Flow(1, 10, match(in_port=2, ct_state=old, **ip), Instructions((Output(1),))),
)
if not datapath.adopted:
    datapath.commit(Change(
        put=flows,
        put_groups=(Group(5, GroupType.INDIRECT, (Bucket((Output(2),)),)),),
        put_meters=(Meter(1, MeterFlag.PKTPS, (Band(BandType.DROP, 1_000_000),)),),
    ))
assert set(datapath.flows()) == set(flows), datapath.flows()
print("adopted" if datapath.adopted else "made", flush=True)
time.sleep(60)
"""


@pytest.fixture(scope="module")
def other_vnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a vnet of another layout, compiled."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(ROOT / "vnet", folder / "vnet", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Makefile", folder)
    for path, patches in PATCHES.items():
        text = (folder / path).read_text()
        for before, after in patches:
            assert text.count(before) == 1, before
            text = text.replace(before, after)
        (folder / path).write_text(text)
    subprocess.run(["make", "-s", "bpf"], cwd=folder, check=True, timeout=60)
    return folder


class UpgradeLab(Lab):
    """Ports, addresses, and a switch that either vnet runs."""

    def run(self, vnet: Path, before: str = "") -> str:
        """Open the switch with the vnet of a folder, after some other code; what it then says."""
        command = [sys.executable, "-c", before + RUN, self.name, str(self.pins)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=vnet)
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def inside(self, number: int, code: str) -> subprocess.Popen[str]:
        """Python in the namespace of an address."""
        command = ["ip", "netns", "exec", f"{self.name}-{number}", sys.executable, "-c", code]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        remove(self.pins)
        super().close()


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[UpgradeLab]:
    made = UpgradeLab(tmp_path)
    yield made
    made.close()


def opened(lab: UpgradeLab) -> EbpfDatapath:
    return EbpfDatapath.open("upgraded", lab.name, lab.pins)


def counts(datapath: EbpfDatapath) -> dict[str, int]:
    """What the pings should have been counted as."""
    flows = datapath.flow_counters()
    first = Flow(0, 10, match(in_port=1, eth_type=ETH_IPV4)).key
    others = flows[Flow(0, 5, match(eth_type=ETH_ARP)).key].packets + sum(datapath.drop_counters().values())
    return {
        "flow": flows[first].packets,
        "replies": flows[Flow(0, 9, match(eth_type=ETH_IPV4)).key].packets,
        "group": datapath.group_counters()[5].total.packets,
        "bucket": datapath.group_counters()[5].buckets[0].packets,
        "meter": datapath.meter_counters()[1].total.packets,
        "ports": sum(counter.rx.packets for counter in datapath.port_counters().values()) - others,
    }


def connections(pins: Path) -> list[Record]:
    """Those that the switch holds."""
    switch = DescribedSwitch(pins)
    try:
        used = switch.at("ct_control", 0)["fresh"]
        return [record for record in switch.records("conns", used) if record["gen"] & 1]
    finally:
        switch.close()


def test_no_packet_is_lost_or_counted_wrong_when_the_layout_changes(
    lab: UpgradeLab, other_vnet: Path
) -> None:
    """Up to this vnet's layout, and back to the other's."""
    assert lab.run(other_vnet) == "made"
    assert layout_of(lab.pins) != layout()
    pinging = ping(lab, 6000)
    time.sleep(0.5)
    before = connections(lab.pins)
    for vnet in (ROOT, other_vnet, ROOT):
        lab.kill()
        assert lab.run(vnet) == "adopted"
        assert (layout_of(lab.pins) == layout()) == (vnet == ROOT)
        time.sleep(0.3)
    output, _ = pinging.communicate(timeout=60)
    assert lost(output) == 0
    after = connections(lab.pins)
    assert len(before) == len(after) == 1
    assert before[0]["created_ns"] == after[0]["created_ns"], "the connection is the same"
    lab.kill()
    datapath = opened(lab)
    try:
        counted = counts(datapath)
        expected = {**dict.fromkeys(counted, 6000), "ports": 12000}
        assert counted == expected
        assert after[0].numbers("packets") == (6000, 6000)
    finally:
        datapath.destroy()


SERVER = """
import socket
with socket.create_server(("10.0.0.2", 5000)) as server:
    print("listening", flush=True)
    peer, _ = server.accept()
    expected = 0
    while data := peer.recv(1 << 16):
        assert data[0] == expected % 251, (data[0], expected)
        expected += len(data)
    peer.sendall(str(expected).encode())
    print(expected, flush=True)
"""
CLIENT = """
import socket, time
pattern = bytes(range(251)) * 261
with socket.create_connection(("10.0.0.2", 5000), timeout=10) as peer:
    print("connected", flush=True)
    sent, end = 0, time.monotonic() + 6
    while time.monotonic() < end:
        peer.sendall(pattern)
        sent += len(pattern)
        time.sleep(0.001)
    peer.shutdown(socket.SHUT_WR)
    assert peer.recv(99) == str(sent).encode()
    print(sent, flush=True)
"""


def test_a_tcp_stream_goes_on_when_the_layout_changes(lab: UpgradeLab, other_vnet: Path) -> None:
    """The rules admit no packet of a connection that the switch does not know."""
    assert lab.run(other_vnet) == "made"
    server = lab.inside(2, SERVER)
    assert server.stdout is not None and server.stdout.readline() == "listening\n"
    client = lab.inside(1, CLIENT)
    assert client.stdout is not None and client.stdout.readline() == "connected\n"
    for vnet in (ROOT, other_vnet, ROOT):
        time.sleep(0.5)
        lab.kill()
        assert lab.run(vnet) == "adopted"
    (sent, _), (received, _) = client.communicate(timeout=30), server.communicate(timeout=30)
    assert sent == received, (sent, received)
    assert int(sent) > 1 << 20
    (connection,) = connections(lab.pins)
    assert connection["tcp_state"] == 5, "both sides have sent FIN"


MANY_SERVER = """
import socket
with socket.create_server(("10.0.0.2", 5000), backlog=64) as server:
    print("listening", flush=True)
    while True:
        peer, _ = server.accept()
        with peer:
            if peer.recv(4) == b"stop":
                break
            peer.sendall(b"pong")
"""
MANY_CLIENT = """
import socket, time
began, made = time.monotonic(), 0
def one(word):
    with socket.create_connection(("10.0.0.2", 5000), timeout=20) as peer:
        peer.settimeout(20)
        peer.sendall(word)
        return peer.recv(4)
while time.monotonic() < began + 6:
    assert one(b"ping") == b"pong"
    made += 1
    if made == 1:
        print("connected", flush=True)
one(b"stop")
print(made, flush=True)
"""


def sent_again(lab: UpgradeLab) -> int:
    """TCP segments, of both sides so far."""
    count = 0
    for number in (1, 2):
        command = ["ip", "netns", "exec", f"{lab.name}-{number}", "cat", "/proc/net/snmp"]
        told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        names, values = (line.split() for line in told.splitlines() if line.startswith("Tcp:"))
        count += int(values[names.index("RetransSegs")])
    return count


def test_connections_that_begin_while_the_layout_changes_are_opened(
    lab: UpgradeLab, other_vnet: Path
) -> None:
    """One that begins in the milliseconds of the exchange itself may need its packets sent again."""
    assert lab.run(other_vnet) == "made"
    server = lab.inside(2, MANY_SERVER)
    assert server.stdout is not None and server.stdout.readline() == "listening\n"
    client = lab.inside(1, MANY_CLIENT)
    assert client.stdout is not None and client.stdout.readline() == "connected\n"
    for vnet in (ROOT, other_vnet):
        time.sleep(0.3)
        lab.kill()
        assert lab.run(vnet) == "adopted"
    (told, _), _ = client.communicate(timeout=60), server.communicate(timeout=60)
    assert int(told) > 200
    again = sent_again(lab)
    assert again <= 4, (
        f"{again} segments of {told} connections; one connection is at the time of each upgrade"
    )


# Where the vnet that upgrades is killed: before the n-th call of what changes anything that outlives it.
KILL = """
import os, signal
from pathlib import Path
from vnet.switch.live import bpf, carry

def mortal(holder, name, fatal):
    real, calls = getattr(holder, name), [0]
    def call(*arguments, **named):
        calls[0] += 1
        if calls[0] == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments, **named)
    setattr(holder, name, call)

mortal({holder}, {name!r}, {fatal})
"""
STEPS = {
    "while maps are made": ("bpf", "pin", 20),
    "while links get a second name": ("bpf", "pin", len(MAPS) + len(PROGRAMS) + 2),
    "while rules are written": ("bpf.Map", "set", 12),
    "before the successor is ready": ("Path", "rename", 1),
    "while connections are copied": ("bpf.Map", "insert", 2),
    "before the first port is exchanged": ("bpf", "update_link", 1),
    "between the ports": ("bpf", "update_link", 2),
    "before the packets are waited for": ("bpf.GracePeriod", "wait", 1),
    "while counters are carried over": ("carry", "_add", 2),
    "before the old switch is renamed": ("Path", "rename", 2),
    "between the old name and the new": ("Path", "rename", 3),
    "before the old switch is removed": ("migration.shutil", "rmtree", 1),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_kill_in_the_middle_leaves_one_switch_whole(lab: UpgradeLab, other_vnet: Path, step: str) -> None:
    holder, name, fatal = STEPS[step]
    assert lab.run(other_vnet) == "made"
    pinging = ping(lab, 3000)
    time.sleep(0.3)
    (before,) = connections(lab.pins)
    lab.kill()
    kill = KILL.format(holder=holder, name=name, fatal=fatal)
    assert lab.run(ROOT, f"from vnet.switch.live import migration\n{kill}") == ""
    assert lab.process is not None and lab.process.wait(10) == -signal.SIGKILL
    lab.kill()
    time.sleep(0.2)
    assert lab.run(ROOT) == "adopted"
    output, _ = pinging.communicate(timeout=60)
    assert lost(output) == 0
    assert [path.name for path in lab.pins.parent.glob(f"{lab.name}*")] == [lab.name], "nothing is left over"
    (after,) = connections(lab.pins)
    assert before["created_ns"] == after["created_ns"]
    lab.kill()
    datapath = opened(lab)
    try:
        counted = counts(datapath)
        assert counted == {**dict.fromkeys(counted, 3000), "ports": 6000}
    finally:
        datapath.destroy()


def test_quotas_and_addresses_are_carried_over(lab: UpgradeLab, other_vnet: Path) -> None:
    assert lab.run(other_vnet) == "made"
    command = f"ip netns exec {lab.name}-1 ping -q -c 1 -W 2 10.0.0.2".split()
    for _ in range(3):  # each an echo identifier of its own
        subprocess.run(command, check=True, timeout=10, stdout=subprocess.DEVNULL)
    lab.kill()
    datapath = opened(lab)
    try:
        switch = DescribedSwitch(lab.pins)
        held = [switch.at("port_state", port) for port in (1, 2)]
        addresses = list(switch.map["macs"].items())
        switch.close()
        assert [(state["conns"], state["macs"]) for state in held] == [(3, 1), (0, 1)]
        assert len(addresses) == 2
        datapath.flush_connections()
        assert not connections(lab.pins)
        subprocess.run(command, check=True, timeout=10, stdout=subprocess.DEVNULL)
        assert len(connections(lab.pins)) == 1
    finally:
        datapath.destroy()


def test_configuration_of_ports_is_carried_over(lab: UpgradeLab, other_vnet: Path) -> None:
    from vnet.openflow.message import PortConfig

    assert lab.run(other_vnet) == "made"
    lab.kill()
    datapath = opened(lab)
    datapath.configure_port(2, PortConfig.NO_PACKET_IN | PortConfig.NO_FWD)
    datapath.close()
    assert lab.run(other_vnet) == "adopted"
    lab.kill()
    datapath = opened(lab)
    try:
        configured = {port.number: port.config for port in datapath.ports()}
        assert configured == {1: PortConfig(0), 2: PortConfig.NO_PACKET_IN | PortConfig.NO_FWD}
    finally:
        datapath.destroy()


# -- the end --------------------------------------------------------------------------------------


def ids(pins: Path) -> dict[str, set[int]]:
    """The numbers of everything that is pinned, by kind."""
    found: dict[str, set[int]] = {"map": set(), "prog": set(), "link": set()}
    for kind, names in (("map", MAPS), ("prog", PROGRAMS)):
        for name in names:
            found[kind].add(shown([kind, "show", "pinned", str(pins / name)])["id"])
    for path in (pins / "links").iterdir():
        found["link"].add(shown(["link", "show", "pinned", str(path)])["id"])
    return found


def shown(arguments: list[str]) -> dict[str, int]:
    done = subprocess.run(["bpftool", "-j", *arguments], capture_output=True, check=True, timeout=20)
    return dict(json.loads(done.stdout))


def alive(kind: str) -> set[int]:
    done = subprocess.run(["bpftool", "-j", kind, "list"], capture_output=True, check=True, timeout=20)
    return {one["id"] for one in json.loads(done.stdout)}


def still_alive(before: dict[str, set[int]]) -> dict[str, set[int]]:
    """What of it the kernel has not let go of; it frees maps and programs after a grace period."""
    deadline = time.monotonic() + 10
    while True:
        left = {kind: numbers & alive(kind) for kind, numbers in before.items()}
        if not any(left.values()) or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def test_a_detached_port_has_no_program(bench: Bench) -> None:
    before = ids(bench.pins)
    link = shown(["link", "show", "pinned", str(bench.pins / "links" / "3")])["id"]
    bench.datapath.detach(3)
    assert still_alive({"link": {link}}) == {"link": set()}
    assert len(before["link"] & alive("link")) == bench.ports - 1
    assert not (bench.pins / "links" / "3").exists()


def test_a_destroyed_switch_leaves_no_link_program_or_map(bench: Bench) -> None:
    """Nothing pinned, nothing attached, nothing that anything else would keep alive."""
    before = ids(bench.pins)
    assert (len(before["map"]), len(before["prog"])) == (len(MAPS), len(PROGRAMS))
    assert len(before["link"]) == bench.ports
    bench.datapath.destroy()
    try:
        assert still_alive(before) == {"map": set(), "prog": set(), "link": set()}
        assert not list(bench.pins.parent.glob(f"{bench.netns}*"))
        command = ["ip", "netns", "exec", bench.netns, "bpftool", "-j", "net", "show"]
        done = subprocess.run(command, capture_output=True, check=True, timeout=20)
        assert not json.loads(done.stdout)[0]["tc"]
    finally:
        bench.open()  # for the fixture to destroy


def test_an_upgraded_switch_leaves_nothing_of_the_old_one(lab: UpgradeLab, other_vnet: Path) -> None:
    assert lab.run(other_vnet) == "made"
    before = ids(lab.pins)
    lab.kill()
    datapath = opened(lab)
    try:
        after = ids(lab.pins)
        assert before["link"] == after["link"], "links outlive the switch that made them"
        assert still_alive({kind: before[kind] for kind in ("map", "prog")}) == {"map": set(), "prog": set()}
    finally:
        datapath.destroy()
    assert still_alive(after) == {"map": set(), "prog": set(), "link": set()}


def test_removing_a_switch_removes_what_a_killed_upgrade_left(lab: UpgradeLab, other_vnet: Path) -> None:
    assert lab.run(other_vnet) == "made"
    lab.kill()
    kill = KILL.format(holder="bpf", name="update_link", fatal=2)
    assert lab.run(ROOT, kill) == ""
    assert lab.process is not None and lab.process.wait(10) == -signal.SIGKILL
    lab.kill()
    before = ids(lab.pins)
    remove(lab.pins)
    assert not list(lab.pins.parent.glob(f"{lab.name}*"))
    assert still_alive(before) == {"map": set(), "prog": set(), "link": set()}


def test_rules_that_this_vnet_cannot_carry_out_leave_the_running_switch_alone(
    lab: UpgradeLab, other_vnet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vnet.base.errors import HostError
    from vnet.openflow.message import BadAction, ErrorType
    from vnet.switch.datapath import Refused
    from vnet.switch.image import Image
    from vnet.switch.live import migration
    from vnet.switch.placed import Staged

    def refuse(_image: Image, _change: Change) -> Staged:
        raise Refused(ErrorType.BAD_ACTION, BadAction.BAD_TYPE, "no such thing")

    assert lab.run(other_vnet) == "made"
    lab.kill()
    before = ids(lab.pins)
    with monkeypatch.context() as patched:
        patched.setattr(migration, "stage", refuse)
        with pytest.raises(HostError, match="cannot carry out"):
            opened(lab)
    assert ids(lab.pins) == before
    assert [path.name for path in lab.pins.parent.glob(f"{lab.name}*")] == [lab.name]
    assert lab.run(ROOT) == "adopted"
