"""An os-ken application, a learning switch, drives the switch; the same on Open vSwitch, as a check of it.

Hosts 1 to 3 are at the ports of these numbers. The application, `os_ken_learning`, writes what it is told.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.exams.conntrack.hosts import until
from tests.net.controller_lab import ROOT, SWITCHES, ControllerLab
from tests.ovs.harness import why_not

pytestmark = pytest.mark.skipif(why_not() is not None, reason=why_not() or "")

PYTHON = ROOT / "build" / "venv-conformance" / "bin" / "python"
APPLICATION = Path(__file__).parent / "os_ken_learning.py"
ONE, TWO, THREE = "10.8.0.1", "10.8.0.2", "10.8.0.3"
LEARNT, MISS = 10, 0
"""Priorities of the application's flows."""
IDLE_S = 2
IDLE_TIMEOUT = 0
"""OFPRR_*."""
SOON_S = 10.0

Told = dict[str, Any]


class Application:
    """The application in charge of a switch, and the hosts."""

    def __init__(self, lab: ControllerLab) -> None:
        assert PYTHON.exists(), "os-ken is not installed: run `tools/setup.sh conformance`"
        self.lab, self.hosts = lab, lab.hosts
        lab.spawn("application", str(PYTHON), str(APPLICATION))
        lab.start_switch()
        self.await_told("connected", lambda told: True)

    def told(self, event: str) -> list[Told]:
        """What it has written of one kind, the newest last."""
        lines = self.lab.log("application").splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"event"') and line.endswith("}")]
        return [told for told in found if told["event"] == event]

    def await_told(self, event: str, wanted: Any, since: int = 0) -> Told:
        """Wait until it has written something that is wanted; the first of those."""
        found: list[Told] = []

        def there() -> bool:
            found[:] = filter(wanted, self.told(event)[since:])
            return bool(found)

        until(there, f"{event}:\n{self.lab.log('application')[-3000:]}", SOON_S)
        return found[0]


@pytest.fixture(scope="module", params=SWITCHES)
def application(request: pytest.FixtureRequest) -> Iterator[Application]:
    with ControllerLab(request.param, hosts=3) as lab:
        for number, address in enumerate((ONE, TWO, THREE), 1):
            lab.hosts[number].configure(f"{address}/24")
        driving = Application(lab)
        lab.await_answer(1, TWO)
        yield driving
        assert driving.told("error") == []
        assert "Traceback" not in lab.log("application")


def test_it_learns_where_hosts_are_from_packet_ins(application: Application) -> None:
    assert application.hosts[2].ping(ONE).all_answered
    assert application.hosts[3].ping(ONE).all_answered
    for number, host in application.hosts.items():
        found = application.await_told("learnt", lambda told, mac=host.mac: told["mac"] == mac)
        assert found["port"] == number


def test_what_it_has_learnt_is_carried_without_it(application: Application) -> None:
    """A flow in each direction takes all but the first packets; a third host sees none of them."""
    assert application.hosts[1].ping(TWO).all_answered
    with application.hosts[3].capture() as seen:
        assert application.hosts[1].ping(TWO, count=20).all_answered
        assert seen.count(lambda frame: frame[12:14] == b"\x08\x00") == 0
    since = len(application.told("flows"))
    told = application.await_told(
        "flows", lambda told: sum(flow[2] >= 18 for flow in told["flows"] if flow[0] == LEARNT) >= 2, since
    )
    assert all(flow[1] == IDLE_S for flow in told["flows"] if flow[0] == LEARNT)


def test_flows_go_when_they_are_idle_and_it_is_told(application: Application) -> None:
    hosts, since = application.hosts, len(application.told("removed"))
    assert hosts[2].ping(THREE, count=7).all_answered
    there = (hosts[2].mac, hosts[3].mac)
    told = application.await_told("removed", lambda told: (told["src"], told["dst"]) == there, since)
    assert told["reason"] == IDLE_TIMEOUT
    assert 5 <= told["packets"] <= 12, "of seven pings, and of neighbour discovery"
    assert told["seconds"] >= IDLE_S
    application.await_told("flows", lambda told: [flow[0] for flow in told["flows"]] == [MISS])
    assert hosts[2].ping(THREE).all_answered, "it is asked again"


def test_statistics_and_barriers_are_answered(application: Application) -> None:
    assert (
        application.told("description")[0]["maker"]
        == {"ovs": "Nicira, Inc.", "vnet": "vnet"}[application.lab.switch]
    )
    before = application.told("ports")[-1]["ports"]["2"]
    assert application.hosts[1].ping(TWO, count=10).all_answered
    application.await_told("ports", lambda told: told["ports"]["2"][0] >= before[0] + 10)
    barriers = len(application.told("barrier"))
    application.await_told("barrier", lambda told: True, barriers)


def test_it_forgets_who_was_at_a_port_that_went_down(application: Application) -> None:
    application.lab.await_answer(1, TWO)
    since = len(application.told("port"))
    application.hosts[2].ip("link set eth0 down")
    application.await_told("port", lambda told: told["port"] == 2 and told["down"], since)
    assert application.hosts[1].ping(TWO, count=1, expect=False).none_answered
    application.hosts[2].ip("link set eth0 up")
    application.await_told("port", lambda told: told["port"] == 2 and not told["down"], since)
    application.lab.await_answer(1, TWO)


@pytest.mark.parametrize("application", ["vnet"], indirect=True)
def test_what_it_has_learnt_is_carried_while_the_agent_is_dead(application: Application) -> None:
    """Then flows in use go on; who is new is heard of again when there is another agent."""
    application.lab.await_answer(1, TWO)
    connected = len(application.told("connected"))
    application.lab.kill_switch()
    assert application.hosts[1].ping(TWO, count=30).all_answered
    application.lab.start_switch()
    application.await_told("connected", lambda told: True, connected)
    application.lab.await_answer(3, ONE)
