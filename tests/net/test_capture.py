"""Captures end to end on a real fabric: packets of two guests, the files that come of them."""

from __future__ import annotations

import asyncio
import os
import struct
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.net.fabric_lab import NETNS, host, make_engine
from tests.unit.capture.blocks import Block, read
from tests.unit.fabric.fakes import World
from vnet.base.errors import InputError
from vnet.fabric.live import captures
from vnet.fabric.live.captures import CaptureRequest
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.switch.abi import PortFlag

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24]}
  other: {vlan: 20, subnets: [10.1.0.0/24]}
vms:
  a: {networks: [lan, other], groups: [a]}
  b: {networks: [lan], groups: [b]}
  c: {networks: [other], groups: [b]}
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [80/tcp]}]}
"""
CHANGED = TEXT.replace("[80/tcp]", "[81/tcp]").replace("b-from-a", "renamed")


@dataclass
class Captured:
    """The output of one capture, and what it said at its end."""

    output: bytes = b""
    summary: dict[str, Any] = field(default_factory=dict)

    @property
    def packets(self) -> list[tuple[str, str]]:
        """(interface, first comment) of each packet."""
        blocks = read(self.output)
        names = [block.option(2).decode() for block in blocks if block.kind == 1]
        return [
            (names[int.from_bytes(block.fixed[:4], "little")], comments(block)[0])
            for block in blocks
            if block.kind == 6
        ]

    @property
    def seen(self) -> Counter[tuple[str, str]]:
        """(interface, verdict) of the packets."""
        return Counter((name, comment.split(" (")[0].split(" — ")[0]) for name, comment in self.packets)


def comments(block: Block) -> list[str]:
    return [value.decode() for code, value in block.options if code == 1]


class Lab:
    def __init__(self, engine: Engine) -> None:
        self.engine, self.service = engine, Service(engine)
        self.taps: dict[str, int] = {}

    def frame(self, sender: str, receiver: str, port: int, **more: Any) -> Ether:
        """A SYN from one NIC to another."""
        declared = self.engine.fabric("small").declared
        assert declared is not None
        one, other = (
            next(nic for nic in declared.inventory.nics if nic.name == name) for name in (sender, receiver)
        )
        link = Ether(src=mac(one.mac), dst=mac(other.mac))
        ends = {"src": str(one.addresses[0].ip), "dst": str(other.addresses[0].ip)}
        return link / IP(**(ends | more)) / TCP(sport=40_000, dport=port)

    def send(self, nic: str, frame: Ether | bytes, gso_size: int = 0) -> None:
        """As QEMU writes it: a virtio-net header first."""
        if nic not in self.taps:
            self.taps[nic] = HostNetwork(NETNS).open_tap(nic)
        header = struct.pack("<BBHHHH", 1, 1, 54, gso_size, 34, 16) if gso_size else bytes(10)
        os.write(self.taps[nic], header + bytes(frame))

    @asynccontextmanager
    async def capturing(self, **request: Any) -> AsyncIterator[Captured]:
        """A capture that begins before the body and is ended by Ctrl-C after it."""
        captured = Captured()
        produce = captures.capture(
            self.service.engine, "small", CaptureRequest(**request), captured.summary.update
        )
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        task = asyncio.ensure_future(produce(blocks))
        captured.output += await blocks.get() or b""
        yield captured
        await asyncio.sleep(0.2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        while not blocks.empty():
            captured.output += blocks.get_nowait() or b""


def mac(number: int) -> str:
    return number.to_bytes(6, "big").hex(":")


def living(life: Callable[[Lab], Awaitable[None]]) -> None:
    async def whole(directory: Path) -> None:
        lab = Lab(make_engine(directory, World()))
        await lab.engine.up(Source("small.vnet.yaml", TEXT), silent)
        try:
            await life(lab)
        finally:
            for tap in lab.taps.values():
                os.close(tap)
            await lab.engine.down("small", silent)
            await lab.engine.close()

    with host() as directory:
        asyncio.run(whole(directory))


def test_each_point_has_what_came_so_far_with_what_became_of_it() -> None:
    async def life(lab: Lab) -> None:
        points = ("guest,after-guards", "after-policy", "delivered")
        async with lab.capturing(points=points) as captured:
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80))
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 22))
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80, src="10.0.0.77"))
        assert captured.seen == {
            ("a.eth0/guest", "passed"): 1,
            ("a.eth0/guest", "dropped: POLICY"): 1,
            ("a.eth0/guest", "dropped: SPOOF_IP"): 1,
            ("a.eth0/after-guards", "passed"): 1,
            ("a.eth0/after-guards", "dropped: POLICY"): 1,
            ("a.eth0/after-policy", "passed"): 1,
            ("b.eth0/delivered", "delivered"): 1,
        }
        passed = dict(captured.packets)["b.eth0/delivered"]
        assert "policy b-from-a" in passed and "small.vnet.yaml:10" in passed
        assert "ct_state=+trk+new" in passed and "generation 1" in passed
        assert captured.summary == {"seen": 4, "matched": 4, "kept": 7, "lost": 0}

    living(life)


def test_what_did_not_come_to_a_point_does_not_leave_the_kernel() -> None:
    async def life(lab: Lab) -> None:
        async with lab.capturing(points=("after-policy",)) as captured:
            for port in (80, 22):
                lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", port))
        assert captured.seen == {("a.eth0/after-policy", "passed"): 1}
        assert captured.summary == {"seen": 1, "matched": 1, "kept": 1, "lost": 0}

    living(life)


def test_a_packet_that_is_lost_behind_the_rules_is_told_again_as_lost() -> None:
    async def life(lab: Lab) -> None:
        async with lab.capturing() as captured, lab.capturing(only_dropped=True) as dropped:
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80) / Raw(bytes(1600)))
        assert captured.seen == {("a.eth0/guest", "passed"): 1, ("a.eth0/guest", "dropped: MTU"): 1}
        assert dropped.seen == {("a.eth0/guest", "dropped: MTU"): 1}

    living(life)


def test_filters_run_in_the_kernel_and_several_captures_do_not_mix() -> None:
    async def life(lab: Lab) -> None:
        async with (
            lab.capturing(filter="tcp dst port 80", nics=("a",)) as web,
            lab.capturing(filter="tcp dst port 22", snaplen_bytes=20) as ssh,
            lab.capturing(networks=("other",)) as other,
        ):
            for port in (80, 22, 22, 443):
                lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", port))
            lab.send("c.eth0", lab.frame("c.eth0", "a.eth1", 80))
        assert web.seen == {("a.eth0/guest", "passed"): 1}
        assert web.summary == {"seen": 4, "matched": 1, "kept": 1, "lost": 0}
        assert ssh.seen == {("a.eth0/guest", "dropped: POLICY"): 2}
        assert {len(block.data) for block in read(ssh.output) if block.kind == 6} == {20}
        assert other.seen == {("c.eth0/guest", "dropped: POLICY"): 1}
        switch = lab.engine.fabric("small").parts.switch
        assert switch.watch.taps == {}

    living(life)


def test_what_is_dropped_is_captured_everywhere_and_what_passes_pays_nothing() -> None:
    async def life(lab: Lab) -> None:
        datapath = lab.engine.fabric("small").parts.switch._datapath  # type: ignore[attr-defined]
        async with lab.capturing(only_dropped=True) as captured:
            flags = [datapath._ports._port(number).flags for number in datapath._ports.ifindexes]
            assert all(flag & PortFlag.CAPTURE_DROPS and not flag & PortFlag.CAPTURE for flag in flags)
            assert datapath._control[3] == 0, "no port is captured"
            for port in (80, 22):
                lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", port))
            lab.send("c.eth0", lab.frame("c.eth0", "a.eth1", 80))
        assert captured.seen == {
            ("a.eth0/guest", "dropped: POLICY"): 1,
            ("c.eth0/guest", "dropped: POLICY"): 1,
        }

    living(life)


def test_a_capture_goes_on_over_a_change_and_names_the_rules_that_decided() -> None:
    async def life(lab: Lab) -> None:
        async with lab.capturing(nics=("b",)) as captured:
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80))
            await lab.engine.up(Source("small.vnet.yaml", CHANGED), silent)
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 81))
        told = [comment for _, comment in captured.packets]
        assert ["b-from-a" in told[0], "generation 1)" in told[0]] == [True, True], told
        assert ["renamed" in told[1], "generation 2)" in told[1]] == [True, True], told

    living(life)


def test_what_the_kernel_has_no_room_for_is_counted_and_told() -> None:
    async def life(lab: Lab) -> None:
        async with lab.capturing(nics=("a.eth0",)) as captured, lab.capturing(nics=("c",)) as other:
            large = lab.frame("a.eth0", "b.eth0", 80) / Raw(bytes(1200))
            for _ in range(6000):  # the daemon, which is this process, reads nothing meanwhile
                lab.send("a.eth0", large)
        kept, lost = captured.summary["kept"], captured.summary["lost"]
        assert lost > 0 and kept > 0
        assert kept + lost == captured.summary["matched"] == 6000
        blocks = read(captured.output)
        told = [int.from_bytes(block.option(7), "little") for block in blocks if block.kind == 5]
        assert sum(told) == lost
        assert other.summary == {"seen": 0, "matched": 0, "kept": 0, "lost": 0}

    living(life)


def test_packets_that_the_guest_leaves_whole_are_marked() -> None:
    async def life(lab: Lab) -> None:
        async with lab.capturing() as captured:
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80) / Raw(bytes(14_600)), gso_size=1460)
            lab.send("a.eth0", lab.frame("a.eth0", "b.eth0", 80))
        told = [comments(block)[1:] for block in read(captured.output) if block.kind == 6]
        assert told == [["segmentation offload: 10 segments of 1,460 bytes"]] * 2 + [[]] * 2

    living(life)


def test_what_cannot_be_captured_is_refused_with_what_could_be() -> None:
    async def life(lab: Lab) -> None:
        for request, words in (
            ({"points": ("uplink",)}, "the fabric small has no uplink"),
            ({"networks": ("wan",)}, "no network wan in fabric small; its networks: lan, other"),
            ({"nics": ("x",)}, "no VM or NIC x"),
            ({"filter": "tcp prot 3"}, "syntax error"),
            ({"points": ("delivered",), "only_dropped": True}, "leave away --dropped"),
        ):
            with pytest.raises(InputError, match=words):
                captures.capture(lab.service.engine, "small", CaptureRequest(**request), print)

    living(life)


def test_a_capture_ends_with_its_fabric() -> None:
    async def life(lab: Lab) -> None:
        summary: dict[str, Any] = {}
        produce = captures.capture(lab.service.engine, "small", CaptureRequest(nics=("a",)), summary.update)
        task = asyncio.ensure_future(produce(asyncio.Queue()))
        await asyncio.sleep(0.2)
        await lab.engine.down("small", silent)
        async with asyncio.timeout(5):
            await task
        assert summary["kept"] == 0 == summary["lost"]

    living(life)
