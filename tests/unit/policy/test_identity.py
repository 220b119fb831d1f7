"""Identities: one number for those whom no policy tells apart."""

from __future__ import annotations

from hypothesis import given, settings

from tests.generators import Builder, builders, three_tier
from vnet.policy.identity import Role, digest, identify, selector_of, used_selectors
from vnet.policy.semantics import selects
from vnet.topology.model import Peer, Topology


def used_peers(topology: Topology) -> set[Peer]:
    rules = [rule for p in topology.policies for rule in (*(p.ingress or ()), *(p.egress or ()))]
    return {peer for p in topology.policies for peer in p.applied_to} | {
        peer for rule in rules for peer in rule.peers
    }


def test_replicas_share_an_identity_and_tiers_do_not() -> None:
    identities = identify(*three_tier().build())
    by_vm = {identity.label: identity for identity in identities.by_number.values()}
    assert set(by_vm) == {"web", "app", "db", "intruder"}
    assert {end.vm.name for end in by_vm["web"].members} == {"web-1", "web-2"}
    assert by_vm["web"].families == {4, 6}


def test_a_cidr_tells_the_addresses_of_one_nic_apart() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24", "fd00::/64").vm("a", "net")
    assert len(identify(*builder.build()).by_number) == 1
    told_apart = builder.policy("p", "any", ingress=["allow 10.0.0.0/8"])
    assert len(identify(*told_apart.build()).by_number) == 2


def test_numbers_do_not_depend_on_who_else_is_there() -> None:
    def lab(*more: str) -> Builder:
        builder = Builder().network("net", 10, "10.0.0.0/16").vm("a", "net", groups=["web"])
        for name in more:
            builder.vm(name, "net", groups=["other", name])
        return builder.policy("p", "web,other", ingress=["allow web"])

    few, many = identify(*lab("x").build()), identify(*lab("x", "y", "z").build())
    number = few.select([p for p in lab().build()[0].policies[0].applied_to if p.value == "web"])
    assert number
    assert number <= set(many.by_number)


def test_groups_no_policy_names_do_not_matter() -> None:
    plain = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").build()
    grouped = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net", groups=["idle"]).build()
    assert set(identify(*plain).by_number) == set(identify(*grouped).by_number)


def test_colliding_digests_get_different_numbers_and_never_zero() -> None:
    first = digest("name", set())
    second = digest("name", {first})
    assert 0 not in (first, second)
    assert first != second
    assert second == digest("name", {first})


@settings(max_examples=30, deadline=None)
@given(builders())
def test_identities_select_exactly_whom_the_language_means(builder: Builder) -> None:
    topology, inventory = builder.build()
    identities = identify(topology, inventory)
    used = {each for policy in topology.policies for role in Role for each in used_selectors(policy, role)}
    assert set(map(selector_of, used_peers(topology))) == used
    named = {each for policy in topology.policies for each in used_selectors(policy, Role.PEER)}
    for identity in identities.by_number.values():
        for end in identity.members:
            assert identities.of[end.name, end.address] == identity.number
            for peer in used_peers(topology):
                if end.is_outside and selector_of(peer) not in named:
                    continue  # no policy applies to it, whatever its address
                assert selects(topology, peer, end) == (identity.number in identities.select([peer]))
