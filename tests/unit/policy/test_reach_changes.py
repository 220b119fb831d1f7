"""What a change opens and closes is what the matrices of before and after differ in."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, builders
from vnet.policy.compile import Compiled, compile
from vnet.policy.endpoint import endpoints
from vnet.policy.matrix import NOTHING, Matrix, less
from vnet.policy.reach_changes import Reach, Side, reach_changes
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology

Fabric = tuple[Topology, Inventory]


def changes(before: Fabric, after: Fabric) -> tuple[Reach, ...]:
    old, new = compile(*before), compile(*after)
    touched = set(old.flows) ^ set(new.flows)
    sides = Side(old.flows, old.identities, before[0]), Side(new.flows, new.identities, after[0])
    return reach_changes(*sides, touched)


def allowed(fabric: Fabric, compiled: Compiled, matrix: Matrix, one: object, other: object) -> object:
    known = compiled.identities.of
    return matrix.allowed(known[one], known[other]) if one in known and other in known else NOTHING


@settings(max_examples=60, deadline=None)
@given(builders(), st.data())
def test_every_pair_whose_answer_changes_is_told_and_no_other(builder: Builder, data: st.DataObject) -> None:
    topology, inventory = builder.build()
    kept = data.draw(
        st.lists(st.sampled_from(topology.policies), unique=True) if topology.policies else st.just([])
    )
    gone = data.draw(st.integers(0, 1))
    after = (
        replace(topology, policies=tuple(p for p in topology.policies if p in kept)),
        replace(inventory, vms=inventory.vms[gone:]),
    )
    old, new = compile(topology, inventory), compile(*after)
    was, becomes = Matrix(old.flows), Matrix(new.flows)
    told = {(each.source, each.target): each for each in changes((topology, inventory), after)}
    expected: dict[tuple[str, str], list[object]] = {}
    ends = [end for end in endpoints(topology, inventory) if not end.address.is_link_local]
    for one in ends:
        for other in ends:
            same_place = (one.nic.network, one.address.version) == (other.nic.network, other.address.version)
            apart = one.nic.is_isolated and other.nic.is_isolated
            if one.vm.name == other.vm.name or not same_place or apart:
                continue
            keys = (one.name, one.address), (other.name, other.address)
            first = allowed((topology, inventory), old, was, *keys)
            second = allowed(after, new, becomes, *keys)
            if first != second:
                expected[one.vm.spec, other.vm.spec] = [less(second, first), less(first, second)]
    for source, target in expected:
        near = [each for (a, b), each in told.items() if names(a, source) and names(b, target)]
        assert near, (source, target, told)
    if not expected and not topology.routers:  # by a router others may meet than those of one network
        assert all(is_outside(source) or is_outside(target) for source, target in told)


def is_outside(label: str) -> bool:
    return any("/" in name or name in ("internet", "host") for name in label.split(", "))


def names(label: str, spec: str) -> bool:
    return label.endswith("more") or spec in label.split(", ")


def two(*rules: str, vms: int = 2) -> Fabric:
    builder = Builder().network("net", 10, "10.0.0.0/24")
    for number in range(vms):
        builder.vm(f"vm{number}", "net", groups=["servers" if number == 1 else "clients"])
    return builder.policy("p", "servers", ingress=rules).build()


def test_a_rule_that_is_exchanged_opens_and_closes() -> None:
    (change,) = changes(two("allow clients 80/tcp"), two("allow clients 443/tcp,80/tcp"))
    assert (change.source, change.target, change.opens, change.closes) == (
        "vm0",
        "vm1",
        ((6 << 16 | 443, 6 << 16 | 443),),
        (),
    )
    assert changes(two("allow clients 80/tcp"), two("allow clients 80/tcp")) == ()


def test_a_new_vm_opens_what_it_may() -> None:
    found = changes(two("allow any 80/tcp"), two("allow any 80/tcp", vms=3))
    assert [(each.source, each.target) for each in found] == [("vm2", "vm1")]
    assert found[0].opens == ((6 << 16 | 80, 6 << 16 | 80),)


def test_a_rule_that_another_covers_changes_nothing() -> None:
    assert changes(two("allow any 80/tcp"), two("allow any 80/tcp", "allow clients 80/tcp")) == ()
