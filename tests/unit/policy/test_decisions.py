"""All that rules make of connections between two VMs."""

from __future__ import annotations

from hypothesis import given, settings

from tests.generators import Builder, World, three_tier, worlds
from vnet.base.source import Location
from vnet.policy.compile import compile
from vnet.policy.decisions import Decision, decisions
from vnet.policy.matrix import EVERY, joined
from vnet.policy.reach import reach
from vnet.topology.model import Peer, PeerKind

AT = Location("test")


def between(builder: Builder, source: str, target: str) -> list[Decision]:
    topology, inventory = builder.build()
    peers = (Peer(PeerKind.VM, name, AT) for name in (source, target))
    return list(decisions(topology, inventory, compile(topology, inventory), *peers))


def told(builder: Builder, source: str, target: str) -> list[tuple[str, bool, str]]:
    return [(one.ports, one.allowed, one.origin.rule) for one in between(builder, source, target)]


def test_what_is_allowed_comes_first_and_the_default_last() -> None:
    found = [one for one in between(three_tier(), "web", "app") if one.source == "web-1"]
    assert [(one.ports, one.allowed, one.origin.policy) for one in found] == [
        ("icmp, 8080/tcp", True, "app-from-web"),
        ("other protocols, 0-8079/tcp, 8081-65535/tcp, udp, sctp", False, ""),
    ]
    assert "policies applied: app-from-web" in found[-1].by


def test_egress_that_refuses_has_the_last_word() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
    builder.policy("in", "vm:b", ingress=["allow any"])
    builder.policy("out", "vm:a", egress=["deny any 22/tcp", "allow any"])
    assert told(builder, "a", "b")[-1] == ("22/tcp", False, "egress 1")


def test_families_that_fare_otherwise_are_told_apart() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24", "fd00::/64").vm("a", "net").vm("b", "net")
    builder.policy("p", "vm:b", ingress=["allow 10.0.0.0/24 80/tcp"])
    assert told(builder, "a", "b")[0] == ("80/tcp over IPv4", True, "ingress 1")
    assert ("any over IPv6", False, "") in told(builder, "a", "b")


def test_vms_without_a_network_in_common_have_none() -> None:
    assert between(three_tier(), "web", "db") == []


@settings(max_examples=25, deadline=None)
@given(worlds(max_packets=1))
def test_decisions_are_of_all_services_and_agree_with_the_matrix(world: World) -> None:
    topology, inventory = world.topology, world.inventory
    compiled = compile(topology, inventory)
    everyone = Peer(PeerKind.ANY, "any", AT)
    found = decisions(topology, inventory, compiled, everyone, everyone)
    open_pairs = {
        (pair.source, pair.target) for pair in reach(topology, inventory, compiled) if pair.ports != "-"
    }
    assert {(one.source, one.target) for one in found if one.allowed} == open_pairs
    for pair in {(one.source, one.target) for one in found}:
        spans = [span for one in found if (one.source, one.target) == pair for span in one.services]
        assert joined(spans) == joined(EVERY)
