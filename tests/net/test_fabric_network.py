"""The engine on the real kernel, without guests: namespace, TAPs, switch, flows, and what is in their way."""

from __future__ import annotations

import asyncio
import os
import subprocess

import pytest

from tests.generators import frame
from tests.net.fabric_lab import NETNS, PINS, host
from tests.net.fabric_lab import make_engine as engine
from tests.unit.fabric.fakes import World
from vnet.base.errors import HostError
from vnet.base.limits import Limits
from vnet.fabric import actions as act
from vnet.fabric.live import netns
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.registry import Fabric
from vnet.fabric.live.service import Service
from vnet.fabric.progress import silent
from vnet.fabric.state import Port
from vnet.fabric.store import Source
from vnet.openflow.fields import TCP
from vnet.policy.semantics import Packet
from vnet.switch.live import ports

TEXT = """\
name: small
networks:
  lan: {vlan: 10, subnets: [10.0.0.0/24, "fd00::/64"]}
vms:
  a: {networks: [lan], groups: [a]}
  b: {networks: [lan], groups: [b]}
policies:
  - {name: b-from-a, applied_to: b, ingress: [{from: a, ports: [80/tcp]}]}
verify:
  - allow a -> b:80/tcp
"""
LARGER = TEXT.replace("policies:", "  c: {networks: [lan], groups: [a]}\npolicies:")


@pytest.fixture
def directory():
    with host() as made:
        yield made


