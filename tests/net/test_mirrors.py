"""Mirrors on a real fabric: copies to a NIC, into files, to another machine, over restarts of the daemon."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import UDP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.bpf.bench import sh
from tests.net.fabric_lab import NETNS, PREFIX, host, make_engine
from tests.net.test_capture import Lab
from tests.unit.capture.blocks import read
from tests.unit.fabric.fakes import World
from tests.waiting import until
from vnet.base import paths
from vnet.base.errors import HostError, InputError
from vnet.capture.ring import earlier_files
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.switch.live.netns import inside

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24]}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
  ids: {interfaces: {eth0: {network: lan}, span0: {mirror_only: true}}}
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [80/tcp, 53/udp]}]}
"""
TO_NIC = TEXT + 'mirrors: {span: {source: "a:eth0", to: "ids:span0", filter: tcp}}\n'
TO_FILE = TEXT + 'mirrors: {disk: {source: "network:lan", to: "pcap:lan.pcapng", snaplen: 60}}\n'
TO_VXLAN = TEXT + 'mirrors: {far: {source: "b:eth0", direction: in, to: "vxlan:192.0.2.2/77"}}\n'
TO_ERSPAN = TEXT + 'mirrors: {far: {source: "b:eth0", to: "erspan:192.0.2.2/7"}}\n'
UNDERLAY, COLLECTOR = f"{PREFIX}underlay", f"{PREFIX}collector"


def living(
    text: str, life: Callable[[Lab, Callable[[], Awaitable[None]]], Awaitable[None]], **more: Any
) -> None:
    """A fabric, and what replaces its daemon by a new one."""

    async def whole(directory: Path) -> None:
        world = World()
        lab = Lab(make_engine(directory, world, **more))

        async def restart() -> None:
            await lab.engine.close()
            fresh = Lab(make_engine(directory, world, **more))
            lab.engine, lab.service = fresh.engine, fresh.service
            await lab.engine.adopt()
            assert lab.engine.fabric("small").trouble == ""

        await lab.engine.up(Source("small.vnet.yaml", text), silent)
        try:
            await life(lab, restart)
        finally:
            for tap in lab.taps.values():
                os.close(tap)
            await lab.engine.down("small", silent)
            await lab.engine.close()

    with host() as directory:
        asyncio.run(whole(directory))


@contextmanager
def listening(nic: str) -> Iterator[Callable[[], list[bytes]]]:
    """What arrives at a NIC, as its VM reads it; without the virtio-net header."""
    tap = HostNetwork(NETNS).open_tap(nic)
    link = ["ip", "-n", NETNS, "link", "show", "dev", nic]
    # until then the kernel throws away what is sent there
    until(lambda: "state UP" in subprocess.run(link, capture_output=True, text=True, check=True).stdout)

    def arrived() -> list[bytes]:
        frames = []
        with suppress(BlockingIOError):
            while True:
                frames.append(os.read(tap, 65600)[10:])
        return frames

    try:
        yield arrived
    finally:
        os.close(tap)


def test_a_nic_gets_copies_of_what_was_asked_for_and_nothing_else() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        with listening("ids.span0") as arrived, listening("b.eth0") as received:
            allowed, denied = lab.frame("a.eth0", "b.eth0", 80), lab.frame("a.eth0", "b.eth0", 22)
            datagram = lab.frame("a.eth0", "b.eth0", 1)
            datagram.payload.remove_payload()
            datagram.payload.proto = 17
            lab.send("a.eth0", allowed)
            lab.send("a.eth0", denied)
            lab.send("a.eth0", datagram / UDP(sport=5, dport=53))
            assert [bytes(Ether(each)) for each in arrived()] == [bytes(allowed), bytes(denied)]
            assert len(received()) == 2, "copies take nothing from who is copied"
        counts = (await lab.service.inspect("small"))["mirrors"]
        assert [(each["name"], each["seen"], each["matched"], each["lost"]) for each in counts] == [
            ("span", 3, 2, 0)
        ]

    living(TO_NIC, life)


def test_what_a_listening_nic_sends_is_dropped() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        with listening("b.eth0") as received:
            lab.send("ids.span0", lab.frame("ids.eth0", "b.eth0", 80))
            assert received() == []
        counts = await lab.engine.fabric("small").parts.switch.drop_counts()
        assert {reason.name for reason in counts} == {"PORT_CLOSED"}

    living(TO_NIC, life)


def test_the_kernel_goes_on_copying_without_a_daemon_and_the_next_one_takes_over() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        frame = lab.frame("a.eth0", "b.eth0", 80)
        with listening("ids.span0") as arrived:
            await lab.engine.close()
            lab.send("a.eth0", frame)
            assert len(arrived()) == 1
            await restart()
            lab.send("a.eth0", frame)
            assert len(arrived()) == 1
            watch = lab.engine.fabric("small").parts.switch.watch
            assert len(watch.taps) == 1 and not watch.left
            assert (await lab.engine.up(Source("small.vnet.yaml", TO_NIC), silent)).actions == ()
            outcome = await lab.engine.up(Source("small.vnet.yaml", TEXT), silent)
            assert [str(action) for action in outcome.actions] == ["end mirror span"]
            lab.send("a.eth0", frame)
            assert arrived() == []

    living(TO_NIC, life)


