"""The controller drives a real Open vSwitch: differences only, kept up over a restart of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.ovs import OpenVSwitch, why_not
from tests.waiting import until_async
from vnet.base.errors import TimedOut
from vnet.openflow import cookie, message
from vnet.openflow.codec import decode
from vnet.openflow.flow import (
    Conntrack,
    Flow,
    Instructions,
    Match,
    Move,
    Output,
    OutputField,
    PopVlan,
    PushVlan,
    SetField,
    match,
)
from vnet.openflow.frame import Splitter
from vnet.policy.live.controller import ApplyRefused, Controller
from vnet.policy.session import Applied

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

MINE = cookie.make("test")


def flow(table: int, priority: int, wanted: Match, *apply: object, goto: int | None = None) -> Flow:
    return Flow(table, priority, wanted, Instructions(apply=apply, goto=goto), cookie=MINE)  # type: ignore[arg-type]


FLOWS = (
    flow(0, 100, match(in_port=1, vlan_vid=0), PushVlan(), SetField("vlan_vid", 0x100A), goto=1),
    flow(1, 90, match(in_port=1, eth_src=0x020000000001, eth_type=0x800, ipv4_src=0x0A000001), goto=3),
    flow(1, 90, match(eth_type=0x86DD, ipv6_src=(0xFD << 120, 0xFF << 120)), SetField("reg0", 7), goto=3),
    flow(3, 50, match(eth_type=0x800, vlan_vid=0x100A), SetField("reg2", 2), Conntrack(zone=10, table=4)),
    flow(4, 2, match(eth_type=0x800, ip_proto=6, ct_state=(0x20, 0x28)), Move("tcp_dst", "reg3", 16), goto=5),
    flow(5, 10, match(reg0=7, reg1=(0, 0xFF)), SetField("reg4", 0x50, 0xF0), goto=6),
    flow(5, 5, match(), Output(0xFFFFFFFD, 128)),
    flow(6, 1, Match()),
    flow(7, 1, match(eth_type=0x800, vlan_vid=0x100A, ct_state=(0x21, 0x29)),
         Conntrack(zone=10, commit=True, mark=(3, 0xF)), PopVlan(), OutputField("reg2")),
)  # fmt: skip
"""One flow of each shape that the policy pipeline has."""


@pytest.fixture(scope="module")
def running() -> Iterator[OpenVSwitch]:
    with OpenVSwitch() as switch:
        switch.add_port("p1", 1)
        switch.add_port("p2", 2)
        yield switch


@pytest.fixture
def ovs(running: OpenVSwitch) -> OpenVSwitch:
    running.delete_flows()
    return running


@dataclass(slots=True)
class Tap:
    """A socket in between that notes what the controller sends, and can hang up."""

    path: Path
    sent: list[message.Message] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    def flow_mods(self) -> list[message.FlowMod]:
        adds = (what.message for what in self.sent if isinstance(what, message.BundleAdd))
        direct = (what for what in self.sent if isinstance(what, message.FlowMod))
        return [mod for mod in (*adds, *direct) if isinstance(mod, message.FlowMod)]

    def hang_up(self) -> None:
        for writer in self.writers:
            writer.close()
        self.writers.clear()


@asynccontextmanager
async def tapped(target: Path, path: Path) -> AsyncIterator[Tap]:
    tap = Tap(path)

    async def carry(
        reader: asyncio.StreamReader, writer: asyncio.StreamWriter, splitter: Splitter | None
    ) -> None:
        while data := await reader.read(65536):
            tap.sent += [decode(raw)[1] for raw in splitter.feed(data)] if splitter is not None else []
            writer.write(data)
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(target)
        tap.writers += [writer, back]
        await asyncio.gather(
            carry(reader, back, Splitter()), carry(there, writer, None), return_exceptions=True
        )

    server = await asyncio.start_unix_server(serve, path)
    try:
        yield tap
    finally:
        server.close()
        tap.hang_up()


def run(test: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test()

    asyncio.run(bounded())


def test_one_changed_flow_is_one_flow_mod(ovs: OpenVSwitch, tmp_path: Path) -> None:
    async def test() -> None:
        async with tapped(ovs.socket, tmp_path / "tap") as tap:
            controller = Controller(tap.path)
            await controller.connect()
            try:
                assert await controller.apply(FLOWS) == Applied(1, added=len(FLOWS))
                tap.sent.clear()
                changed = replace(FLOWS[5], instructions=Instructions(goto=7))
                wanted = (*FLOWS[:5], changed, *FLOWS[6:])
                assert await controller.apply(wanted) == Applied(2, changed=1)
                assert [mod.flow.key for mod in tap.flow_mods()] == [changed.key]
                assert set(await controller.read_flows()) == set(wanted)
            finally:
                await controller.close()

    run(test)


def test_flows_that_open_vswitch_returns_equal_those_sent(ovs: OpenVSwitch, tmp_path: Path) -> None:
    async def test() -> None:
        async with tapped(ovs.socket, tmp_path / "tap") as tap:
            controller = Controller(tap.path)
            await controller.connect()
            try:
                await controller.apply(FLOWS)
                tap.sent.clear()
                assert await controller.apply(FLOWS) == Applied(2)
                assert [type(what) for what in tap.sent] == [message.FlowStatsRequest]
            finally:
                await controller.close()

    run(test)


def test_after_a_lost_connection_only_what_differs_is_sent(ovs: OpenVSwitch, tmp_path: Path) -> None:
    async def test() -> None:
        async with tapped(ovs.socket, tmp_path / "tap") as tap:
            controller = Controller(tap.path)
            await controller.connect()
            try:
                await controller.apply(FLOWS)
                tap.hang_up()
                await until_async(lambda: not controller.connected)
                ovs.ofctl("del-flows", "table=6")
                tap.sent.clear()
                await until_async(lambda: controller.connected and bool(tap.flow_mods()))
                assert set(await controller.read_flows()) == set(FLOWS)
                assert [mod.flow.table for mod in tap.flow_mods()] == [6]
            finally:
                await controller.close()

    run(test)


def test_flows_of_others_stay_and_ours_go(ovs: OpenVSwitch) -> None:
    async def test() -> None:
        ovs.add_flow_lines(["cookie=0x5,table=0,priority=9,in_port=2,actions=drop"])
        controller = Controller(ovs.socket)
        await controller.connect()
        await controller.apply(FLOWS)
        assert await controller.apply(()) == Applied(2, removed=len(FLOWS))
        await controller.close()
        assert ovs.dump_flows() == ["cookie=0x5, priority=9,in_port=2 actions=drop"]

    run(test)


def test_a_bundle_with_one_refused_flow_changes_nothing(ovs: OpenVSwitch) -> None:
    async def test() -> None:
        controller = Controller(ovs.socket)
        await controller.connect()
        await controller.apply(FLOWS[:2])
        bad = flow(2, 1, match(eth_type=0x806), Conntrack(zone=1, table=3))
        with pytest.raises(ApplyRefused, match=r"BAD_ACTION code 10 .table 2, priority 1."):
            await controller.apply((*FLOWS[2:], bad))
        assert set(await controller.read_flows()) == set(FLOWS[:2])
        assert await controller.apply(FLOWS) == Applied(3, added=len(FLOWS) - 2)
        await controller.close()

    run(test)


def test_no_switch_is_told_with_the_reason(tmp_path: Path) -> None:
    async def test() -> None:
        controller = Controller(tmp_path / "nobody.sock")
        with pytest.raises(TimedOut, match=r"no switch at .*nobody.sock in 0.3 s: .*No such file"):
            await controller.connect(timeout_s=0.3)

    run(test)
