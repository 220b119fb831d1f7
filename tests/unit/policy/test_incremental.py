"""The compiler after a change: the same flows as when all is compiled anew, and only what differs is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, builders, three_tier
from vnet.openflow.flow import Flow
from vnet.policy import identity
from vnet.policy.compile import Compiler, compile
from vnet.policy.difference import Difference, diff
from vnet.policy.endpoint import Endpoint
from vnet.policy.pipeline import Stage
from vnet.topology.inventory import Inventory
from vnet.topology.model import Action, Policy, Topology

World = tuple[Topology, Inventory]


def flows(world: World) -> set[Flow]:
    return set(compile(*world).flows)


def check(compiler: Compiler, was: World, becomes: World) -> Difference:
    """Update, and compare with what is compiled anew."""
    before = flows(was)
    edit = compiler.update(*becomes)
    anew, kept = compile(*becomes), compiler.compiled
    assert kept.flows == anew.flows
    assert kept.provenance == anew.provenance
    assert kept.identities.of == anew.identities.of
    assert kept.identities.taken == anew.identities.taken
    assert edit == diff(before, anew.flows)
    return edit


@settings(max_examples=15, deadline=None)
@given(builders(), builders(), builders())
def test_any_fabric_becomes_any_other(first: Builder, second: Builder, third: Builder) -> None:
    worlds = first.build(), second.build(), third.build()
    compiler = Compiler(*worlds[0])
    for was, becomes in zip(worlds, (*worlds[1:], worlds[0]), strict=True):
        check(compiler, was, becomes)


def without_policy(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    kept = list(topology.policies)
    if kept:
        kept.pop(draw(len(kept)))
    return replace(topology, policies=tuple(kept)), inventory


def other_order(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    by = draw(len(topology.policies) or 1)
    return replace(topology, policies=topology.policies[by:] + topology.policies[:by]), inventory


def other_rule(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world

    def other(policy: Policy) -> Policy:
        rules = list(policy.ingress or ())
        if rules:
            k = draw(len(rules))
            rules[k] = replace(rules[k], action=[*Action][draw(4)], log=bool(draw(2)))
            if draw(2):
                rules.append(replace(rules[0], number=len(rules) + 1))
        return replace(policy, ingress=tuple(rules) if policy.ingress is not None else None)

    policies = list(topology.policies)
    if policies:
        k = draw(len(policies))
        policies[k] = other(policies[k])
    return replace(topology, policies=tuple(policies)), inventory


def other_tier(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    policies = list(topology.policies)
    if policies:
        k = draw(len(policies))
        policies[k] = replace(policies[k], tier=topology.tiers[draw(len(topology.tiers))])
    return replace(topology, policies=tuple(policies)), inventory


def nobody(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    return (topology if draw(2) else replace(topology, policies=topology.policies[1:])), replace(
        inventory, vms=()
    )


def without_vm(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    vms = list(inventory.vms)
    if vms:
        vms.pop(draw(len(vms)))
    return topology, replace(inventory, vms=tuple(vms))


def other_groups(world: World, draw: Callable[[int], int]) -> World:
    topology, inventory = world
    vms = list(inventory.vms)
    if len(vms) > 1:
        k, other = draw(len(vms)), vms[draw(len(vms))]
        vms[k] = replace(vms[k], groups=other.groups)
    return topology, replace(inventory, vms=tuple(vms))


EDITS = (without_policy, other_order, other_rule, other_tier, without_vm, other_groups, nobody)


@settings(max_examples=15, deadline=None)
@given(builders(), st.data())
def test_one_edit_after_another(builder: Builder, data: st.DataObject) -> None:
    def draw(below: int) -> int:
        return data.draw(st.integers(0, below - 1))

    world = builder.build()
    compiler = Compiler(*world)
    for _ in range(4):
        becomes = EDITS[draw(len(EDITS))](world, draw)
        check(compiler, world, becomes)
        world = becomes


def test_back_again_is_the_same() -> None:
    """Law 5."""
    world, other = three_tier().build(), three_tier().policy("p", "app", ingress=["allow web 1/tcp"]).build()
    compiler = Compiler(*world)
    there = check(compiler, world, other)
    back = check(compiler, other, world)
    assert {flow.key for flow in there.added} == {flow.key for flow in back.removed}
    assert {flow.key for flow in there.changed} == {flow.key for flow in back.changed}


def test_the_first_rule_that_is_logged_and_the_last_change_how_connections_are_delivered() -> None:
    topology, inventory = three_tier().build()
    policy = topology.policies[0]
    rules = tuple(replace(rule, log=True) for rule in policy.ingress or ())
    logged = replace(topology, policies=(replace(policy, ingress=rules), *topology.policies[1:]))
    compiler = Compiler(topology, inventory)
    edit = check(compiler, (topology, inventory), (logged, inventory))
    assert {flow.table for flow in edit.put} == {Stage.INGRESS + 1, Stage.DELIVER}
    check(compiler, (logged, inventory), (topology, inventory))


def test_a_rule_in_the_middle_moves_no_other_policy() -> None:
    """Priorities are rounded up from policy to policy."""

    def lab(*rules: str) -> World:
        builder = three_tier().policy("first", "app", ingress=rules)
        return builder.policy("second", "app", ingress=["allow web 2/tcp"]).build()

    was, becomes = lab("allow web 1/tcp"), lab("allow web 9/tcp", "allow web 1/tcp")
    edit = check(Compiler(*was), was, becomes)
    touched = {compile(*becomes).provenance[flow.cookie].policy for flow in edit.put}
    assert touched == {"first"}


def test_what_is_shared_is_not_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    topology, inventory = three_tier().build()
    compiler = Compiler(topology, inventory)
    made: list[Endpoint] = []
    of_end = identity.Classes.of

    def noted(self: identity.Classes, end: Endpoint) -> int:
        made.append(end)
        return of_end(self, end)

    monkeypatch.setattr(identity.Classes, "of", noted)
    vm = replace(inventory.vms[-1], cpus=2)
    assert compiler.update(topology, replace(inventory, vms=(*inventory.vms[:-1], vm))) == Difference()
    assert {end.vm.name for end in made} == {vm.name}


def test_colliding_numbers_are_the_same_as_when_compiled_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """With numbers of two bits they collide all the time."""
    digest = identity.digest

    def narrow(name: str, used: object) -> int:
        attempt = 0
        while True:
            number = 1 + digest(f"{name}#{attempt}", ()) % 16
            if number not in used:  # type: ignore[operator]
                return number
            attempt += 1

    monkeypatch.setattr(identity, "digest", narrow)
    policies = [f"p{n}" for n in range(6)]

    def lab(names: list[str]) -> World:
        builder = Builder().network("net", 10, "10.0.0.0/24")
        for name in policies:
            builder.vm(name, "net", groups=[name])
        for name in names:
            builder.policy(name, name, ingress=[f"allow {name} 1/tcp"])
        return builder.build()

    world = lab(policies[:1])
    compiler = Compiler(*world)
    for names in (policies[:3], policies, policies[2:], policies[:2], policies):
        becomes = lab(names)
        check(compiler, world, becomes)
        world = becomes


def outside(*rules: str) -> World:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
    builder.router("gw", "net", uplink="host").cable("wire", "net")
    builder.policy("first", "vm:a", ingress=["allow internet 80/tcp"])
    return (builder.policy("second", "vm:b", ingress=rules) if rules else builder).build()


def test_a_rule_that_tells_addresses_outside_apart_moves_only_what_speaks_of_them() -> None:
    was, becomes = outside(), outside("allow 203.0.113.0/24 22/tcp")
    compiler = Compiler(*was)
    edit = check(compiler, was, becomes)
    assert {flow.table for flow in edit.put} <= {
        Stage.SOURCE_GUARD,
        Stage.DESTINATION,
        Stage.INGRESS + 1,
        Stage.INGRESS + 2,
    }
    assert len(edit.put) < 12
    deeper = outside("allow 203.0.113.0/24 22/tcp", "deny 203.0.0.0/16 23/tcp")
    check(compiler, becomes, deeper)
    check(compiler, deeper, was)