def files() -> list[list[int]]:
    """The lengths of the packets in each file of the mirror."""
    found = earlier_files(paths.mirror_dir("small") / "lan.pcapng")
    return [[len(block.data) for block in read(each.read_bytes()) if block.kind == 6] for _, each in found]


def tshark(file: str) -> str:
    """The comments of a file's packets."""
    command = ["tshark", "-r", file, "-T", "fields", "-e", "frame.comment"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_a_file_goes_on_in_the_next_one_after_a_restart() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        frame = lab.frame("a.eth0", "b.eth0", 80) / Raw(bytes(500))
        for expected in ([[60]], [[60], [60]]):
            lab.send("a.eth0", frame)
            await asyncio.sleep(0.2)
            assert files() == expected, "a packet of a network is kept once, and cut"
            if len(expected) == 1:
                await restart()
        first = str(earlier_files(paths.mirror_dir("small") / "lan.pcapng")[0][1])
        comment = await asyncio.to_thread(tshark, first)
        assert "policy b-from-a" in comment and "generation 1" in comment

    living(TO_FILE, life)


@contextmanager
def another_machine() -> Iterator[socket.socket]:
    """A machine behind a wire from the namespace that is the daemon's here; its socket for VXLAN."""
    for name in (UNDERLAY, COLLECTOR):
        sh(f"ip netns add {name}")
    try:
        sh(f"ip -n {UNDERLAY} link add w0 type veth peer name w1 netns {COLLECTOR}")
        for name, end, address in ((UNDERLAY, "w0", "192.0.2.1/24"), (COLLECTOR, "w1", "192.0.2.2/24")):
            sh(f"ip -n {name} address add {address} dev {end}")
            sh(f"ip -n {name} link set {end} up")
        with inside(COLLECTOR):
            receiver = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        receiver.bind(("192.0.2.2", 4789))
        receiver.settimeout(5)
        with receiver:
            yield receiver
    finally:
        for name in (UNDERLAY, COLLECTOR):
            sh(f"ip netns del {name}")


def test_copies_reach_another_machine_in_vxlan_also_after_a_restart() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        frame = lab.frame("a.eth0", "b.eth0", 80)
        for _ in range(2):
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 22))
            lab.send("a.eth0", frame)
            datagram = await asyncio.to_thread(receiver.recv, 2000)
            assert struct.unpack("!I", datagram[4:8])[0] >> 8 == 77
            assert datagram[8:] == bytes(frame), "only what b was handed"
            await restart()
        links = await lab.engine.fabric("small").parts.network.interfaces()
        assert links["+far"] == "vxlan"
        outcome = await lab.engine.up(Source("small.vnet.yaml", TEXT), silent)
        assert [str(action) for action in outcome.actions] == ["end mirror far"]
        assert "+far" not in await lab.engine.fabric("small").parts.network.interfaces()

    with another_machine() as receiver:
        living(TO_VXLAN, life, underlay=UNDERLAY)


def test_a_mirror_that_changes_is_planned_in_words_and_put_in_force() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        outcome = await lab.engine.up(
            Source("small.vnet.yaml", TO_NIC.replace("filter: tcp", "filter: udp")), silent
        )
        assert [str(action) for action in outcome.actions] == [
            'mirror span: "udp" a:eth0 to ids:span0',
        ]
        with listening("ids.span0") as arrived:
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80))
            assert arrived() == []

    living(TO_NIC, life)


def test_a_filter_that_libpcap_refuses_changes_nothing() -> None:
    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(InputError, match=r"mirrors.span.filter: .*syntax error"):
            await lab.engine.up(
                Source("small.vnet.yaml", TO_NIC.replace("filter: tcp", "filter: tcp prot")), silent
            )
        assert (await lab.engine.up(Source("small.vnet.yaml", TEXT), silent)).actions == ()

    living(TEXT, life)


def test_what_this_kernel_lacks_is_refused_in_words_and_undone() -> None:
    command = "unshare -n ip link add x type erspan seq key 1 remote 192.0.2.1 erspan_ver 1"
    if subprocess.run(command.split(), capture_output=True).returncode == 0:
        pytest.skip("this kernel has ERSPAN")

    async def life(lab: Lab, restart: Callable[[], Awaitable[None]]) -> None:
        with pytest.raises(HostError, match=r"(?s)this kernel has no erspan devices.*as it was before"):
            await lab.engine.up(Source("small.vnet.yaml", TO_ERSPAN), silent)

    living(TEXT, life)
