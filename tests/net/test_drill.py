"""`vnet drill` on the real kernel, without guests: a fabric's twin, and holes made on purpose."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests import leftovers
from tests.unit.drill.slow import OPEN, ROOT
from tests.unit.fabric.fakes import FakeGuests, World
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.drill.groups import CONTROL, GROUPS
from vnet.fabric.live import netns, twin
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.host import uptime_s
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.service import Service
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.live.wiring import tidy
from vnet.fabric.progress import Progress, Status, silent
from vnet.fabric.store import Source
from vnet.openflow import cookie
from vnet.openflow.flow import Flow, Instructions, Output, match
from vnet.policy.pipeline import Stage

THREE_TIER = (ROOT / "topologies" / "three-tier.vnet.yaml").read_text(encoding="utf-8")
PREFIX, PINS = leftovers.prefix("drl"), leftovers.pins("drl")
Row = dict[str, Any]


@pytest.fixture
def service(monkeypatch):
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    monkeypatch.setenv("VNET_RUN_DIR", str(made / "run"))
    monkeypatch.setenv("VNET_STATE_DIR", str(made / "state"))
    monkeypatch.setenv("VNET_BPF_DIR", str(PINS))
    monkeypatch.setenv("VNET_NETNS_PREFIX", PREFIX)

    def parts(fabric: str) -> Parts:
        return Parts(HostNetwork(f"{PREFIX}{fabric}"), HostSwitch(fabric), FakeGuests(World(), fabric))

    now = partial(datetime.now, UTC)
    host = Host(lambda: None, lambda: 8 << 30, lambda: "boot", tidy, now, uptime_s)
    yield Service(Engine(SqliteStore(made / "state" / "vnet.db"), parts, host, lambda declared: ()))
    left = spaces() + (sorted(PINS.iterdir()) if PINS.exists() else [])
    for space in spaces():
        netns.remove(space)
    shutil.rmtree(PINS, ignore_errors=True)
    shutil.rmtree(made)
    assert not left


def spaces() -> list[str]:
    return [path.name for path in twin.NETNS_DIR.glob(f"{PREFIX}*")]


def while_up(service: Service, text: str, work: Callable[[str], Awaitable[None]]) -> None:
    """Bring a fabric up, do something, take it down."""

    async def life() -> None:
        name = (await service.engine.up(Source("drilled.vnet.yaml", text), silent)).fabric
        try:
            await work(name)
        finally:
            await service.engine.down(name, silent)
            await service.engine.close()

    asyncio.run(life())


def with_outcome(rows: list[Row], outcome: str) -> set[str]:
    return {row["attack"] for row in rows if row["outcome"] == outcome}


@pytest.mark.parametrize("vm", ["web-1", "app", "intruder"])
def test_nothing_gets_through_a_three_tier_fabric_and_the_controls_arrive(service, vm: str) -> None:
    async def work(name: str) -> None:
        rows = await service.drill(name, vm, (), silent)
        assert [row for row in rows if row["outcome"] in ("got through", "lost")] == []
        nics = {row["nic"] for row in rows}
        assert len(nics) == (1 if vm == "web-1" else 2)
        for nic in nics:
            own = [row for row in rows if row["nic"] == nic]
            assert "ARP request" in with_outcome(own, "arrived")
            assert len(with_outcome(own, "stopped")) > 250
            assert {row["group"] for row in own} == {CONTROL, *GROUPS}
        assert all(row["by"] for row in rows if row["outcome"] != "arrived"), rows

    while_up(service, THREE_TIER, work)


def test_where_all_is_open_the_guards_stop_all_and_the_quota_all_that_exceeds_it(service) -> None:
    async def work(name: str) -> None:
        rows = await service.drill(name, "a", (), silent)
        assert with_outcome(rows, "got through") == with_outcome(rows, "lost") == set()
        assert len(with_outcome(rows, "arrived")) == 8
        (flood,) = (row for row in rows if row["attack"] == "connections beyond the quota")
        assert flood["reasons"].keys() == {"CT_QUOTA"} and flood["passed"] == flood["sent"] - 256

    while_up(service, OPEN, work)


REJECTING = OPEN.replace("ingress: [{from: any}]", "ingress: [{from: any, action: reject}]")


def test_what_is_rejected_and_answered_got_through_to_nobody(service) -> None:
    async def work(name: str) -> None:
        rows = await service.drill(name, "a", (), silent)
        assert with_outcome(rows, "got through") == with_outcome(rows, "lost") == set()
        assert any("REJECTED" in row["reasons"] for row in rows)

    while_up(service, REJECTING, work)


def test_the_line_of_the_file_that_stopped_an_attack_is_named(service) -> None:
    async def work(name: str) -> None:
        rows = {row["attack"]: row for row in await service.drill(name, "web-1", ("mac", "tcp"), silent)}
        stolen = rows["a neighbour's MAC, own IPv4"]
        assert stolen["reasons"] == {"SPOOF_MAC": 1} and "drilled.vnet.yaml:7" in stolen["by"]
        assert {row["group"] for row in rows.values()} == {CONTROL, "mac", "tcp"}

    while_up(service, THREE_TIER, work)


def test_the_fabric_itself_notices_nothing(service) -> None:
    async def work(name: str) -> None:
        switch = service.engine.fabric(name).parts.switch
        before = await switch.flows(), await switch.drop_counts(), await switch.ports()
        await service.drill(name, "web-1", ("arp", "tcp", "flood"), silent)
        assert (await switch.flows(), await switch.drop_counts(), await switch.ports()) == before
        assert spaces() == [f"{PREFIX}{name}"]

    while_up(service, THREE_TIER, work)


# -- holes made on purpose: what is drilled is what is in force, not what the file says --------------


async def changed(service: Service, name: str, put: set[Flow], remove: set[Flow]) -> None:
    await service.engine.fabric(name).parts.switch.change(frozenset(put), frozenset(remove))


def test_with_the_guard_against_servers_removed_their_offers_get_through(service) -> None:
    async def work(name: str) -> None:
        flows = await service.engine.fabric(name).parts.switch.flows()
        guard = {flow for flow in flows if cookie.reason(flow.cookie) is DropReason.ROGUE_DHCP}
        await changed(service, name, set(), guard)
        rows = await service.drill(name, "a", ("dhcp",), silent)
        found = with_outcome(rows, "got through")
        assert {"offer as a server", "offer from another port", "DHCPv6 reply"} <= found
        (offer,) = (row for row in rows if row["attack"] == "offer as a server")
        assert (offer["sent"], offer["passed"], offer["arrived"]) == (2, 1, {"b.eth0": 1})

    while_up(service, OPEN, work)


def test_with_a_flow_that_believes_arp_poison_gets_through(service) -> None:
    async def work(name: str) -> None:
        fabric = service.engine.fabric(name)
        port = next(nic.port for nic in fabric.declared.inventory.nics if nic.name == "web-1.eth0")
        where = match(in_port=port, eth_type=0x0806)
        hole = Flow(1, 900, where, Instructions(goto=int(Stage.NEIGHBOUR)), cookie.make("hole"))
        await changed(service, name, {hole}, set())
        rows = await service.drill(name, "web-1", ("arp", "ipv4"), silent)
        found = {row["attack"] for row in rows if row["outcome"] == "got through"}
        assert {"a reply as the gateway", "gratuitous ARP as a neighbour"} <= found
        assert {row["group"] for row in rows if row["outcome"] == "got through"} == {"arp"}

    while_up(service, THREE_TIER, work)


def test_a_port_without_rules_stops_all_and_loses_the_controls(service) -> None:
    async def work(name: str) -> None:
        flows = await service.engine.fabric(name).parts.switch.flows()
        dead = {flow for flow in flows if flow.table == Stage.ADMIT and flow.match.entries}
        await changed(service, name, set(), dead)
        rows = await service.drill(name, "web-1", ("arp",), silent)
        assert with_outcome(rows, "got through") == with_outcome(rows, "arrived") == set()
        assert "ARP request" in with_outcome(rows, "lost")

    while_up(service, THREE_TIER, work)


def test_what_is_sent_to_a_port_that_nobody_stands_in_for_got_through(service) -> None:
    async def work(name: str) -> None:
        fabric = service.engine.fabric(name)
        flows = await fabric.parts.switch.flows()
        neighbour = next(flow for flow in flows if flow.table == Stage.NEIGHBOUR and flow.priority == 0)
        leak = replace(neighbour, instructions=Instructions(apply=(Output(99),)))
        await changed(service, name, {leak}, {neighbour})
        rows = await service.drill(name, "web-1", ("arp",), silent)
        scan = next(row for row in rows if row["attack"] == "a request for an address that nobody has")
        assert (scan["outcome"], scan["reasons"]) == ("got through", {"NO_PORT": 1})

    while_up(service, THREE_TIER, work)


# -- beginning and end --------------------------------------------------------------------------


def test_a_nic_without_neighbours_is_not_drilled(service) -> None:
    async def work(name: str) -> None:
        with pytest.raises(InputError, match="x has no neighbour"):
            await service.drill(name, "x", (), silent)
        with pytest.raises(InputError, match="there is no VM or NIC nobody"):
            await service.drill(name, "nobody", (), silent)

    while_up(service, OPEN, work)


def test_a_drill_that_is_broken_off_leaves_nothing(service) -> None:
    async def work(name: str) -> None:
        begun = asyncio.Event()

        def report(progress: Progress) -> None:
            if progress.step == 2 and progress.status is Status.STARTED:
                begun.set()

        task = asyncio.ensure_future(service.drill(name, "web-1", (), report))
        await begun.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert spaces() == [f"{PREFIX}{name}"]
        assert [path.name for path in PINS.iterdir()] == [name]

    while_up(service, THREE_TIER, work)


def test_what_a_killed_drill_left_is_swept_away(service) -> None:
    netns.create(f"{PREFIX}lab+drill-1")
    pins = PINS / "lab+drill-1"
    (pins / "links").mkdir(parents=True)
    twin.sweep("other")
    assert pins.exists() and spaces()
    twin.sweep("lab")
    assert not pins.exists() and not spaces()
    PINS.rmdir()
