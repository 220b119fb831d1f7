"""NICs send and are sent as fast as declared, within a tenth, by TCP with super packets and by UDP."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import pytest

from tests.bpf.bench import BPFFS, sh
from vnet.base.drop import DropReason
from vnet.base.line import STRAIGHT, UNLIMITED, Line, rate_of
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6
from vnet.policy.compile import compile
from vnet.switch.abi import Point
from vnet.switch.datapath import Change
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.netns import inside
from vnet.topology.inventory import Nic, expand
from vnet.topology.load import load_text
from vnet.topology.routing import Routing
from vnet.topology.values import format_mac

DECLARED = 20_000_000
TEXT = """
name: rated
networks:
  front: {vlan: 10, subnets: [10.0.1.0/24, "fd00:1::/64"]}
  back: {vlan: 20, subnets: [10.0.2.0/24, "fd00:2::/64"]}
routers: {gw: {networks: [front, back]}}
vms:
  slow: {interfaces: {eth0: {network: front, rate: 20M}}}
  quick: {networks: [front]}
  third: {networks: [back]}
  marked: {interfaces: {eth0: {network: front, dscp: EF}}}
policies: [{name: all, applied_to: any, ingress: [{from: any}]}]
"""
RUN_S, SETTLE_S, TRIES = 1.1, 0.3, 3
PORT = 5001
SO_SNDBUFFORCE = 32
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
PAYLOAD = 1400
AROUND = {4: 14 + 20 + 8, 6: 14 + 40 + 8}
"""Bytes of headers around a datagram."""


@dataclass
class Received:
    """What a receiver has got; `bps` is over the time from `SETTLE_S` on."""

    began: float = field(default_factory=time.monotonic)
    marks: list[tuple[float, int]] = field(default_factory=list)
    total: int = 0

    def note(self, size: int) -> None:
        self.total += size
        self.marks.append((time.monotonic() - self.began, self.total))

    def bps(self, since_s: float = SETTLE_S, until_s: float = RUN_S) -> float:
        inside_ = [mark for mark in self.marks if since_s <= mark[0] <= until_s]
        (first, had), (last, has) = inside_[0], inside_[-1]
        return (has - had) * 8 / (last - first)


class Lab:
    """A namespace for each VM, at the ports of one switch that has the topology's flows and lines."""

    def __init__(self) -> None:
        self.netns = f"vnt-rate-{os.getpid()}"
        self.topology = load_text(TEXT, "rated.vnet.yaml", {})
        self.inventory = expand(self.topology, {})
        self.nics = {nic.vm: nic for nic in self.inventory.nics}
        self.guests = {vm: f"{self.netns}-{vm}" for vm in self.nics}
        for name in (self.netns, *self.guests.values()):
            sh(f"ip netns add {name}")
        self.datapath = EbpfDatapath.open("rated", self.netns, BPFFS / self.netns)
        for nic in self.inventory.nics:
            self._plug(nic)
        self.datapath.commit(Change(put=compile(self.topology, self.inventory).flows))

    def _plug(self, nic: Nic) -> None:
        guest = self.guests[nic.vm]
        sh(f"ip -n {self.netns} link add p{nic.port} type veth peer name eth0 netns {guest}")
        sh(f"ip -n {guest} link set eth0 address {format_mac(nic.mac)}")
        sh(f"ip -n {self.netns} link set p{nic.port} up")
        sh(f"ip -n {guest} link set eth0 up")
        for address in nic.addresses:
            sh(f"ip -n {guest} addr add {address} dev eth0 {'nodad' if address.version == 6 else ''}")
        for gateway in Routing(self.topology).gateways(nic.network):
            sh(f"ip -n {guest} -{gateway.version} route add default via {gateway}")
        self.datapath.attach(nic.port, f"p{nic.port}")
        self.datapath.lay(nic.port, nic.line)

    def close(self) -> None:
        self.datapath.destroy()
        for name in (*self.guests.values(), self.netns):
            sh(f"ip netns del {name}")

    def address(self, vm: str, family: int) -> str:
        return next(str(each.ip) for each in self.nics[vm].addresses if each.version == family)

    def socket(self, vm: str, family: int, kind: socket.SocketKind) -> socket.socket:
        with inside(self.guests[vm]):
            made = socket.socket(FAMILIES[family], kind)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, 8 << 20)  # else it waits for what is under way
        made.settimeout(5)
        return made

    def tcp(
        self,
        source: str,
        target: str,
        family: int,
        run_s: float = RUN_S,
        meanwhile: Callable[[], None] | None = None,
    ) -> Received:
        """A stream from one VM to another."""
        with self.socket(target, family, socket.SOCK_STREAM) as listener:
            listener.bind((self.address(target, family), PORT))
            listener.listen(1)
            client = self.socket(source, family, socket.SOCK_STREAM)
            client.connect((self.address(target, family), PORT))
            server, _ = listener.accept()
            server.settimeout(5)
        return _stream(client, server, lambda size: size, run_s, meanwhile)

    def udp(self, source: str, target: str, family: int) -> Received:
        """Datagrams as fast as they can be sent; the headers count."""
        server = self.socket(target, family, socket.SOCK_DGRAM)
        server.bind((self.address(target, family), PORT))
        client = self.socket(source, family, socket.SOCK_DGRAM)
        client.connect((self.address(target, family), PORT))
        server.settimeout(0.2)
        return _stream(client, server, lambda size: size + AROUND[family], RUN_S, None, PAYLOAD)

    def lost(self) -> int:
        return self.datapath.drop_counters().get(DropReason.RATE, 0)


