"""The daemon and a network's dnsmasq are killed, in turn and together, under traffic that must not notice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.net.client import client, leased, run
from tests.net.fabric_lab import NETNS, PREFIX, host
from tests.waiting import until
from vnet.base import paths
from vnet.fabric.live import dnsmasq
from vnet.services.leases import Lease, read

ROOT = Path(__file__).resolve().parents[2]
TEXT = """\
name: small
networks: {lan: {vlan: 10, dns: true, subnets: [{cidr: 10.0.0.0/24, dhcp: true}, "fd00::/64"]}}
vms:
  a: {interfaces: {eth0: {network: lan, addresses: [10.0.0.11/24, "fd00::11/64"], mac: "52:54:00:00:00:11"}}}
  b: {interfaces: {eth0: {network: lan, addresses: [10.0.0.12/24, "fd00::12/64"], mac: "52:54:00:00:00:12"}}}
  c: {interfaces: {eth0: {network: lan, addresses: [10.0.0.13/24, "fd00::13/64"], mac: "52:54:00:00:00:13"}}}
policies: [{name: open, applied_to: any, ingress: [{from: any, ports: [icmp, 5001/tcp]}]}]
"""
SERVE = """
import socket
listener = socket.create_server(("10.0.0.12", 5001))
peer, got = listener.accept()[0], 0
while block := peer.recv(65536):
    got += len(block)
print(got)
"""
SEND = """
import pathlib, socket, sys, time
peer, sent, longest_s = socket.create_connection(("10.0.0.12", 5001)), 0, 0.0
while not pathlib.Path(sys.argv[1]).exists():
    began = time.monotonic()
    sent += peer.send(bytes(16384))
    longest_s = max(longest_s, time.monotonic() - began)
    time.sleep(0.005)
peer.close()
print(sent, longest_s)
"""


class Lab:
    """A fabric that outlives its daemons, and three clients of it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.folders = dnsmasq.Folders(
            paths.service_dir("small") / "lan.d", paths.service_dir("small") / "lan"
        )
        self.daemon: subprocess.Popen[str] | None = None

    def start(self, file: str = "") -> None:
        """A daemon that has taken over what is there."""
        words = [sys.executable, "-m", "tests.net.recovery_child", str(self.directory), *filter(None, [file])]
        self.daemon = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.daemon.stdout
        assert self.daemon.stdout.readline() == "ready\n"

    def kill(self) -> None:
        """As the kernel would."""
        if self.daemon is not None:
            self.daemon.kill()
            self.daemon.communicate()
            self.daemon = None

    def end(self) -> None:
        self.kill()
        subprocess.run(
            [sys.executable, "-m", "tests.net.recovery_child", str(self.directory), "-"], cwd=ROOT, check=True
        )

    @property
    def pid(self) -> int:
        """Of the network's dnsmasq; 0 if it does not run."""
        found = dnsmasq.find(self.folders)
        if found is None:
            return 0
        found.close()
        return found.pid

    @property
    def leases(self) -> list[Lease]:
        return list(read(dnsmasq.leases(self.folders)))

    def kill_dnsmasq(self) -> int:
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        until(lambda: self.pid != pid)
        return pid


@pytest.fixture(scope="module")
def made() -> Iterator[Lab]:
    with host() as directory:
        directory.chmod(0o711)
        file = directory / "small.vnet.yaml"
        file.write_text(TEXT)
        lab = Lab(directory)
        try:
            lab.start(str(file))
            yield lab
        finally:
            lab.end()


@contextmanager
def clients() -> Iterator[list[str]]:
    """The namespaces of a and b, who have their addresses, and of c, who asks for one."""
    with ExitStack() as stack:
        names = []
        for vm, last in (("a", 11), ("b", 12), ("c", 13)):
            mac = f"52:54:00:00:00:{last}"
            names.append(stack.enter_context(client(f"{PREFIX}{vm}", NETNS, f"{vm}.eth0", mac)))
        for name, last in zip(names[:2], (11, 12), strict=True):
            run(name, f"ip addr add 10.0.0.{last}/24 dev eth0; ip addr add fd00::{last}/64 dev eth0 nodad")
        yield names


def begin(name: str, *words: str) -> subprocess.Popen[str]:
    command = ["ip", "netns", "exec", name, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@contextmanager
def traffic(a: str, b: str, stop: Path) -> Iterator[None]:
    """A TCP stream and a hundred pings a second over both versions of IP; none of it may suffer."""
    server = begin(b, sys.executable, "-c", SERVE)
    until(lambda: ":5001 " in run(b, "ss -ltn").stdout)
    pings = [begin(a, "busybox", "ping", "-q", "-i", "0.01", peer) for peer in ("10.0.0.12", "fd00::12")]
    sender = begin(a, sys.executable, "-c", SEND, str(stop))
    try:
        yield
        stop.touch()
        sent, longest_s = sender.communicate(timeout=10)[0].split()
        got = server.communicate(timeout=10)[0]
        assert int(got) == int(sent) > 1_000_000
        assert float(longest_s) < 1.0
        for ping in pings:
            ping.send_signal(signal.SIGINT)
            told = ping.communicate(timeout=10)[0]
            assert " 0% packet loss" in told, told
    finally:
        for each in (server, sender, *pings):
            each.kill()
            each.communicate()


def test_daemon_and_dnsmasq_are_killed_in_turn_and_no_flow_notices(made: Lab) -> None:
    with clients() as (a, b, c), traffic(a, b, made.directory / "stop"):
        made.kill()
        assert "ip=10.0.0.13\n" in leased(c), "a guest is answered while no daemon runs"
        (lease,) = made.leases
        made.kill_dnsmasq()
        assert made.leases == [lease]
        made.start()
        until(lambda: made.pid)
        assert made.leases == [lease]
        assert "ip=10.0.0.13\n" in leased(c)
        made.kill_dnsmasq()
        until(lambda: made.pid)
        assert [each.address for each in made.leases] == [lease.address]


def test_a_daemon_killed_while_it_starts_a_dnsmasq_leaves_one_that_the_next_daemon_takes_over(
    made: Lab,
) -> None:
    process = made.folders.told / dnsmasq.PROCESS
    noted = process.read_text()
    made.kill_dnsmasq()
    until(lambda: process.read_text() not in (noted, ""))  # begun, and perhaps not yet ready
    made.kill()
    made.start()
    until(lambda: made.pid)
    there = subprocess.run(
        ["ip", "netns", "pids", f"{NETNS}.lan"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert there == [str(made.pid)]
    with clients() as (_, _, c):
        assert "ip=10.0.0.13\n" in leased(c)
