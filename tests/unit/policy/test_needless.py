"""Rules that are told to be needless can be left out, each by itself, and all others cannot."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice, product

import pytest
from hypothesis import HealthCheck, given, settings

from tests.exams.policies.small import fabric, of_two_rules
from tests.exams.policies.small import packets as small_packets
from tests.generators import Builder, World, everybody, worlds
from vnet.openflow.fields import ICMP, ICMPV6, SCTP, TCP, UDP
from vnet.policy.endpoint import Endpoint, endpoints, reached_by
from vnet.policy.identity import identify
from vnet.policy.needless import Finding, Kind, needless
from vnet.policy.origin import Lets, OriginKind, of_rule
from vnet.policy.semantics import Packet, Verdict, decide, in_order, rules_of, selects_any
from vnet.topology.inventory import Inventory
from vnet.topology.model import Action, Direction, Established, Policy, Rule, Topology

RuleAt = tuple[Policy, Rule]


def told(topology: Topology, inventory: Inventory) -> dict[str, Finding]:
    return dict(needless(topology, identify(topology, inventory)))


def all_rules(topology: Topology) -> dict[str, RuleAt]:
    found = (
        (policy, rule)
        for policy in in_order(topology)
        for direction in Direction
        for rule in rules_of(policy, direction) or ()
    )
    return {of_rule(policy, rule).key: (policy, rule) for policy, rule in found}


def without(topology: Topology, gone: RuleAt) -> Topology:
    """The topology without one rule; its list stays, and the other rules' numbers."""

    def rest(policy: Policy) -> Policy:
        if policy.name != gone[0].name:
            return policy
        which = gone[1].direction.value
        return replace(policy, **{which: tuple(r for r in getattr(policy, which) if r is not gone[1])})

    return replace(topology, policies=tuple(map(rest, topology.policies)))


def end(verdict: Verdict) -> tuple[object, ...]:
    """What there is to see of a verdict: whether it passes, why not, and what is noted of it."""
    notes = [
        (said.log, said.lets is Lets.AUDITED)
        for said in (verdict.egress, None if verdict.egress is verdict.origin else verdict.origin)
        if said is not None
    ]
    return verdict.allowed, verdict.reason, *notes, *[(False, False)] * (2 - len(notes))


def writes(topology: Topology, inventory: Inventory, gone: RuleAt, packet: Packet) -> bool:
    """Whether the rule itself logs the packet: nobody else's record would name it."""
    key = of_rule(*gone).key
    verdict = decide(topology, inventory, packet)
    said = (each for each in (verdict.egress, verdict.origin) if each is not None and each.log)
    return gone[1].log and any(each.key.removesuffix(" audited") == key for each in said)


def changes(topology: Topology, inventory: Inventory, gone: RuleAt, packet: Packet) -> bool:
    before, after = (decide(each, inventory, packet) for each in (topology, without(topology, gone)))
    return end(before) != end(after) or writes(topology, inventory, gone, packet)


def spoken_of(topology: Topology, inventory: Inventory, gone: RuleAt) -> Iterator[Packet]:
    """What the rule may speak of: a packet for each two endpoints and each span that no rule cuts."""
    policy, rule = gone
    ends = everybody(topology, inventory)
    own = endpoints(topology, inventory)
    subjects = [one for one in own if selects_any(topology, policy.applied_to, one)]
    peers = [one for one in ends if selects_any(topology, rule.peers, one)]
    clients, servers = (peers, subjects) if rule.direction is Direction.INGRESS else (subjects, peers)
    for client, server, admitted in product(clients, servers, (False, True)):
        if client.address.version == server.address.version and client.name != server.name:
            for protocol, port in _edges(topology):
                yield _packet(client, server, protocol, port, admitted)


def _edges(topology: Topology) -> set[tuple[int, int]]:
    """The lowest of each span of ports that no rule cuts, and echo and another protocol."""
    found = {(protocol, 0) for protocol in (TCP, UDP, SCTP)} | {(ICMP, 8), (47, 0)}
    for _, rule in all_rules(topology).values():
        for service in rule.services:
            if service.protocol in (TCP, UDP, SCTP) and service.ports:
                found |= {(service.protocol, service.ports[0]), (service.protocol, service.ports[1] + 1)}
    return {(protocol, port) for protocol, port in found if port <= 0xFFFF}


