"""Whose packets a capture is of: NICs, networks, uplinks, as they are named and at which points."""

import asyncio

import pytest

from tests.unit.fabric.fakes import World, make_engine
from vnet.base.errors import InputError
from vnet.fabric.live.captures import CaptureRequest, capture
from vnet.fabric.live.engine import Terms
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.switch.abi import Point

TEXT = """\
name: small
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}, wan: {vlan: 20, subnets: 10.0.1.0/24}}
vms: {a: {networks: [lan]}, b: {networks: [wan]}}
"""
UPLINKS = (
    TEXT
    + """\
uplinks: {left: {interface: eth1, networks: [lan]}, right: {interface: eth2, networks: [wan]}}
"""
)
A, B, LEFT, RIGHT = 1, 2, 3, 4
"""Ports."""


def tap(directory, request, text=UPLINKS):
    """What the switch is asked for."""

    async def asked():
        engine = make_engine(World(), directory)
        await engine.up(Source("small.vnet.yaml", text), silent, Terms())
        watch = engine.fabric("small").parts.switch.watch
        running = asyncio.ensure_future(capture(engine, "small", request, lambda _: None)(asyncio.Queue()))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        (found,) = watch.taps.values()
        running.cancel()
        await engine.close()
        return found

    return asyncio.run(asked())


@pytest.mark.parametrize(
    ("request_", "ports", "points"),
    [
        ({}, {A, B}, {Point.GUEST, Point.DELIVERED}),
        ({"nics": ("uplink:left",)}, {LEFT}, {Point.GUEST, Point.DELIVERED}),
        ({"points": ("uplink",)}, {LEFT, RIGHT}, {Point.GUEST, Point.DELIVERED}),
        ({"points": ("uplink-in",)}, {LEFT, RIGHT}, {Point.GUEST}),
        ({"nics": ("uplink:left",), "points": ("uplink-out",)}, {LEFT}, {Point.DELIVERED}),
        ({"nics": ("b", "uplink:left"), "points": ("guest",)}, {B, LEFT}, {Point.GUEST, Point.DELIVERED}),
        ({"networks": ("lan",), "points": ("guest", "uplink-in")}, {A, LEFT, RIGHT}, {Point.GUEST}),
        ({"nics": ("uplink:left",), "only_dropped": True}, {LEFT}, {Point.GUEST}),
    ],
)
def test_uplinks_and_nics_are_captured_as_they_are_named(tmp_path, request_, ports, points):
    found = tap(tmp_path, CaptureRequest(**request_))
    assert (found.ports, found.points) == (ports, points)


@pytest.mark.parametrize(
    ("request_", "text", "said"),
    [
        (
            {"nics": ("uplink:up",)},
            UPLINKS,
            "no uplink up in fabric small; its uplinks: uplink:left, uplink:right",
        ),
        ({"points": ("uplink",)}, TEXT, "the fabric small has no uplink"),
        ({"points": ("uplink-out",), "only_dropped": True}, UPLINKS, "none is dropped"),
    ],
)
def test_an_uplink_that_there_is_not_is_not_captured(tmp_path, request_, text, said):
    with pytest.raises(InputError, match=said):
        tap(tmp_path, CaptureRequest(**request_), text)