def addresses() -> str:
    command = ["ip", "-n", NETNS, "-o", "address", "show"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def source(text: str = TEXT) -> Source:
    return Source("small.vnet.yaml", text)


def test_up_makes_silent_ports_and_enforced_flows_and_down_leaves_nothing(directory):
    async def life() -> None:
        running = engine(directory, World())
        await running.up(source(), silent)
        network = running.fabrics["small"].parts.network
        assert await network.interfaces() == {"a.eth0": "tun", "b.eth0": "tun"}
        assert "inet" not in await asyncio.to_thread(addresses)
        switch = running.fabrics["small"].parts.switch
        assert await switch.flows() == running.fabrics["small"].declared.state().flows
        await running.down("small", silent)
        await running.close()

    asyncio.run(life())


def test_a_new_daemon_adopts_the_switch_and_sends_no_flow(directory):
    async def life() -> None:
        world = World()
        first = engine(directory, world)
        await first.up(source(), silent)
        version = first.fabrics["small"].parts.switch._datapath.version
        await first.close()
        second = engine(directory, world)
        await second.adopt()
        assert second.fabrics["small"].trouble == ""
        assert second.fabrics["small"].parts.switch._datapath.version == version
        assert (await second.up(source(), silent)).actions == ()
        await second.down("small", silent)
        await second.close()

    asyncio.run(life())


def test_a_new_daemon_repairs_what_was_taken_away(directory):
    async def life() -> None:
        world = World()
        first = engine(directory, world)
        await first.up(source(), silent)
        await first.fabrics["small"].parts.network.remove_port("a.eth0")
        await first.close()
        second = engine(directory, world)
        await second.adopt()
        fabric = second.fabrics["small"]
        assert fabric.trouble == ""
        assert set(await fabric.parts.network.interfaces()) == {"a.eth0", "b.eth0"}
        assert {each.port.ifname for each in await fabric.parts.switch.ports()} == {"a.eth0", "b.eth0"}
        await second.down("small", silent)
        await second.close()

    asyncio.run(life())


def test_a_change_adds_ports_and_flows_and_keeps_the_rest(directory):
    async def life() -> None:
        running = engine(directory, World())
        await running.up(source(), silent)
        kept = await running.fabrics["small"].parts.switch.ports()
        await running.up(source(LARGER), silent)
        switch = running.fabrics["small"].parts.switch
        assert kept < await switch.ports()
        assert await switch.flows() == running.fabrics["small"].declared.state().flows
        await running.up(source(), silent)
        assert await switch.ports() == kept
        await running.down("small", silent)
        await running.close()

    asyncio.run(life())


def test_rules_tell_what_they_have_decided_and_one_that_takes_over_a_flow_begins_at_nothing(directory):
    async def life() -> None:
        running = engine(directory, World())
        service = Service(running)
        await running.up(source(), silent)
        assert [rule["packets"] for rule in await service.rules("small", None)] == [0]
        send(running.fabrics["small"], 80, 5)
        send(running.fabrics["small"], 81, 3)
        (rule,) = await service.rules("small", "b")
        assert (rule["packets"], rule["needless"]) == (5, "")
        await running.up(source(TEXT.replace("b-from-a", "renamed")), silent)
        assert [rule["packets"] for rule in await service.rules("small", None)] == [0]
        await running.down("small", silent)
        await running.close()

    asyncio.run(life())


def send(fabric: Fabric, port: int, count: int) -> None:
    """SYNs of a to b, from different ports."""
    assert fabric.declared is not None
    a, b = fabric.declared.inventory.nics
    ends = [(nic.name, nic.addresses[0].ip) for nic in (a, b)]
    packets = [Packet(*ends[0], *ends[1], TCP, 40_000 + each, port) for each in range(count)]
    tap = HostNetwork(NETNS).open_tap(a.name)
    for packet in packets:
        os.write(tap, bytes(10) + frame(fabric.declared.inventory, packet))
    os.close(tap)


@pytest.mark.parametrize("hang", ["start a", "wait for b"])
def test_a_guest_that_fails_takes_the_whole_first_up_back(directory, hang):
    async def life() -> None:
        world = World(hang=hang)
        running = engine(directory, world)
        task = asyncio.ensure_future(running.up(source(), silent))
        await world.hanging.wait()
        task.cancel()
        with pytest.raises(Exception, match="nothing is left of it"):
            await task
        assert not netns.exists(NETNS)
        await running.close()

    asyncio.run(life())


def test_a_namespace_of_somebody_else_is_left_alone(directory):
    netns.create(NETNS)

    async def life() -> None:
        running = engine(directory, World())
        with pytest.raises(HostError, match=f"already there.*ip netns delete {NETNS}"):
            await running.up(source(), silent)
        await running.close()

    asyncio.run(life())
    assert netns.exists(NETNS)
    netns.remove(NETNS)


def test_a_switch_that_cannot_be_read_can_still_be_removed(directory):
    async def life() -> None:
        world = World()
        first = engine(directory, world)
        await first.up(source(), silent)
        await first.close()
        (PINS / "small" / "control").unlink()
        second = engine(directory, world)
        await second.adopt()
        assert second.fabrics["small"].trouble
        await second.down("small", silent)
        await second.close()

    asyncio.run(life())


def test_a_tap_can_be_opened_once_with_its_header_and_again_when_it_is_closed(directory):
    netns.create(NETNS)

    async def life() -> None:
        network = HostNetwork(NETNS)
        await network.create_port("web-1.eth0")
        await network.create_port("web-1.eth0")
        fd = await asyncio.to_thread(network.open_tap, "web-1.eth0")
        with pytest.raises(HostError, match="another process holds it"):
            await asyncio.to_thread(network.open_tap, "web-1.eth0")
        os.close(fd)
        os.close(await asyncio.to_thread(network.open_tap, "web-1.eth0"))
        with pytest.raises(HostError, match="no such interface"):
            await asyncio.to_thread(network.open_tap, "web-2.eth0")
        await network.remove_port("web-1.eth0")
        await network.remove_port("web-1.eth0")
        await network.remove()
        await network.close()

    asyncio.run(life())


def test_a_missing_tun_device_is_named_with_what_to_do(directory, monkeypatch):
    monkeypatch.setattr(ports, "TUN", directory / "tun")
    with pytest.raises(HostError, match="modprobe tun"):
        ports.open_device()


BUSY = "profiles: {busy: {limits: {connections: %d}}}\n" + TEXT.replace(
    "networks: [lan]", "interfaces: {eth0: {network: lan, profile: busy}}", 1
)


def test_a_limit_is_changed_live_and_found_again_by_the_next_daemon(directory):
    async def life() -> None:
        world = World()
        first = engine(directory, world)
        await first.up(source(BUSY % 100), silent)
        switch = first.fabrics["small"].parts.switch
        version = switch._datapath.version
        limits = {each.port.ifname: each.limits.connections for each in await switch.ports()}
        assert limits == {"a.eth0": 100, "b.eth0": 16384}
        (action,) = (await first.up(source(BUSY % 50), silent)).actions
        assert action == act.LimitPort(Port(1, "a.eth0"), Limits(connections=50))
        assert switch._datapath.version == version, "no rule changed"
        await first.close()
        second = engine(directory, world)
        await second.adopt()
        assert (await second.up(source(BUSY % 50), silent)).actions == ()
        await second.down("small", silent)
        await second.close()

    asyncio.run(life())
