"""Rules that are told to decide nothing do not decide any packet, and no others are told."""

from __future__ import annotations

from itertools import islice

from hypothesis import given, settings

from tests.exams.policies.small import fabric, of_two_rules, packets
from tests.generators import Builder, World, worlds
from vnet.policy.compile import compile
from vnet.policy.idle import NOBODY, NOT_REACHED, idle
from vnet.policy.origin import OriginKind, of_rule
from vnet.policy.semantics import Packet, decide, in_order
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


def deciding(topology: Topology, inventory: Inventory, packet: Packet) -> set[str]:
    """The rules that had a say, of those that do not pass the packet on to the next tier."""
    verdict = decide(topology, inventory, packet)
    said = (verdict.origin, verdict.egress)
    return {one.key.removesuffix(" audited") for one in said if one and one.kind is OriginKind.RULE}


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_no_rule_that_is_told_decides_a_packet(world: World) -> None:
    told = idle(world.topology, compile(world.topology, world.inventory)).keys()
    for packet in world.packets:
        if not packet.admitted and not packet.reply:
            assert told.isdisjoint(deciding(world.topology, world.inventory, packet)), packet


def test_every_rule_that_decides_no_packet_is_told() -> None:
    tried = 0
    for policies in islice(of_two_rules(), 0, None, 7):
        topology, inventory = fabric(policies)
        rules = {
            of_rule(policy, rule).key
            for policy in in_order(topology)
            for rule in (*(policy.ingress or ()), *(policy.egress or ()))
            if rule.action.value != "pass"
        }
        asked = [packet for packet in packets(topology, inventory) if not packet.admitted]
        busy = set().union(*(deciding(topology, inventory, packet) for packet in asked))
        told = idle(topology, compile(topology, inventory)).keys()
        assert rules - busy == rules & told, policies
        tried += 1
    assert tried > 1000


def test_what_several_rules_shadow_together_and_who_is_not_there() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net").vm("c", "net")
    builder.policy(
        "web", "vm:a", ingress=["allow vm:b", "deny vm:c", "allow any 80/tcp", "allow 192.0.2.0/24"]
    )
    topology, inventory = builder.build()
    assert idle(topology, compile(topology, inventory)) == {
        "rule web ingress 3": NOT_REACHED,
        "rule web ingress 4": NOBODY,
    }
