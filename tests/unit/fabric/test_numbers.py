"""Snapshots of all numbers, what happened between two of them, and what they say about readiness."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.numbers_samples import fabric, nic, numbers, uplink, vm
from tests.unit.fabric.test_engine import SMALL
from vnet.base.drop import DropReason
from vnet.base.errors import HostError
from vnet.fabric.live import numbers as live
from vnet.fabric.live import usage
from vnet.fabric.numbers import HostNumbers, Pressure, from_json, grown, to_json
from vnet.fabric.progress import silent
from vnet.fabric.rates import Rates, TrafficRate, Waits, rates
from vnet.fabric.readiness import Unready, unready
from vnet.fabric.store import Source
from vnet.switch.datapath import Counter, PortCounter
from vnet.switch.numbers import PortNumbers, SwitchNumbers

BEFORE = numbers(
    fabric(
        vm("a", nic("a.eth0", 10, 20, 1), nic("a.eth1", 5), cpu_s=1.0),
        vm("b", nic("b.eth0", reasons={"POLICY": 8}), cpu_s=0.0),
        drops={"POLICY": 10, "MTU": 2},
        lost_events={"drop": 4},
    )
)
NOW = numbers(
    fabric(
        vm("a", nic("a.eth0", 30, 60, 5), nic("a.eth1", 9), cpu_s=4.0),
        vm("b", nic("b.eth0", reasons={"POLICY": 9, "STORM": 4}), cpu_s=0.0),
        vm("new", nic("new.eth0", 1000)),
        drops={"POLICY": 14, "MTU": 2, "STORM": 4},
        lost_events={"drop": 5},
        uplinks=(uplink("campus", sent=9),),
    ),
    at_s=2.0,
)


def test_rates_are_what_happened_in_between_by_the_second() -> None:
    found = rates(BEFORE, NOW)
    assert found.span_s == 2.0
    assert found.vms["small", "a"].traffic == TrafficRate(12, 1200, 20, 2000, 2)
    assert found.vms["small", "a"].cpu == 1.5
    assert found.drops_pps == {"POLICY": 2.0, "MTU": 0.0, "STORM": 2.0}
    assert found.lost_events_ps == 0.5
    assert found.total == TrafficRate(12, 1200, 20, 2000, 2)


def test_the_main_reason_is_that_of_what_was_lost_in_between() -> None:
    assert rates(BEFORE, NOW).vms["small", "b"].reason == "STORM"
    assert rates(NOW, replace(NOW, clock_s=NOW.clock_s + 1)).vms["small", "b"].reason == ""


def test_what_was_not_there_before_has_no_rate_yet() -> None:
    assert ("small", "new") not in rates(BEFORE, NOW).vms


def test_there_is_no_rate_without_a_time_in_between() -> None:
    assert rates(None, NOW) == rates(NOW, NOW) == Rates()


def test_a_counter_that_began_anew_began_at_nothing() -> None:
    assert grown(100, 7) == 7
    assert grown(7, 100) == 93


def test_a_switch_that_did_not_answer_gives_no_rates() -> None:
    (known,) = NOW.fabrics
    silent_one = replace(NOW, fabrics=(replace(known, unanswered="it is gone", vms=()),))
    assert rates(silent_one, replace(NOW, clock_s=2000.0)).total == TrafficRate()


def test_ready_is_the_part_of_the_time_that_a_vcpu_waited_on_average() -> None:
    def at(clock_s: float, ready_s: float, memory_s: float) -> Any:
        one = replace(vm("a"), cpus=2, ready_s=ready_s, pressure=Pressure(memory_s=memory_s))
        host = HostNumbers(2, 8 << 30, 4 << 30, Pressure(2 * memory_s, memory_s, 0.0))
        return replace(numbers(fabric(one), at_s=clock_s), host=host)

    found = rates(at(0, 7.0, 1.0), at(10, 13.2, 3.0))
    assert found.vms["small", "a"].ready == pytest.approx(0.31)
    assert found.vms["small", "a"].waits == Waits(memory=0.2)
    assert found.host == Waits(0.4, 0.2, 0.0)
    assert rates(at(0, 7.0, 0.0), at(10, 2.0, 0.0)).vms["small", "a"].ready == pytest.approx(0.1), (
        "a new QEMU"
    )


def test_numbers_come_back_from_json_as_they_went() -> None:
    assert from_json(json.loads(json.dumps(to_json(NOW)))) == NOW


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"enforced": 2}, "generation 3 is wanted, 2 is in force"),
        ({"unanswered": "the switch is gone"}, "the switch is gone"),
        ({"trouble": "its file cannot be read"}, "its file cannot be read"),
    ],
)
def test_a_fabric_that_is_not_ready_says_why(change: dict[str, Any], why: str) -> None:
    assert unready(numbers(fabric())) == ()
    assert unready(numbers(fabric(), fabric(name="other", **change))) == (Unready("other", why),)


def taken(world: World, directory: Path, times: int = 1) -> list[Any]:
    async def life() -> list[Any]:
        engine = make_engine(world, directory)
        await engine.up(Source("small.vnet.yaml", SMALL), silent)
        taker = live.Taker(engine, lambda: 2)
        taker.messages["warning"] += 3
        found = [await taker.take() for _ in range(times)]
        await engine.close()
        return found

    return asyncio.run(life())


def test_a_snapshot_has_ports_by_nic_and_reasons_by_name(tmp_path: Path) -> None:
    world = World()
    counter = PortCounter(Counter(5, 500), Counter(7, 700), 2, 1)
    world.numbers["small"] = SwitchNumbers(
        ports={1: PortNumbers(counter, True, 4, 16384, 1, 64)},
        drops={DropReason.POLICY: 2, 99: 1},
        lost={3: 6},
        flows={0: 4, 6: 2, 200: 1},
        paths=12,
    )
    (found,) = taken(world, tmp_path)
    (one,) = found.fabrics
    assert (one.name, one.generation, one.enforced, one.unanswered) == ("small", 1, 1, "")
    assert (one.drops, one.lost_events, one.paths) == ({"POLICY": 2, "99": 1}, {"drop": 6}, 12)
    assert one.flows == {"admit": 4, "6": 2, "200": 1}
    (first,) = [each for each in one.vms for each in each.nics if each.port == 1]
    assert (first.traffic.sent_packets, first.traffic.received_bytes, first.traffic.sent_dropped) == (
        5,
        700,
        2,
    )
    assert (first.up, first.connections, first.mac_quota) == (True, 4, 64)
    assert (found.daemon.messages, found.daemon.operations) == ({"warning": 3}, 2)
    assert found.daemon.resident_bytes > 1 << 20


def test_a_switch_that_cannot_be_asked_says_why_and_the_rest_is_told(tmp_path: Path) -> None:
    def refuse() -> None:
        raise HostError("its maps are gone")

    (found,) = taken(World(asked=refuse), tmp_path)
    (one,) = found.fabrics
    assert one.unanswered == "its maps are gone"
    assert {each.state for each in one.vms} == {"ready"}


def test_who_asks_at_the_same_moment_is_given_the_same_answer(tmp_path: Path) -> None:
    asked = []
    first, second = taken(World(asked=lambda: asked.append(1)), tmp_path, times=2)
    assert first is second
    assert len(asked) == 1


def test_of_a_process_that_ended_nothing_is_told() -> None:
    assert usage.cpu_s(1 << 22) == usage.ready_s(1 << 22) == usage.swapped_bytes(1 << 22) == 0
