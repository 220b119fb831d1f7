"""`vnet trace` on a fabric that is up, without guests: asked of the service, compared with what TAPs do."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path

import pytest

from tests.generators import frame
from tests.net.fabric_lab import NETNS, host
from tests.net.fabric_lab import make_engine as engine
from tests.net.test_fabric_network import source
from tests.unit.fabric.fakes import World
from vnet.fabric.asked import Asked
from vnet.fabric.live import captures
from vnet.fabric.live.captures import CaptureRequest
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.openflow.fields import TCP
from vnet.policy.semantics import Packet


@pytest.fixture
def directory():
    with host() as made:
        yield made


async def tap(name: str) -> int:
    return await asyncio.to_thread(HostNetwork(NETNS).open_tap, name)


async def settled(service: Service) -> None:
    """Until the switch knows that its TAPs are read."""
    for _ in range(100):
        told = await service.trace("small", Asked("a", "b", "80/tcp"))
        if told["verdict"]["outcome"] == "delivered":
            return
        await asyncio.sleep(0.02)


def test_a_trace_tells_what_a_tap_then_gets_and_is_not_counted(directory: Path) -> None:
    async def life() -> None:
        running = engine(directory, World())
        await running.up(source(), silent)
        service, fabric = Service(running), running.fabrics["small"]
        a, b = await tap("a.eth0"), await tap("b.eth0")
        await settled(service)
        before = await service.drops("small")
        for _ in range(3):
            denied = await service.trace("small", Asked("a", "b", "22/tcp"))
            assert denied["verdict"]["reason"] == "POLICY"
            assert denied["verdict"]["at"] == "small.vnet.yaml:8"
        assert await service.drops("small") == before
        assert await fabric.parts.switch.connections() == ()

        nics = {nic.name: nic for nic in fabric.declared.inventory.nics}
        ends = (nics["a.eth0"].addresses[0].ip, nics["b.eth0"].addresses[0].ip)
        opening = Packet("a.eth0", ends[0], "b.eth0", ends[1], TCP, 41022, 80)
        sent = frame(fabric.declared.inventory, opening)
        foretold = await service.trace("small", Asked("a", frame=sent))
        os.write(a, bytes(10) + sent)
        got = os.read(b, 65600)[10:]
        assert [each["frame"] for each in foretold["verdict"]["outputs"]] == [got.hex()]
        assert foretold["connection"]["state"] == "new"

        found = await service.trace("small", Asked("a", "b", "80/tcp"))
        assert found["connection"]["state"] == "found"
        assert found["assumed"][-1].startswith("the client's port is 41022, of a connection that lives")
        fresh = await service.trace("small", Asked("a", frame=sent, new=True))
        assert fresh["connection"]["state"] == "new"
        assert "a connection that lives is ignored (--new)" in fresh["assumed"]
        answered = await service.trace("small", Asked("a", "b", "80/tcp", reply=True))
        assert answered["reply"]["verdict"]["outcome"] == "delivered"
        assert answered["reply"]["connection"]["state"] == "found"
        os.close(a)
        os.close(b)
        await running.down("small", silent)
        await running.close()

    asyncio.run(life())


def test_real_packets_are_followed_with_the_rules_that_they_meet(directory: Path) -> None:
    async def life() -> None:
        running = engine(directory, World())
        await running.up(source(), silent)
        service, fabric = Service(running), running.fabrics["small"]
        a, b = await tap("a.eth0"), await tap("b.eth0")
        await settled(service)
        blocks: asyncio.Queue[bytes | None] = asyncio.Queue()
        wanted = CaptureRequest(("a",), "tcp port 22 or tcp port 80", None, 2, None)
        following = asyncio.ensure_future(captures.follow(service.engine, "small", wanted)(blocks))
        await asyncio.sleep(0.2)
        nics = {nic.name: nic for nic in fabric.declared.inventory.nics}
        ends = (nics["a.eth0"].addresses[0].ip, nics["b.eth0"].addresses[0].ip)
        for port in (443, 22, 80):
            packet = Packet("a.eth0", ends[0], "b.eth0", ends[1], TCP, 41022, port)
            os.write(a, bytes(10) + frame(fabric.declared.inventory, packet))
        await asyncio.wait_for(following, 5)
        told = []
        while not blocks.empty():
            told += [json.loads(line) for line in (blocks.get_nowait() or b"").splitlines()]
        assert [(each["verdict"], each["reason"]) for each in told] == [("drop", "POLICY"), ("pass", "NONE")]
        for each, port in zip(told, (22, 80), strict=True):
            said = await service.trace("small", Asked("a", "b", f"{port}/tcp", new=True))
            steps = [(step["name"], step["rule"]["from"]) for step in said["steps"]]
            assert [(rule["table"], rule["from"]) for rule in each["rules"]] == steps
        os.close(a)
        os.close(b)
        await running.down("small", silent)
        await running.close()

    asyncio.run(life())
