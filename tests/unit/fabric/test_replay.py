"""Recorded flows run through a change: who would be decided otherwise, by which line, how often."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import World, worlds
from vnet.fabric.declared import Declared, declare
from vnet.fabric.replay import VerdictChange, changes_of_verdict
from vnet.fabric.seen import Seen, Verdict
from vnet.fabric.store import Source
from vnet.openflow.fields import ICMP, ICMPV6, TCP
from vnet.policy.compile import compile
from vnet.policy.semantics import Packet, decide

NOW = datetime(2026, 11, 28, 14, 3, tzinfo=UTC)
BEFORE = """\
name: x
networks: {lan: {vlan: 10, subnets: 10.0.0.0/16}}
vms: {web: {networks: [lan], replicas: 2}, db: {networks: [lan]}, mon: {networks: [lan]}}
policies:
  - {name: db, applied_to: "vm:db", ingress: [{from: "vm:web", ports: [5432/tcp]}, {from: any, ports: icmp}]}
"""


def declared(text: str) -> Declared:
    return declare(Source("vnet.yaml", text), {}, NOW)


def seen(source: str, destination: str, port: int, packets: int = 1, **fields) -> Seen:
    values = {"verdict": Verdict.ALLOWED, "reason": "", "by": None, "bytes": 0, "first": NOW, "last": NOW}
    ends = {"source_address": None, "destination_address": None, "network": "lan", "protocol": TCP}
    return Seen(
        **{
            "source": source,
            "destination": destination,
            "port": port,
            "packets": packets,
            "generation": 1,
            **ends,
            **values,
            **fields,
        }
    )


def told(*flows: Seen, after: str) -> list[str]:
    return list(map(str, changes_of_verdict(flows, declared(BEFORE), declared(after))))


def test_a_flow_that_is_stopped_is_told_with_the_line_that_stops_it() -> None:
    after = BEFORE.replace("ports: [5432/tcp]}", "ports: [5433/tcp]}")
    flows = [seen("web-1.eth0", "db.eth0", 5432, 1200), seen("web-1.eth0", "db.eth0", 5432, 4)]
    assert told(*flows, seen("mon.eth0", "db.eth0", 5432), after=after) == [
        "web-1 -> db:5432/tcp  allowed -> denied by vnet.yaml:5 (1,204 packets, last 2026-11-28 14:03)"
    ]


def test_those_that_are_stopped_come_first_and_of_them_the_busiest() -> None:
    after = BEFORE.replace('"vm:web", ports: [5432/tcp]', '"vm:mon", ports: [5432/tcp]')
    flows = [
        seen("mon.eth0", "db.eth0", 5432, 999, verdict=Verdict.DENIED, reason="POLICY"),
        seen("web-1.eth0", "db.eth0", 5432, 7),
        seen("web-2.eth0", "db.eth0", 5432, 8),
    ]
    found = changes_of_verdict(flows, declared(BEFORE), declared(after))
    assert [(each.source, each.becomes.value) for each in found] == [
        ("web-2", "denied"),
        ("web-1", "denied"),
        ("mon", "allowed"),
    ]


def test_what_is_only_audited_from_now_on_is_told_as_that() -> None:
    after = BEFORE.replace('applied_to: "vm:db"', 'applied_to: "vm:db", enforcement: audit')
    flow = seen("mon.eth0", "db.eth0", 5432, verdict=Verdict.DENIED, reason="POLICY")
    (found,) = changes_of_verdict([flow], declared(BEFORE), declared(after))
    assert (found.was, found.becomes) == (Verdict.DENIED, Verdict.AUDITED)


def test_a_vm_that_goes_takes_its_flows_along() -> None:
    after = BEFORE.replace(", replicas: 2", ", replicas: 1")
    assert told(seen("web-2.eth0", "db.eth0", 5432), after=after) == [
        "web-2 -> db:5432/tcp  allowed -> denied: no longer there: its VM or its address goes"
        " (1 packet, last 2026-11-28 14:03)"
    ]


def test_what_a_guard_dropped_is_not_looked_at() -> None:
    flow = seen("web-1.eth0", "db.eth0", 5432, verdict=Verdict.DENIED, reason="SPOOF_IP")
    assert told(flow, after=BEFORE.replace("5432", "5433")) == []


def test_an_echo_is_called_icmp() -> None:
    flow = seen("mon.eth0", "db.eth0", 8, protocol=ICMP)
    assert told(flow, after=BEFORE.replace("ports: icmp", "ports: ssh"))[0].startswith(
        "mon -> db:icmp  allowed -> denied"
    )


def test_the_same_rules_change_nothing() -> None:
    flows = [seen("web-1.eth0", "db.eth0", port) for port in range(1, 100)]
    assert told(*flows, after=BEFORE) == []


def of(packet: Packet) -> Seen:
    """The flow of a packet; what was recorded of it does not matter."""
    port = packet.icmp_type if packet.protocol in (ICMP, ICMPV6) else packet.target_port
    return seen(
        packet.source_nic,
        packet.target_nic,
        port,
        source_address=packet.source,
        destination_address=packet.target,
        network="",
        protocol=packet.protocol,
    )


@settings(max_examples=40, deadline=None)
@given(worlds(max_packets=30, outside=False), st.data())
def test_the_verdicts_are_those_of_the_language(world: World, data: st.DataObject) -> None:
    """Every flow whose packets the law decides otherwise after the change is told, and no other."""
    policies = world.topology.policies
    kept = data.draw(st.lists(st.sampled_from(policies), unique=True))
    after = replace(world.topology, policies=tuple(each for each in policies if each in kept))
    sides = [
        Declared(topology, world.inventory, compile(topology, world.inventory))
        for topology in (world.topology, after)
    ]
    for packet in world.packets:
        new = replace(packet, admitted=False)
        was, becomes = (decide(side.topology, side.inventory, new) for side in sides)
        guarded = was.reason.name not in ("NONE", "POLICY", "REJECTED", "ISOLATED", "NO_DST")
        if packet.reply or guarded:
            continue
        (*found,) = changes_of_verdict([of(packet)], *sides)
        changed = any(Verdict.DENIED in (each.was, each.becomes) for each in found)
        assert changed == (was.allowed != becomes.allowed), (str(packet), found)


def test_a_hundred_thousand_flows_take_a_second_or_two() -> None:
    many = "name: x\nnetworks: {lan: {vlan: 10, subnets: 10.0.0.0/16}}\n"
    many += "vms: {a: {networks: [lan], replicas: 300}}\n"
    rules = "".join(f"      - {{from: any, ports: [{port}/tcp]}}\n" for port in range(1000, 1200))
    text = f'{many}policies:\n  - name: p\n    applied_to: "vm:a"\n    ingress:\n{rules}'
    before, after = declared(text), declared(text.replace("ports: [1100/tcp]", "ports: [2100/tcp]"))
    flows = [
        seen(
            f"a-{n % 300 + 1}.eth0",
            f"a-{(n + 1 + n // 300) % 300 + 1}.eth0",
            1000 + n % 211,
            last=NOW + timedelta(seconds=n % 60),
            source_address=ip_address(f"10.0.{n % 300 // 250}.1"),
        )
        for n in range(100_000)
    ]
    begin = time.process_time()
    found = changes_of_verdict(flows, before, after)
    taken_s = time.process_time() - begin
    assert {(each.service, each.becomes) for each in found} == {("1100/tcp", Verdict.DENIED)}
    assert taken_s < 4, f"{taken_s:.1f} s"


def test_a_change_says_what_it_is() -> None:
    (found,) = changes_of_verdict(
        [seen("web-1.eth0", "db.eth0", 5432)], declared(BEFORE), declared(BEFORE.replace("5432", "5433"))
    )
    assert isinstance(found, VerdictChange)
    assert (found.by.policy, found.by.at) == ("", "vnet.yaml:5")


def test_flows_may_name_vms_instead_of_nics() -> None:
    after = BEFORE.replace("ports: [5432/tcp]}", "ports: [5433/tcp]}")
    by_nic = told(seen("web-1.eth0", "db.eth0", 5432), after=after)
    assert told(seen("web-1", "db", 5432), after=after) == by_nic != []
    assert told(seen("web-1", "db", 5432, network=""), after=after) == by_nic
    assert told(seen("web-1", "db", 5432, network="other"), after=after) == []
