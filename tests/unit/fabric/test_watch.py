"""Captures of a switch that the test plays: what they ask for, what they get, what is lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.capture.samples import delivered, record
from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.capture.live.stream import Lost
from vnet.capture.record import SENT, PacketRecord, Point, Verdict
from vnet.fabric.capturing import Wanted, came_to, points
from vnet.fabric.live.watch import QUEUED, Subscription, Watch
from vnet.policy.pipeline import Stage
from vnet.switch.abi import TAPS
from vnet.switch.abi import Point as SwitchPoint
from vnet.switch.taps import Tap, TapCount

PORTS = frozenset({4})


class Switch:
    """Which taps are in force, and what their counters say."""

    def __init__(self) -> None:
        self.taps: Mapping[int, Tap] = {}
        self.lost: dict[int, int] = {}
        self.version = 1
        self.watch = Watch(self.tell, self.count, lambda: self.version)

    async def tell(self, taps: Mapping[int, Tap]) -> None:
        await asyncio.sleep(0)
        self.taps = taps

    def count(self, number: int) -> TapCount:
        return TapCount(9, 5, self.lost.get(number, 0))


def played(story: Callable[[Switch], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(story(Switch()))


async def come(subscription: Subscription, items: int) -> list[PacketRecord | Lost]:
    got = []
    async for item in subscription.records():
        got.append(item)
        if len(got) == items:
            break
    return got


def refused(table: int) -> PacketRecord:
    return record(table=table, taps=1)


def test_a_capture_gets_what_its_own_tap_was_told_and_the_tap_goes_with_it() -> None:
    async def story(switch: Switch) -> None:
        async with (
            switch.watch.subscribed(Wanted(PORTS)) as one,
            switch.watch.subscribed(Wanted(PORTS)) as two,
        ):
            assert set(switch.taps) == {one.number, two.number}
            switch.watch.take([record(taps=1 << two.number), delivered(taps=3), record()])
            assert [seen.point for seen in await come(two, 2)] == [Point.GUEST, Point.DELIVERED]
            assert [seen.point for seen in await come(one, 1)] == [Point.DELIVERED]
        assert switch.taps == {}
        assert len(switch.watch.recent) == 2, "drops are kept whoever captures"

    played(story)


def test_a_packet_is_told_once_for_each_wanted_point_that_it_came_to() -> None:
    async def story(switch: Switch) -> None:
        wanted = Wanted(PORTS, points=tuple(Point))
        async with switch.watch.subscribed(wanted) as capture:
            switch.watch.take(
                [
                    refused(Stage.SOURCE_GUARD),
                    refused(Stage.INGRESS),
                    record(table=Stage.DELIVER, reason=DropReason.MTU, taps=1),
                    record(verdict=Verdict.PASS, table=Stage.NEIGHBOUR, taps=1),
                    delivered(taps=1),
                ]
            )
            got = [seen.point for seen in await come(capture, 10) if isinstance(seen, PacketRecord)]
            sent = [Point.GUEST, Point.AFTER_GUARDS, Point.AFTER_POLICY]
            assert got == [sent[0], *sent[:2], *sent, *sent, Point.DELIVERED]

    played(story)


@pytest.mark.parametrize(
    ("wanted", "tap"),
    [
        ((Point.GUEST,), Tap(PORTS, points=frozenset({SwitchPoint.GUEST}))),
        (
            (Point.AFTER_POLICY, Point.AFTER_GUARDS),
            Tap(PORTS, points=frozenset({SwitchPoint.GUEST}), from_table=Stage.NEIGHBOUR),
        ),
        (
            (Point.AFTER_POLICY, Point.DELIVERED),
            Tap(
                PORTS, points=frozenset({SwitchPoint.GUEST, SwitchPoint.DELIVERED}), from_table=Stage.DELIVER
            ),
        ),
    ],
)
def test_the_kernel_is_asked_for_no_more_than_is_wanted(wanted: tuple[Point, ...], tap: Tap) -> None:
    assert Wanted(PORTS, wanted).tap() == tap


def test_losses_in_the_kernel_are_told_once_where_they_happened() -> None:
    async def story(switch: Switch) -> None:
        async with (
            switch.watch.subscribed(Wanted(PORTS)) as one,
            switch.watch.subscribed(Wanted(PORTS)) as two,
        ):
            switch.lost = {one.number: 3}
            switch.watch.take([record(taps=3)])
            switch.watch.take([record(taps=3)])
            assert [type(item) for item in await come(one, 3)] == [PacketRecord, PacketRecord, Lost]
            assert len(await come(two, 2)) == 2
            switch.lost = {one.number: 7}
            assert (await one.rest(), await two.rest()) == (4, 0)

    played(story)


def test_a_slow_capture_is_told_of_what_found_no_room() -> None:
    async def story(switch: Switch) -> None:
        async with switch.watch.subscribed(Wanted(PORTS)) as capture:
            switch.watch.take([record(taps=1)] * (QUEUED + 5))
            assert (await come(capture, QUEUED + 1))[-1] == Lost(5)

    played(story)


def test_there_are_so_many_taps_and_a_number_is_used_again_last() -> None:
    async def story(switch: Switch) -> None:
        numbers = [await switch.watch.add(Tap(PORTS)) for _ in range(TAPS)]
        assert sorted(numbers) == list(range(TAPS))
        with pytest.raises(InputError, match="32 captures and mirrors"):
            await switch.watch.add(Tap(PORTS))
        for number in (7, 3):
            await switch.watch.discard(number)
        assert await switch.watch.add(Tap(PORTS)) == 7

    played(story)


def test_a_capture_that_the_switch_refuses_leaves_no_tap() -> None:
    async def story(switch: Switch) -> None:
        told: list[Mapping[int, Tap]] = []

        async def refuse(taps: Mapping[int, Tap]) -> None:
            told.append(taps)
            if taps:
                raise InputError("no")

        switch.watch.tell = refuse
        with pytest.raises(InputError, match="no"):
            await switch.watch.add(Tap(PORTS))
        assert switch.watch.taps == {} and told[-1] == {}

    played(story)


def test_a_packet_is_of_the_generation_that_decided_it() -> None:
    async def story(switch: Switch) -> None:
        assert switch.watch.generation(5) is None
        for switch.version, generation in ((5, 1), (9, 2), (12, 3)):
            switch.watch.enforced(generation)
        assert [switch.watch.generation(version) for version in (4, 5, 8, 9, 11, 40)] == [None, 1, 1, 2, 2, 3]

    played(story)


def test_points_are_named_one_by_one_or_with_commas() -> None:
    assert points(()) == (Point.GUEST, Point.DELIVERED)
    assert points(("delivered,guest", "after-guards", "guest")) == (
        Point.DELIVERED,
        Point.GUEST,
        Point.AFTER_GUARDS,
    )
    assert points(("uplink", "uplink-in")) == (Point.UPLINK_IN, Point.UPLINK_OUT)
    with pytest.raises(
        InputError, match=r"guest, after-guards, after-policy, delivered, uplink-in, .*uplink"
    ):
        points(("ingress",))


def test_what_nobody_lost_came_everywhere() -> None:
    assert all(came_to(record(verdict=Verdict.PASS, table=2), point) for point in SENT)


@pytest.mark.parametrize("asked", ["guest", "delivered", "uplink-in", "uplink-out", "guest,uplink"])
def test_uplinks_and_nics_are_seen_at_their_own_points(asked: str) -> None:
    wanted = Wanted(frozenset({1}), points((asked,)), uplinks=frozenset({2}))
    assert wanted.tap().ports == {1, 2}
    seen = [
        (each.port, each.point)
        for port in (1, 2)
        for point in (Point.GUEST, Point.DELIVERED)
        for each in wanted.seen(replace(record(verdict=Verdict.PASS), port=port, point=point))
    ]
    at = {1: (Point.GUEST, Point.DELIVERED), 2: (Point.UPLINK_IN, Point.UPLINK_OUT)}
    assert seen == [(port, point) for port in (1, 2) for point in at[port] if point in wanted.points]
    in_switch = {SwitchPoint.GUEST: {Point.GUEST, Point.UPLINK_IN}}
    in_switch[SwitchPoint.DELIVERED] = {Point.DELIVERED, Point.UPLINK_OUT}
    assert wanted.tap().points == {at for at, means in in_switch.items() if means & {*wanted.points}}


def test_a_switch_that_goes_ends_its_captures_with_what_it_counted() -> None:
    async def story(switch: Switch) -> None:
        async with switch.watch.subscribed(Wanted(PORTS)) as capture:
            switch.lost = {capture.number: 2}
            switch.watch.take([record(taps=1)])
            switch.watch.end()
            switch.lost = {}
            async with asyncio.timeout(2):
                got = [item async for item in capture.records()]
            assert [type(item) for item in got] == [PacketRecord, Lost]
            assert capture.count == TapCount(9, 5, 2)
            assert await capture.rest() == 0

    played(story)
