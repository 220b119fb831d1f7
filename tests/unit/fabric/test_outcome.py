"""Plans in words: what is added, changed and removed, and what stays."""

import asyncio
import os
import subprocess
import sys

import pytest
from hypothesis import assume, given

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.test_engine import LARGER, OTHER_MEMORY, SMALL, WITHOUT_A, source
from tests.unit.fabric.test_plan import states
from vnet.fabric import actions as act
from vnet.fabric.live import snapshots
from vnet.fabric.outcome import Count, Outcome, summarize
from vnet.fabric.plan import plan
from vnet.fabric.progress import silent
from vnet.fabric.store import Record, Source
from vnet.openflow.conntrack import Direction, Endpoint

RULES = """\
policies:
  - {name: web, applied_to: "vm:a", ingress: [{from: any, ports: [80/tcp]}]}
  - {name: ssh, applied_to: "vm:b", ingress: [{from: any, ports: [22/tcp]}]}
"""
TWO_NICS = "a: {interfaces: {eth0: {network: lan}, eth1: {network: lan}}}"


@pytest.fixture
def told(tmp_path):
    """A function: what the plan from a running fabric to another text says, and its summary."""
    engines = []

    def plan(text, *, then, prepare=lambda engine: None):
        engine = make_engine(World(), tmp_path / str(len(engines)))
        engines.append(engine)
        if text:
            asyncio.run(engine.up(source(text), silent))
        prepare(engine)
        summary = asyncio.run(engine.plan(source(then))).summary
        return [f"{each.mark} {each.kind} {each.name}: {each.what}" for each in summary.lines], summary

    yield plan
    for engine in engines:
        asyncio.run(engine.close())


def only(lines, kind):
    return [line for line in lines if line.split()[1] == kind]


def test_a_new_fabric_is_all_additions(told):
    lines, summary = told("", then=SMALL)
    assert {line[0] for line in lines} == {"+"}
    assert lines[:4] == [
        "+ fabric network namespace: ",
        "+ fabric switch: ",
        "+ vm a: start",
        "+ vm b: start",
    ]
    assert only(lines, "port") == ["+ port a.eth0: number 1", "+ port b.eth0: number 2"]
    assert (summary.vms, summary.ports) == (Count(added=2), Count(added=2))


def test_nothing_is_said_where_nothing_changes(told):
    assert told(SMALL, then=SMALL)[0] == []


def test_what_stays_is_counted_and_what_goes_is_named(told):
    lines, summary = told(LARGER, then=WITHOUT_A + "  c: {networks: [lan]}\n")
    assert only(lines, "vm") == ["- vm a: "] and only(lines, "port") == ["- port a.eth0: "]
    assert (summary.vms, summary.ports) == (Count(removed=1, kept=2), Count(removed=1, kept=2))
    assert summary.flows.kept and summary.flows.removed


def test_a_vm_that_changes_says_what_that_takes(told):
    lines, summary = told(SMALL, then=OTHER_MEMORY)
    assert lines == ["~ vm a: memory 96M → 128M (live)"]
    assert summary.vms == Count(changed=1, kept=1)


@pytest.mark.parametrize(
    ("nic", "why"),
    [
        ("addresses: [10.0.0.9/24]", "eth0 10.0.0.1/24 → 10.0.0.9/24"),
        ('addresses: [10.0.0.1/24], mac: "52:54:00:00:00:09"', "eth0 is another with MAC 52:54:00:00:00:09"),
    ],
)
def test_a_vm_whose_nic_changes_says_how(told, nic, why):
    now, then = (
        SMALL.replace("a: {networks: [lan]}", f"a: {{interfaces: {{eth0: {{network: lan, {text}}}}}}}")
        for text in ("addresses: [10.0.0.1/24]", nic)
    )
    assert only(told(now, then=then)[0], "vm") == [f"~ vm a: {why} (live)"]


def test_a_vm_gets_one_more_nic_while_it_runs(told):
    lines, _ = told(SMALL, then=SMALL.replace("a: {networks: [lan]}", TWO_NICS))
    assert only(lines, "vm") == ["~ vm a: eth1 is new (live)"]
    assert only(lines, "port") == ["+ port a.eth1: number 3"]


