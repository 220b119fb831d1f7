"""A guest's own stack takes the answer to a rejected packet for what it is, whoever sums up checksums."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.bpf.bench import BPFFS, sh
from vnet.base.drop import DropReason
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Reject, match
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside

ADDRESS = {4: ("10.0.0.1", "10.0.0.2"), 6: ("fd00::1", "fd00::2")}
NEIGHBOUR = "02:00:00:00:00:02"
REJECT = Flow(0, 1, match(), Instructions((Reject(),)), cookie=cookie.make("test", DropReason.REJECTED))
SOON_S = 0.9
"""Before a SYN is sent a second time."""


class Lab:
    """A namespace with two addresses at the only port of a switch that rejects everything."""

    def __init__(self) -> None:
        self.netns = f"vnt-rej-{os.getpid()}"
        self.guest = f"{self.netns}-1"
        for name in (self.netns, self.guest):
            sh(f"ip netns add {name}")
        sh(f"ip -n {self.netns} link add p1 type veth peer name eth0 netns {self.guest}")
        sh(f"ip -n {self.netns} link set p1 up")
        sh(f"ip -n {self.guest} link set eth0 up")
        for family, (own, other) in ADDRESS.items():
            nodad = "nodad" if family == 6 else ""
            sh(f"ip -n {self.guest} addr add {own}/{24 if family == 4 else 64} dev eth0 {nodad}")
            sh(f"ip -n {self.guest} neigh add {other} lladdr {NEIGHBOUR} dev eth0")
        self.datapath = EbpfDatapath.open("reject", self.netns, BPFFS / self.netns)
        self.datapath.attach(1, "p1")
        self.datapath.commit(Change(put=(REJECT,)))

    def close(self) -> None:
        self.datapath.destroy()
        for name in (self.guest, self.netns):
            sh(f"ip netns del {name}")


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


@pytest.fixture(params=["on", "off"], ids=["device sums up", "sender sums up"])
def offload(lab: Lab, request: pytest.FixtureRequest) -> None:
    sh(f"ip netns exec {lab.guest} ethtool -K eth0 tx {request.param} rx {request.param}")


def error_of(lab: Lab, kind: socket.SocketKind, family: int) -> tuple[int, float]:
    """What a connection attempt, or a datagram, comes to, and after how long."""
    domain = socket.AF_INET if family == 4 else socket.AF_INET6
    with inside(lab.guest):
        one = socket.socket(domain, kind)
    with one:
        one.settimeout(5)
        began = time.monotonic()
        try:
            one.connect((ADDRESS[family][1], 80))
            one.send(b"hello")
            one.recv(1)
        except OSError as error:
            return error.errno or 0, time.monotonic() - began
    raise AssertionError("somebody answered")


@pytest.mark.usefixtures("offload")
@pytest.mark.parametrize("family", [4, 6])
def test_a_tcp_connection_is_refused_at_once(lab: Lab, family: int) -> None:
    what, after_s = error_of(lab, socket.SOCK_STREAM, family)
    assert (what, after_s < SOON_S) == (errno.ECONNREFUSED, True)


@pytest.mark.usefixtures("offload")
@pytest.mark.parametrize(("family", "expected"), [(4, errno.EHOSTUNREACH), (6, errno.EACCES)])
def test_a_datagram_is_answered_with_prohibited(lab: Lab, family: int, expected: int) -> None:
    what, after_s = error_of(lab, socket.SOCK_DGRAM, family)
    assert (what, after_s < SOON_S) == (expected, True)


@pytest.mark.usefixtures("offload")
def test_ping_tells_that_it_is_filtered(lab: Lab) -> None:
    command = f"ip netns exec {lab.guest} ping -c 1 -W 1 {ADDRESS[4][1]}".split()
    said = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout
    assert "Packet filtered" in said
