"""A fabric on a trunk among real hosts of two VLANs: who talks to whom, what is refused, what is seen."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Dot1Q, Ether

from tests.bpf.bench import sh
from tests.net import fabric_lab
from tests.net.campus_lab import Campus, Host, campus, tags
from tests.net.client import client, run
from tests.net.fabric_lab import NETNS, PREFIX
from tests.unit.fabric.fakes import World
from vnet.base import paths
from vnet.base.drop import DropReason
from vnet.capture.record import PacketRecord, Point
from vnet.fabric.capturing import Wanted, points
from vnet.fabric.live.seeing import uplink_ports
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.switch.live.netns import inside
from vnet.topology.inventory import Nic
from vnet.topology.values import format_mac

T = TypeVar("T")

EXAMPLE = Path(__file__).parents[2] / "topologies" / "campus.vnet.yaml"
TEXT = EXAMPLE.read_text(encoding="utf-8").replace("name: campus", "name: small") + (
    'mirrors: {wire: {source: "uplink:trunk", to: "pcap:wire.pcapng", filter: "vlan 120 and port 25"}}\n'
)
HOST = f"{PREFIX}host"
MACS = {"printer": "02:00:00:00:01:01", "library": "02:00:00:00:01:02"}
HOSTS = {
    "printer": Host(110, MACS["printer"], ("10.110.0.200/24", "fd00:110::c8/64")),
    "library": Host(
        120,
        MACS["library"],
        tuple(f"10.120.0.{last}/24" for last in (200, 60, 254))
        + tuple(f"fd00:120::{last}/64" for last in ("c8", "60", "fe"))
        + ("203.0.113.7/32", "2001:db8::7/128"),
    ),
}
PRINTER = {4: "10.110.0.200", 6: "fd00:110::c8"}
LIBRARY = {4: "10.120.0.200", 6: "fd00:120::c8"}
VISITOR = {4: "10.120.0.60", 6: "fd00:120::60"}
"""Another address of the library's host, which is in no group."""
FAR = {4: "203.0.113.7", 6: "2001:db8::7"}
"""Somewhere else, behind the campus's router, which the library's host is too."""
FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
both = pytest.mark.parametrize("family", [4, 6])