def test_a_vm_that_does_not_run_is_started_or_removed_and_that_is_said(told):
    def a_is_dead(engine):
        engine.make_parts("small").guests.world.guests.discard(("small", "a"))

    assert told(SMALL, then=SMALL, prepare=a_is_dead)[0] == ["~ vm a: start: it does not run"]
    assert only(told(SMALL, then=WITHOUT_A, prepare=a_is_dead)[0], "vm") == ["- vm a: it does not run"]


def test_of_a_suspended_vm_is_said_what_becomes_of_its_memory(told):
    def a_is_suspended(engine):
        asyncio.run(snapshots.suspend(engine, "small", "a", silent))

    resumed, lost = (told(SMALL, then=then, prepare=a_is_suspended)[0] for then in (SMALL, WITHOUT_A))
    assert resumed == ["~ vm a: start: it is suspended, and goes on from its memory"]
    assert only(lost, "vm") == ["- vm a: it is suspended: its memory is lost"]


def test_a_port_that_somebody_took_away_is_made_again_with_its_vm(told):
    def port_is_gone(engine):
        world = engine.make_parts("small").guests.world
        del world.interfaces["small", "a.eth0"]

    lines, _ = told(SMALL, then=SMALL, prepare=port_is_gone)
    assert only(lines, "vm") == ["~ vm a: its port is gone, or needed by another (re-create)"]
    assert only(lines, "port") == ["+ port a.eth0: number 1"]


def test_flows_are_told_by_the_policy_they_come_from(told):
    with_rules = told(SMALL, then=SMALL + RULES)[0]
    assert [line.partition(": flows")[0] for line in only(with_rules, "policy")] == [
        "~ policy (the fabric itself)",
        "+ policy ssh",
        "+ policy web",
    ]
    other_port = told(SMALL + RULES, then=SMALL + RULES.replace("80/tcp", "81/tcp"))[0]
    policies = only(other_port, "policy")
    assert policies and all(line.startswith("~ policy web: flows: ") for line in policies)
    assert only(other_port, "reach") == ["~ reach b → a: opens 81/tcp; closes 80/tcp"]
    without = only(told(SMALL + RULES, then=SMALL + RULES.rpartition("  - ")[0])[0], "policy")
    assert "- policy ssh" in [line.partition(": flows")[0] for line in without]


def test_live_connections_are_told_that_the_new_rules_or_the_end_of_a_vm_cut(told):
    def connected(engine):
        nics = {nic.vm: nic for nic in engine.fabric("small").declared.inventory.nics}
        client, server = (
            Endpoint(int(nics[vm].addresses[0].ip), port) for vm, port in (("b", 1024), ("a", 80))
        )
        world = engine.make_parts("small").guests.world
        world.connections["small"] = (Direction(nics["a"].vlan, 0x0800, 6, client, server),)

    text = SMALL + RULES
    other_port = text.replace("80/tcp", "81/tcp")
    more = text.replace("80/tcp", "80-81/tcp")
    assert only(told(text, then=other_port, prepare=connected)[0], "connection") == [
        "- connection b → a: 1 to 80/tcp"
    ]
    assert only(told(text, then=more, prepare=connected)[0], "connection") == []
    live = OTHER_MEMORY + RULES
    assert only(told(text, then=live, prepare=connected)[0], "connection") == []
    again = OTHER_MEMORY.replace("128M", "80M") + RULES
    assert only(told(text, then=again, prepare=connected)[0], "vm") == ["~ vm a: memory 96M → 80M (restart)"]
    assert only(told(text, then=again, prepare=connected)[0], "connection") == [
        "- connection b → a: 1 to 80/tcp"
    ]


@given(states(), states().filter(lambda state: state.switch))
def test_the_numbers_are_those_of_the_difference(now, wanted):
    actions = plan(now, wanted)
    assume(actions)
    summary = summarize(now, wanted, actions, None, Record("small", Source("f", ""), 1, 0, "boot"))
    old, new = ({flow.key: flow for flow in state.flows} for state in (now, wanted))
    both = old.keys() & new.keys()
    kept = sum(old[key] == new[key] for key in both)
    assert summary.flows == Count(len(new) - len(both), len(both) - kept, len(old) - len(both), kept)
    for count, things in (
        (summary.vms, lambda state: {guest.name for guest in state.guests}),
        (summary.ports, lambda state: {port.ifname for port in state.ports}),
    ):
        old, new = things(now), things(wanted)
        assert (count.added, count.removed) == (len(new - old), len(old - new))
        assert count.there == len(old)