def _stream(
    client: socket.socket,
    server: socket.socket,
    size_of: Callable[[int], int],
    run_s: float,
    meanwhile: Callable[[], None] | None,
    piece: int = 1 << 16,
) -> Received:
    received = Received()

    def receive() -> None:
        with server:
            while time.monotonic() < received.began + run_s + 0.3:
                try:
                    got = server.recv(1 << 20)
                except TimeoutError:
                    return
                if not got:
                    return
                received.note(size_of(len(got)))

    def send() -> None:
        with client:
            while time.monotonic() < received.began + run_s:
                client.send(bytes(piece))

    threads = [threading.Thread(target=each) for each in (receive, send)]
    for thread in threads:
        thread.start()
    if meanwhile is not None:
        meanwhile()
    for thread in threads:
        thread.join()
    return received


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    made = Lab()
    yield made
    made.close()


WAYS = {"out": ("slow", "third"), "in": ("third", "slow")}


def within(measure: Callable[[], float], low: float, high: float) -> None:
    """On a busy machine a sender may stand still for a while: one of some tries must be right."""
    found = []
    for _ in range(TRIES):
        found.append(measure() / DECLARED)
        if low <= found[-1] <= high:
            return
    raise AssertionError(found)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_a_stream_goes_at_the_declared_rate(lab: Lab, way: str, family: int) -> None:
    """What the application gets, which is 94 % of what is on the wire."""
    within(lambda: lab.tcp(*WAYS[way], family).bps(), 0.90, 1.02)


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("way", WAYS)
def test_datagrams_go_at_the_declared_rate_and_the_rest_is_lost_as_that(
    lab: Lab, way: str, family: int
) -> None:
    before = lab.lost()
    within(lambda: lab.udp(*WAYS[way], family).bps(), 0.95, 1.05)
    assert lab.lost() - before > 500


def test_who_is_too_fast_is_told(lab: Lab) -> None:
    lab.datapath.watch(frozenset())
    lab.datapath.read_events()
    lab.udp("slow", "third", 4)
    told = [each for each in lab.datapath.read_events() if each.reason is DropReason.RATE]
    assert {(each.port, each.point) for each in told} == {(lab.nics["slow"].port, Point.DROP)}


def test_other_nics_are_not_slowed(lab: Lab) -> None:
    slow = threading.Thread(target=lab.udp, args=("slow", "third", 4))
    slow.start()
    time.sleep(0.2)
    with lab.socket("third", 4, socket.SOCK_STREAM) as listener:
        listener.bind((lab.address("third", 4), PORT + 1))
        listener.listen(1)
        client = lab.socket("quick", 4, socket.SOCK_STREAM)
        client.connect((lab.address("third", 4), PORT + 1))
        server, _ = listener.accept()
    quick = _stream(client, server, lambda size: size, 0.8, None)
    slow.join()
    assert quick.bps(0.1, 0.8) > 5 * DECLARED


def test_a_rate_changes_and_goes_under_a_stream(lab: Lab) -> None:
    """The connection goes on at each; also when a burst becomes smaller than the super packets that wait."""
    found = []
    for _ in range(TRIES):
        found.append(changing(lab))
        first, second, third, fourth = found[-1]
        if 0.6 < first < 1.4 and 2 < second < 3.6 and 0.6 < third < 1.5 and fourth > 5:
            return
    raise AssertionError(found)


