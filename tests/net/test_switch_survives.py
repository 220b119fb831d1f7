"""The daemon is killed, restarted and its program upgraded while packets flow: none is lost."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bpf.bench import BPFFS, sh
from vnet.openflow.flow import Flow, Instructions, Output, match

DAEMON = """
import asyncio, sys
from pathlib import Path
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.policy.live.controller import Controller
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.server import SwitchServer

async def main(netns, pins, socket):
    datapath = EbpfDatapath.open("survivor", netns, Path(pins))
    for number in (1, 2):
        datapath.attach(number, f"p{number}")
    server = SwitchServer(datapath, "survivor", 1)
    await server.start(Path(socket))
    controller = Controller(Path(socket))
    await controller.connect(10)
    applied = await controller.apply(tuple(
        Flow(0, 10, match(in_port=a), Instructions((Output(b),)), 0x76 << 56) for a, b in ((1, 2), (2, 1))
    ))
    how = "adopted" if datapath.adopted else "made"
    print(how, applied.added, applied.changed, applied.removed, flush=True)
    await asyncio.sleep(60)

asyncio.run(main(*sys.argv[1:]))
"""


class Lab:
    """Two namespaces with an address each, joined by a switch that a killable process serves."""

    def __init__(self, folder: Path) -> None:
        self.name = f"vnt-surv-{os.getpid()}"
        self.socket = folder / "switch.sock"
        self.pins = BPFFS / self.name
        self.process: subprocess.Popen[str] | None = None
        sh(f"ip netns add {self.name}")
        for number in (1, 2):
            end = f"{self.name}-{number}"
            sh(f"ip netns add {end}")
            sh(f"ip -n {self.name} link add p{number} type veth peer name eth0 netns {end}")
            sh(f"ip -n {self.name} link set p{number} up")
            sh(f"ip -n {end} addr add 10.0.0.{number}/24 dev eth0")
            sh(f"ip -n {end} link set eth0 up")

    def start(self, environment: dict[str, str] | None = None) -> str:
        """Start the daemon; what it says when its rules are in force."""
        command = [sys.executable, "-c", DAEMON, self.name, str(self.pins), str(self.socket)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **(environment or {})}
        )
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(timeout=10)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process = None

    def close(self) -> None:
        if self.process is not None:
            self.kill()
        if self.pins.exists():
            shutil.rmtree(self.pins)
        for name in (self.name, f"{self.name}-1", f"{self.name}-2"):
            sh(f"ip netns del {name}")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    made = Lab(tmp_path)
    yield made
    made.close()


def lost(output: str) -> int:
    sent, received = re.search(r"(\d+) packets transmitted, (\d+) received", output).groups()  # type: ignore[union-attr]
    assert int(sent) > 1000
    return int(sent) - int(received)


def ping(lab: Lab, count: int) -> subprocess.Popen[str]:
    """1,000 pings a second."""
    command = f"ip netns exec {lab.name}-1 ping -q -i 0.001 -c {count} 10.0.0.2".split()
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_no_packet_is_lost_while_the_daemon_is_killed_and_restarted(lab: Lab) -> None:
    assert lab.start() == "made 2 0 0"
    pinging = ping(lab, 5000)
    for _ in range(3):
        time.sleep(0.3)
        lab.kill()
        time.sleep(0.2)
        assert lab.start() == "adopted 0 0 0", "a restarted daemon changes nothing"
    output, _ = pinging.communicate(timeout=60)
    print(output)
    assert lost(output) == 0


def test_no_packet_is_lost_while_the_program_is_exchanged(lab: Lab, tmp_path: Path) -> None:
    """Another build of the same program: same maps, other digest."""
    from vnet.switch.live.maps import object_path

    other = tmp_path / "switch.bpf.o"
    shutil.copy(object_path(), other)
    with other.open("ab") as file:
        file.write(b"\0")  # another build, as far as its digest tells
    lab.start()
    before = program_id(lab)
    pinging = ping(lab, 4000)
    time.sleep(0.3)
    lab.kill()
    assert lab.start({"VNET_BPF_OBJECT": str(other)}) == "adopted 0 0 0"
    output, _ = pinging.communicate(timeout=60)
    assert program_id(lab) != before, "the new program runs"
    assert lost(output) == 0


def program_id(lab: Lab) -> str:
    command = ["bpftool", "prog", "show", "pinned", str(lab.pins / "vnet_ingress")]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.split(":")[0]


def test_revoked_rule_admits_no_packet_after_the_commit_returned(lab: Lab) -> None:
    """A flood of packets against a commit: the switch sends nothing more to port 2 once commit is back.

    Counted where the switch lets go of a packet; what it sent before may still wait in the far end's queue.
    """
    from vnet.switch.datapath import Change
    from vnet.switch.live.datapath import EbpfDatapath

    datapath = EbpfDatapath.open("survivor", lab.name, lab.pins)
    try:
        for number in (1, 2):
            datapath.attach(number, f"p{number}")
        flow = Flow(0, 10, match(in_port=1), Instructions((Output(2),)))
        back = Flow(0, 10, match(in_port=2), Instructions((Output(1),)))
        for _ in range(5):
            datapath.commit(Change(put=(flow, back)))
            command = f"ip netns exec {lab.name}-1 ping -q -f -w 1 10.0.0.2".split()
            pinging = subprocess.Popen(command, stdout=subprocess.DEVNULL)
            time.sleep(0.3)
            datapath.commit(Change(remove=(flow.key,)))
            admitted = datapath.port_counters()[2].tx.packets
            time.sleep(0.2)
            assert datapath.port_counters()[2].tx.packets == admitted
            pinging.wait(timeout=20)
            assert admitted > 0
    finally:
        datapath.destroy()