def test_a_plan_has_the_same_name_in_every_process():
    """Sets of flows have another order in each; the name must not depend on it."""
    code = (
        "from vnet.fabric.outcome import Outcome\n"
        "from vnet.fabric.actions import ApplyFlows\n"
        "from vnet.openflow.flow import Flow, match\n"
        "flows = frozenset(Flow(0, n, match(in_port=n), cookie=n) for n in range(50))\n"
        "print(Outcome('small', 1, (ApplyFlows(flows, frozenset()),)).id)\n"
    )
    names = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(names) == 1


def test_the_same_actions_on_another_generation_are_another_plan():
    actions = (act.CreateSwitch(),)
    assert Outcome("small", 1, actions).id == Outcome("small", 1, actions).id
    assert len({Outcome("small", n, actions).id for n in (1, 2)} | {Outcome("other", 1, actions).id}) == 3


@pytest.mark.parametrize(
    ("count", "most"),
    [
        (Count(removed=1), True),
        (Count(removed=2, kept=1, added=9), True),
        (Count(removed=2, changed=1, kept=1), False),
    ],
)
def test_more_removed_than_kept_is_told(count, most):
    assert count.removes_most is most


def test_a_limit_changes_live_and_the_plan_says_from_what_to_what(told):
    profiles = "profiles: {busy: {limits: {connections: 100}}}\n"
    text = SMALL.replace("networks: [lan]", "interfaces: {eth0: {network: lan, profile: busy}}", 1) + profiles
    lines, summary = told(SMALL, then=text)
    assert lines == ["~ port a.eth0: live: connections 16384 → 100"]
    assert (summary.ports.changed, summary.vms.kept) == (1, 2)


def test_an_mtu_changes_live_at_ports_and_in_guests(told):
    lines, summary = told(SMALL, then=SMALL.replace("subnets:", "mtu: 9000, subnets:", 1))
    assert "~ port a.eth0: live: MTU 1500 → 9000" in lines
    assert "~ vm a: eth0 MTU 1500 → 9000 (live)" in lines
    assert (summary.ports.changed, summary.vms.changed) == (2, 2)


def test_a_rate_changes_live_and_the_plan_says_from_what_to_what(told):
    slow, quick = (
        SMALL.replace("networks: [lan]", f"interfaces: {{eth0: {{network: lan, rate: {rate}}}}}", 1)
        for rate in ("10M", "{in: 100M, out: 10M}")
    )
    lines, summary = told(slow, then=quick)
    assert lines == ["~ port a.eth0: live: in 10M/s, out 10M/s → in 100M/s, out 10M/s"]
    assert (summary.ports.changed, summary.vms.kept) == (1, 2)


OUTSIDE = """\
name: small
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
routers: {gw: {networks: [lan], uplink: host}}
vms: {a: {image: micro, memory: 96M, networks: [lan], ports: ["8080:80/tcp"], floating: 198.51.100.5}}
"""


def test_ways_out_are_told_with_what_they_open(told):
    lines, _ = told("", then=OUTSIDE)
    (line,) = only(lines, "gateway")
    assert line == (
        "+ gateway gw: by the host, translated, 127.0.0.1:8080/tcp published, 198.51.100.5 is 10.0.0.2"
    )
    other = OUTSIDE.replace("8080:80", "8081:80").replace("uplink: host", "uplink: host, nat: none")
    lines, _ = told(OUTSIDE, then=other)
    (line,) = only(lines, "gateway")
    assert line == (
        "~ gateway gw: live: not translated, 127.0.0.1:8081/tcp published,"
        " no more translated, no more 127.0.0.1:8080/tcp published"
    )
    closed = OUTSIDE.replace(", uplink: host", "").replace(
        ', ports: ["8080:80/tcp"], floating: 198.51.100.5', ""
    )
    lines, _ = told(OUTSIDE, then=closed)
    assert only(lines, "gateway") == ["- gateway gw: nothing leads outside any more"]