def changing(lab: Lab) -> tuple[float, ...]:
    """How fast a stream is, in multiples of what is declared, while its line is changed three times."""
    port, started, slow = lab.nics["slow"].port, time.monotonic(), lab.nics["slow"].line
    quick = Line(outward=rate_of(3 * DECLARED, 256 << 10))

    def change() -> None:
        for at_s, line in ((0.8, quick), (1.5, slow), (2.8, STRAIGHT)):
            time.sleep(max(0, started + at_s - time.monotonic()))
            lab.datapath.lay(port, line)
            assert lab.datapath.lines()[port] == line

    try:
        received = lab.tcp("slow", "third", 4, 3.1, change)
    finally:
        lab.datapath.lay(port, slow)
    spans = ((0.3, 0.8), (1.0, 1.5), (2.1, 2.8), (2.85, 3.1))
    return tuple(received.bps(*span) / DECLARED for span in spans)


def test_a_rate_outlives_the_daemon_and_what_comes_back_is_what_was_laid(lab: Lab) -> None:
    before = lab.datapath.lines()
    lab.datapath.close()
    lab.datapath = EbpfDatapath.open("rated", lab.netns, BPFFS / lab.netns)
    assert lab.datapath.lines() == before
    assert before[lab.nics["slow"].port] == lab.nics["slow"].line
    within(lambda: lab.udp("slow", "third", 4).bps(), 0.95, 1.05)


def test_who_takes_the_queue_away_is_found_out(lab: Lab) -> None:
    nic = lab.nics["slow"]
    sh(f"tc -n {lab.netns} qdisc del dev p{nic.port} root")
    assert lab.datapath.lines()[nic.port] == replace(nic.line, inward=UNLIMITED)
    lab.datapath.lay(nic.port, nic.line)
    assert lab.datapath.lines()[nic.port] == nic.line


def test_a_line_goes_with_its_port(lab: Lab) -> None:
    nic = lab.nics["quick"]
    lab.datapath.lay(nic.port, Line(outward=rate_of(DECLARED)))
    lab.datapath.detach(nic.port)
    with inside(lab.netns):
        assert f"line{nic.port}" not in {name for _, name in socket.if_nameindex()}
    lab.datapath.attach(nic.port, f"p{nic.port}")
    assert lab.datapath.lines()[nic.port] == STRAIGHT


TYPES = {4: ETH_IPV4, 6: ETH_IPV6}


@pytest.mark.parametrize("family", [4, 6])
@pytest.mark.parametrize("target", ["quick", "third"])
def test_what_a_marked_nic_sends_arrives_with_its_mark(lab: Lab, family: int, target: str) -> None:
    """Whatever it says itself; datagrams, their checksums, and super packets of a stream."""
    with inside(lab.guests[target]):
        sniffer = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(TYPES[family]))
    sniffer.bind(("eth0", TYPES[family]))
    sniffer.settimeout(0.2)
    server = lab.socket(target, family, socket.SOCK_DGRAM)
    server.bind((lab.address(target, family), PORT))
    client = lab.socket("marked", family, socket.SOCK_DGRAM)
    level, option = (
        (socket.IPPROTO_IP, socket.IP_TOS) if family == 4 else (socket.IPPROTO_IPV6, socket.IPV6_TCLASS)
    )
    client.setsockopt(level, option, 0x0A << 2 | 1)
    client.sendto(b"hello", (lab.address(target, family), PORT))
    assert server.recv(100) == b"hello"
    server.close()
    client.close()
    assert lab.tcp("marked", target, family, 0.3).total > 1 << 20
    seen = list(_frames(sniffer))
    sniffer.close()
    own = lab.address("marked", family)
    marks = {_mark(frame) for frame in seen if _source(frame, family) == own and not _is_discovery(frame)}
    assert marks <= {46 << 2, 46 << 2 | 1, 46 << 2 | 2} and 46 << 2 | 1 in marks, marks
    assert max(map(len, seen)) > 9000


def _frames(sniffer: socket.socket) -> Iterator[bytes]:
    try:
        for _ in range(5000):
            yield sniffer.recv(1 << 17)
    except TimeoutError:
        return


def _mark(frame: bytes) -> int:
    return frame[15] if frame[12:14] == b"\x08\x00" else (frame[14] << 4 | frame[15] >> 4) & 0xFF


def _source(frame: bytes, family: int) -> str:
    return socket.inet_ntop(FAMILIES[family], frame[26:30] if family == 4 else frame[22:38])


def _is_discovery(frame: bytes) -> bool:
    return frame[12:14] == b"\x86\xdd" and frame[20] == 58