class Lab:
    """The fabric, in a loop of its own; its VMs and the campus are namespaces."""

    def __init__(self, directory: Path, campus: Campus) -> None:
        self.directory, self.campus, self.world = directory, campus, World()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()
        self._clients = ExitStack()
        self.do(self.begin())
        self.do(self.engine.up(Source("campus.vnet.yaml", TEXT), silent))
        for nic in self.nics.values():
            name = self.guest(nic.vm)
            self._clients.enter_context(client(name, NETNS, nic.name, format_mac(nic.mac), offload=True))
            for address in nic.addresses:
                sh(f"ip -n {name} addr add {address} dev eth0")
            for gateway in nic.gateways:
                sh(f"ip -n {name} -{gateway.version} route add default via {gateway}")

    async def begin(self) -> None:
        """A new daemon."""
        self.engine = fabric_lab.make_engine(self.directory, self.world, host_netns=HOST)
        await self.engine.adopt()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(60)

    @property
    def nics(self) -> dict[str, Nic]:
        declared = self.engine.fabric("small").declared
        assert declared
        return {nic.vm: nic for nic in declared.inventory.nics}

    def guest(self, vm: str) -> str:
        return f"{PREFIX}{vm}"

    def address(self, vm: str, family: int) -> str:
        return next(str(each.ip) for each in self.nics[vm].addresses if each.version == family)

    def drops(self) -> dict[DropReason, int]:
        return dict(self.do(self.engine.fabric("small").parts.switch.drop_counts()))

    def recent(self) -> list[str]:
        return list(self.do(Service(self.engine).drops("small"))["recent"])

    def close(self) -> None:
        self._clients.close()
        self.do(self.engine.down("small", silent))
        self.do(self.engine.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with fabric_lab.host() as directory:
        sh(f"ip netns add {HOST}")
        try:
            with campus(PREFIX, HOST, "campus0", HOSTS) as there, closing(Lab(directory, there)) as made:
                yield made
        finally:
            sh(f"ip netns del {HOST}")


@contextmanager
def serving(netns: str, family: int, port: int) -> Iterator[None]:
    """Whoever connects is told the port, and what they send is read to its end and counted."""
    with inside(netns):
        server = socket.create_server(("", port), family=FAMILIES[family], backlog=8)

    def serve() -> None:
        while True:
            with suppress(TimeoutError):
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(20)
                    size = 0
                    while data := connection.recv(1 << 20):
                        size += len(data)
                    connection.sendall(f"{port} {size}".encode())

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
        server.close()


def told(netns: str, source: str, target: str, port: int, size: int = 0) -> str:
    """What a server says to so many bytes; nothing if there is no way to it."""
    family = 6 if ":" in target else 4
    with inside(netns):
        made = socket.socket(FAMILIES[family], socket.SOCK_STREAM)
    with made:
        made.settimeout(20 if size else 0.7)
        made.bind((source, 0))
        try:
            made.connect((target, port))
        except TimeoutError:
            return ""
        made.settimeout(20)
        for _ in range(size >> 20):
            made.sendall(bytes(1 << 20))
        made.shutdown(socket.SHUT_WR)
        return made.recv(100).decode()


@both
def test_hosts_of_the_campus_reach_the_vms_that_policies_open_to_them(lab: Lab, family: int) -> None:
    mail, library = lab.address("mail", family), lab.campus.name("library")
    with serving(lab.guest("mail"), family, 443), serving(lab.guest("mail"), family, 25):
        assert told(library, LIBRARY[family], mail, 443) == "443 0"
        assert told(library, LIBRARY[family], mail, 25) == "25 0"
        assert told(library, VISITOR[family], mail, 25) == "25 0"
        before = lab.drops().get(DropReason.POLICY, 0)
        assert told(library, VISITOR[family], mail, 443) == ""
        assert lab.drops()[DropReason.POLICY] > before
    said = [line for line in lab.recent() if mail in line and "443" in line]
    assert said and all("uplink:trunk" in line and "campus.vnet.yaml:" in line for line in said), lab.recent()
    ping = run(library, f"ping -c 2 -i 0.2 -W 2 -I {LIBRARY[family]} {mail}")
    assert "2 received" in ping.stdout, ping.stdout


@both
def test_vms_reach_the_machines_that_policies_open_to_them(lab: Lab, family: int) -> None:
    desk, desk_netns = lab.address("desk-1", family), lab.guest("desk-1")
    printer = lab.campus.name("printer")
    with (
        serving(printer, family, 631),
        serving(printer, family, 80),
        serving(desk_netns, family, 80),
        lab.campus.overheard() as overheard,
    ):
        assert told(desk_netns, desk, PRINTER[family], 631) == "631 0"
        assert told(desk_netns, desk, PRINTER[family], 80) == ""
        assert told(printer, PRINTER[family], desk, 80) == ""
        assert tags(overheard, format_mac(lab.nics["desk-1"].mac)) == {110}
    lines = [line for line in lab.recent() if "POLICY" in line and desk in line]
    ruled = EXAMPLE.read_text(encoding="utf-8").splitlines()
    at = {int(line.rpartition("campus.vnet.yaml:")[2].split(":")[0]) for line in lines}
    assert any("action: deny, log: true" in ruled[number - 1] for number in at), lines
    neighbours = run(printer, f"ip -{family} neigh show {desk}").stdout
    assert format_mac(lab.nics["desk-1"].mac) in neighbours


@both
def test_what_is_behind_the_router_of_the_campus_is_reached_through_it(lab: Lab, family: int) -> None:
    mail, mail_netns = lab.address("mail", family), lab.guest("mail")
    library = lab.campus.name("library")
    with serving(library, family, 25), serving(mail_netns, family, 25):
        assert told(mail_netns, mail, FAR[family], 25) == "25 0"
        assert told(library, FAR[family], mail, 25) == "25 0"
        assert told(mail_netns, mail, FAR[family], 26) == ""
    (mirror,) = lab.do(Service(lab.engine).inspect("small"))["mirrors"]
    assert mirror["matched"] >= 10 and mirror["lost"] == 0
    recorded = b"".join(path.read_bytes() for path in paths.mirror_dir("small").glob("wire*"))
    for point in (b"uplink:trunk/uplink-in", b"uplink:trunk/uplink-out"):
        assert point in recorded


def udp(family: int, source: str, target: str) -> Any:
    return (IP if family == 4 else IPv6)(src=source, dst=target) / UDP(sport=9, dport=25)


@both
def test_what_has_no_tag_or_a_foreign_one_does_not_come_in(lab: Lab, family: int) -> None:
    mail = lab.nics["mail"]
    packet = udp(family, LIBRARY[family], lab.address("mail", family))
    ether = Ether(src=MACS["library"], dst=format_mac(mail.mac))
    before = lab.drops()
    for vlans in ((), (30,), (110, 120), (0,)):
        frame = ether
        for tag in vlans:
            frame = frame / Dot1Q(vlan=tag)
        lab.campus.send(bytes(frame / packet))
    after = lab.drops()
    new = {reason: count - before.get(reason, 0) for reason, count in after.items()}
    assert sum(new.values()) >= 4
    assert new[DropReason.VLAN_NOT_ALLOWED] >= 3, new
    assert lab.do(lab.engine.fabric("small").parts.switch.drops_by_nic())["uplink:trunk"] >= 4


@both
def test_nobody_on_the_campus_is_taken_for_a_vm(lab: Lab, family: int) -> None:
    mail, desk = lab.nics["mail"], lab.nics["desk-1"]
    before = lab.drops()
    for source, address, vlan in (
        (format_mac(mail.mac), LIBRARY[family], 120),
        (MACS["library"], lab.address("mail", family), 120),
        (MACS["library"], lab.address("desk-1", family), 120),
    ):
        frame = Ether(src=source, dst=format_mac(mail.mac)) / Dot1Q(vlan=vlan)
        lab.campus.send(bytes(frame / udp(family, address, lab.address("mail", family))))
    after = lab.drops()
    assert after[DropReason.SPOOF_MAC] == before.get(DropReason.SPOOF_MAC, 0) + 1
    assert after[DropReason.SPOOF_IP] == before.get(DropReason.SPOOF_IP, 0) + 2
    assert desk.vlan != mail.vlan


@both
def test_super_packets_leave_tagged_and_whole_and_are_seen_so(lab: Lab, family: int) -> None:
    """20 MB each way: from a VM to the campus, and back."""
    desk, mail = lab.address("desk-1", family), lab.address("mail", family)
    with seen(lab) as records:
        with serving(lab.campus.name("printer"), family, 631):
            assert told(lab.guest("desk-1"), desk, PRINTER[family], 631, 20 << 20) == f"631 {20 << 20}"
        with serving(lab.guest("mail"), family, 443):
            library = lab.campus.name("library")
            assert told(library, LIBRARY[family], mail, 443, 20 << 20) == f"443 {20 << 20}"
    for point, vlan in ((Point.UPLINK_OUT, 110), (Point.UPLINK_IN, 120)):
        large = [each for each in records if each.point is point and each.gso_size]
        assert large and max(each.original_length for each in large) > 20000
        assert {each.data[12:16] for each in large} == {b"\x81\x00" + vlan.to_bytes(2, "big")}
        assert {each.nic for each in large} == {"uplink:trunk"}


@contextmanager
def seen(lab: Lab) -> Iterator[list[PacketRecord]]:
    """What comes in and leaves by the uplink during the body."""
    fabric, records, begun = lab.engine.fabric("small"), [], threading.Event()
    assert fabric.declared
    ports = uplink_ports(fabric.declared, ("uplink:trunk",))
    wanted = Wanted(frozenset(), points(("uplink",)), snaplen_bytes=64, uplinks=ports)

    async def watch() -> None:
        async with fabric.parts.switch.watch.subscribed(wanted) as subscription:
            begun.set()
            async for record in subscription.records():
                if isinstance(record, PacketRecord):
                    records.append(record)

    watching = asyncio.run_coroutine_threadsafe(watch(), lab.loop)
    assert begun.wait(10)
    try:
        yield records
        time.sleep(0.2)
    finally:
        watching.cancel()


@both
def test_traffic_goes_on_while_no_daemon_runs(lab: Lab, family: int) -> None:
    library, mail = lab.campus.name("library"), lab.address("mail", family)
    command = f"ping -c 30 -i 0.05 -W 2 -I {LIBRARY[family]} {mail}"
    with ThreadPoolExecutor(1) as beside:
        pinging = beside.submit(run, library, command)
        time.sleep(0.3)
        lab.do(lab.engine.close())
        time.sleep(0.3)
        lab.do(lab.begin())
        assert " 30 received" in pinging.result().stdout
    assert lab.engine.fabric("small").trouble == ""
    assert lab.do(lab.engine.up(Source("campus.vnet.yaml", TEXT), silent)).actions == ()