def _packet(client: Endpoint, server: Endpoint, protocol: int, port: int, admitted: bool) -> Packet:
    ends = client.name, client.address, server.name, server.address
    if protocol == ICMP:
        kind = (ICMP, 8) if client.address.version == 4 else (ICMPV6, 128)
        return Packet(*ends, kind[0], icmp_type=kind[1], admitted=admitted)
    return Packet(*ends, protocol, 40_000, port, admitted=admitted)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_without_a_needless_rule_no_packet_fares_otherwise(world: World) -> None:
    rules = all_rules(world.topology)
    for key, packet in product(told(world.topology, world.inventory), world.packets):
        assert not changes(world.topology, world.inventory, rules[key], packet), (key, packet)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(max_vms=3, max_policies=4, max_packets=2))
def test_without_any_other_rule_some_packet_fares_otherwise(world: World) -> None:
    topology, inventory = world.topology, world.inventory
    found = told(topology, inventory)
    for key, gone in all_rules(topology).items():
        changed = any(changes(topology, inventory, gone, p) for p in spoken_of(topology, inventory, gone))
        assert changed == (key not in found), (key, found.get(key))


def test_all_of_this_holds_for_small_policies() -> None:
    tried = 0
    for policies in islice(of_two_rules(), 0, None, 11):
        topology, inventory = fabric(policies)
        asked = [*small_packets(topology, inventory)]
        found = told(topology, inventory).keys()
        for key, gone in all_rules(topology).items():
            changed = any(changes(topology, inventory, gone, packet) for packet in asked)
            assert changed == (key not in found), (policies, key)
        tried += 1
    assert tried > 800


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds())
def test_the_packet_of_a_finding_shows_it(world: World) -> None:
    topology, inventory = world.topology, world.inventory
    rules = all_rules(topology)
    for key, finding in told(topology, inventory).items():
        if finding.packet is None:
            assert finding.kind in (Kind.ABSENT, Kind.IMPOSSIBLE)
            continue
        assert finding.by is not None
        policy, rule = rules[key]
        ends = {(one.name, one.address): one for one in everybody(topology, inventory)}
        if not reached_by(ends.values())[finding.packet.target_nic, finding.packet.target]:
            continue  # whoever has the address now, no packet gets there
        client = ends[finding.packet.source_nic, finding.packet.source]
        server = ends[finding.packet.target_nic, finding.packet.target]
        subject, peer = (server, client) if rule.direction is Direction.INGRESS else (client, server)
        assert selects_any(topology, policy.applied_to, subject) and selects_any(topology, rule.peers, peer)
        shown = topology if not finding.decides else without(topology, rules[key])
        verdict = decide(shown, inventory, finding.packet)
        said = [plain(each.key) for each in (verdict.egress, verdict.origin) if each is not None]
        passed_on = finding.by.kind is OriginKind.RULE and finding.does == "passed on"
        assert passed_on or finding.by.key in said, (key, finding, said)
        if finding.decides and rule.action is not Action.PASS:
            now = decide(topology, inventory, finding.packet)
            assert key in [plain(each.key) for each in (now.egress, now.origin) if each is not None]


def plain(key: str) -> str:
    """The key of an origin of which something is let pass or answered."""
    return key.removesuffix(" audited").removesuffix(" kept").removesuffix(" reset")


def three() -> Builder:
    return Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net").vm("c", "net")


REDUNDANT, SHADOWED, BLOCKED, IMPOSSIBLE, ABSENT = (
    Kind.REDUNDANT,
    Kind.SHADOWED,
    Kind.BLOCKED,
    Kind.IMPOSSIBLE,
    Kind.ABSENT,
)


@pytest.mark.parametrize(
    ("ingress", "kinds"),
    [
        (["deny vm:b 22/tcp"], {1: REDUNDANT}),  # it is closed anyway
        (["reject vm:b 22/tcp"], {}),  # closed too, but the sender is told
        (["allow vm:b 80/tcp", "allow any 80-90/tcp"], {1: REDUNDANT}),
        (["allow vm:b 80/tcp", "deny any 80/tcp", "allow any"], {}),
        (["allow any", "allow vm:b 80/tcp"], {2: SHADOWED}),
        (["allow any 80/tcp", "allow any 80/tcp"], {1: REDUNDANT, 2: SHADOWED}),
        (
            ["allow vm:b", "deny vm:c", "allow any 80/tcp", "allow 192.0.2.0/24"],
            {3: BLOCKED, 4: ABSENT},
        ),
        (["allow any 80/tcp", "pass any"], {2: REDUNDANT}),  # nothing comes after it
        (["pass any 80/tcp", "allow any 80/tcp"], {2: SHADOWED}),
        (["allow any icmpv6:128"], {1: IMPOSSIBLE}),  # nobody has IPv6
        (["allow any 68/udp"], {1: IMPOSSIBLE}),  # port security drops it
    ],
)
def test_what_is_told_of_the_rules_of_one_vm(ingress: list[str], kinds: dict[int, Kind]) -> None:
    found = told(*three().policy("web", "vm:a", ingress=ingress).build())
    assert {key: each.kind for key, each in found.items()} == {
        f"rule web ingress {number}": kind for number, kind in kinds.items()
    }


