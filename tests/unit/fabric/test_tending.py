"""What the daemon does again and again: makes again what died or is damaged, and tells who answers."""

from __future__ import annotations

import asyncio

import pytest

from tests.unit.fabric.fakes import FakeGateways, World, make_engine
from vnet.base.errors import HostError
from vnet.fabric.live import tending
from vnet.fabric.live.parts import Parts
from vnet.fabric.progress import silent
from vnet.fabric.state import remnant
from vnet.fabric.store import Source
from vnet.services.gateway import Answer

TEXT = """\
name: shop
networks: {lan: {vlan: 10, dns: true, subnets: 10.0.0.0/24}}
routers: {gw: {networks: [lan], uplink: host, nat: masquerade}}
vms: {a: {image: micro, memory: 96M, networks: [lan], ports: ["8080:80/tcp"]}}
"""


def run(tmp_path, life):
    async def whole():
        world = World()
        engine = make_engine(world, tmp_path)
        await engine.up(Source("shop.vnet.yaml", TEXT), silent)
        await life(world, engine, engine.fabric("shop"))

    asyncio.run(whole())


def test_a_damaged_gateway_is_made_again_and_its_port_is_attached(tmp_path):
    async def life(world, engine, fabric):
        world.damaged.add(("shop", "gw"))
        calls = len(world.calls)
        await tending.turn(engine, fabric)
        assert world.calls[calls:] == ["forward for gw", "attach ~gw"]
        await tending.turn(engine, fabric)
        assert len(world.calls) == calls + 2

    run(tmp_path, life)


def test_a_service_that_dies_again_at_once_is_started_again_without_delay(tmp_path):
    async def life(world, engine, fabric):
        services, told = fabric.parts.services, []
        engine.events.tell = lambda kind, *rest: told.append(kind.value)
        (service,) = await services.observed()

        async def revive():
            return (service,)

        async def observed():
            return frozenset({remnant(service.network)})

        services.revive, services.observed = revive, observed
        calls = len(world.calls)
        for _ in range(2):
            await tending.turn(engine, fabric)
        assert world.calls[calls:] == 2 * ["attach @lan"]
        assert told == 2 * ["service-revived"]

    run(tmp_path, life)


def test_while_a_plan_is_carried_out_nothing_is_mended(tmp_path):
    async def life(world, engine, fabric):
        world.damaged.add(("shop", "gw"))
        async with engine.locks["shop"]:
            await tending.turn(engine, fabric)
        assert world.damaged == {("shop", "gw")}

    run(tmp_path, life)


def test_a_gateway_that_takes_its_time_keeps_neither_uplinks_nor_endpoints_from_being_mended(tmp_path):
    async def life(world, engine, fabric):
        mended = []

        async def slow():
            await asyncio.sleep(0.01)
            raise HostError("no way")

        async def retake():
            mended.append("cables")
            return ()

        async def mend():
            mended.append("endpoints")
            return ()

        fabric.parts.gateways.mend, fabric.parts.cables.retake = slow, retake
        fabric.parts.endpoints.mend = mend
        done = await asyncio.gather(*(job(engine, fabric) for job in tending.JOBS), return_exceptions=True)
        assert mended == ["cables", "endpoints"]
        assert [str(each) for each in done if each is not None] == ["no way"]

    run(tmp_path, life)


def test_it_is_told_which_target_of_a_port_answers(tmp_path):
    async def life(world, engine, fabric):
        told = []
        engine.events.tell = lambda kind, text, *rest: told.append((kind.value, text, *rest))
        answers = [[Answer("gw", "10.0.0.2", 80, is_there)] for is_there in (True, False)]
        fabric.parts.gateways.answers = answers  # the last comes first
        for _ in range(3):
            await tending.turn(engine, fabric)
        where = "shop", "gw", {"address": "10.0.0.2", "port": 80}
        assert told == [
            ("target-down", "10.0.0.2 port 80 does not answer", *where),
            ("target-up", "10.0.0.2 port 80 answers again", *where),
        ]

    run(tmp_path, life)


def test_what_stands_in_the_way_is_told_and_nothing_is_made(tmp_path):
    world = World()
    engine = make_engine(world, tmp_path)
    make = engine.make_parts

    def parts(name: str) -> Parts:
        made = make(name)
        return Parts(
            made.network,
            made.switch,
            made.guests,
            services=made.services,
            gateways=FakeGateways(world, name, ("port 127.0.0.1:8080/tcp cannot be published", "another")),
        )

    engine.make_parts = parts
    with pytest.raises(HostError, match="stands in the way; nothing was changed:\n  port 127.*\n  another"):
        asyncio.run(engine.up(Source("shop.vnet.yaml", TEXT), silent))
    assert world.calls == []