@pytest.mark.parametrize("established", ["keep", "reset"])
def test_a_rule_that_treats_live_connections_otherwise_is_needed(established: str) -> None:
    builder = three().policy("closed", "vm:a", ingress=[])
    plain = told(*builder.policy("old", "vm:a", ingress=["deny vm:b"]).build())
    assert plain.keys() == {"rule old ingress 1"}
    builder.policies[-1] = replace(builder.policies[-1], established=Established(established))
    assert told(*builder.build()) == {}


def test_an_audited_no_differs_from_a_yes_and_from_an_enforced_no() -> None:
    builder = three().policy("audited", "vm:a", ingress=["deny vm:b"], enforcement="audit")
    assert told(*builder.build()).keys() == {"rule audited ingress 1"}, "its default is audited too"
    builder.policy("enforced", "vm:a", ingress=["allow any 80/tcp"])
    assert told(*builder.build()) == {}


def test_what_the_other_side_drops_anyway_need_not_be_allowed() -> None:
    builder = three().policy("out", "vm:b", egress=["allow vm:a 22/tcp", "allow any 80/tcp"])
    (found,) = told(*builder.policy("in", "vm:a", ingress=["allow vm:b 80/tcp"]).build()).values()
    assert (found.kind, found.rule.rule) == (REDUNDANT, "egress 1")
    assert found.example == (
        "tcp from b.eth0 10.0.0.12 port 40000 to a.eth0 10.0.0.11 port 22: else denied by default: "
        "egress of b: no rule matched; policies applied: out (test.vnet.yaml:5)"
    )


def test_what_never_comes_in_is_told_with_who_keeps_it_back() -> None:
    builder = three().policy("out", "any", egress=["deny vm:a 22/tcp", "allow any"])
    builder.policy("in", "vm:a", ingress=["deny any 22/tcp", "allow any 80/tcp"])
    found = told(*builder.build())["rule in ingress 1"]
    assert found.note == "never decides: out egress 1 (test.vnet.yaml:6) comes first"
    assert found.example.endswith("to a.eth0 10.0.0.11 port 22: denied by out egress 1 (test.vnet.yaml:6)")


def test_a_rule_that_writes_the_log_is_needed_and_so_is_one_that_keeps_out_of_it() -> None:
    topology, inventory = three().policy("web", "vm:a", ingress=["deny vm:b", "deny any"]).build()
    assert len(told(topology, inventory)) == 2
    (policy,) = topology.policies
    first, second = policy.ingress or ()
    for logged in ((replace(first, log=True), second), (first, replace(second, log=True))):
        changed = replace(topology, policies=(replace(policy, ingress=logged),))
        needed = {of_rule(policy, rule).key for rule in logged} - told(changed, inventory).keys()
        assert needed >= {of_rule(policy, rule).key for rule in logged if rule.log}
        assert "rule web ingress 1" in needed


def test_whom_a_rule_names_does_not_stand_for_all_others() -> None:
    builder = three().policy("out", "vm:b", egress=["allow vm:a"])
    builder.policy("in", "vm:a", ingress=["allow vm:b 80/tcp", "deny any 81/tcp", "allow any 80-81/tcp"])
    assert told(*builder.build()).keys() == {"rule in ingress 1"}


def test_a_thousand_identities_take_about_a_second() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/16")
    for number in range(1000):
        builder.vm(f"v{number}", "net", groups=[f"g{number % 50}"])
        near = [f"vm:v{(number + step) % 1000}" for step in (1, 2, 3)]
        rules = [
            f"allow {near[0]} 80/tcp",
            f"deny {near[1]},{near[2]}",
            f"allow g{number % 50} 22/tcp",
            "deny any",
        ]
        builder.policy(f"p{number}", f"vm:v{number}", ingress=rules)
    topology, inventory = builder.build()
    identities = identify(topology, inventory)
    assert len(identities.by_number) == 1000
    began = time.process_time()
    found = needless(topology, identities)
    assert time.process_time() - began < 5, "about a second on an idle machine"
    assert len(found) == 2000
