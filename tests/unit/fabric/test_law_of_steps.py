"""Laws 3, 5 and 6: what packets meet while a plan is carried out, after a change and back, and elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, builders, header, worlds
from tests.unit.policy.law import fates, same
from vnet.fabric import actions as act
from vnet.fabric.plan import plan
from vnet.fabric.state import Port, State, desired, port_of
from vnet.openflow.fields import CtState
from vnet.policy.compile import Compiler, compile
from vnet.policy.difference import normal
from vnet.policy.semantics import decide
from vnet.policy.space import Region, exactly
from vnet.policy.walk import Walk
from vnet.topology.inventory import Assignment, Inventory, Nic
from vnet.topology.model import Topology


def state_of(topology: Topology, inventory: Inventory) -> State:
    return desired(inventory, tuple(map(normal, compile(topology, inventory).flows)))


class Seen:
    """What a state of the switch does with a frame, ports named by their interfaces."""

    def __init__(self, state: State) -> None:
        self._attached = state.attached
        self._walk = Walk(state.flows)

    def passes(self, sender: Port, fields: Mapping[str, int], established: bool) -> frozenset[Port]:
        if sender not in self._attached:
            return frozenset()
        state = CtState.TRK | (CtState.EST if established else CtState.NEW)
        (leaf,) = self._walk.leaves(Region(exactly(**fields)), state, int(established))
        return frozenset(port for port in self._attached if port.number in leaf.outputs)


def steps(now: State, wanted: State) -> Iterator[State]:
    yield now
    for action in plan(now, wanted):
        now = act.step(action, now)
        yield now


@settings(max_examples=25, deadline=None)
@given(worlds(max_vms=4, max_packets=10, outside=False), worlds(max_vms=4, max_packets=10, outside=False))
def test_every_step_lets_through_what_both_do_and_nothing_that_neither_does(
    before: World, after: World
) -> None:
    """Law 3. NICs that are in both keep number and MAC."""
    old, first = before.topology, before.inventory
    new, second = after.topology, _continued(first, after.inventory)
    tried = []
    for packets, inventory in ((before.packets, first), (after.packets, second)):
        ports = {nic.name: port_of(nic) for nic in inventory.nics}
        tried += [(ports[one.source_nic], header(inventory, one), one.admitted) for one in packets]
    a, b = state_of(old, first), state_of(new, second)
    ends = Seen(a), Seen(b)
    outcomes = [tuple(end.passes(*frame) for end in ends) for frame in tried]
    for state in steps(a, b):
        now = Seen(state)
        for frame, (in_old, in_new) in zip(tried, outcomes, strict=True):
            passed = now.passes(*frame)
            assert passed <= in_old | in_new
            assert passed >= in_old & in_new


def _continued(first: Inventory, second: Inventory) -> Inventory:
    """As `expand` does it: a NIC that was there keeps its number and MAC, a new one gets others."""
    known = {nic.name: nic for nic in first.nics}

    def placed(nic: Nic) -> Nic:
        was = known.get(nic.name)
        if was:
            return replace(nic, port=was.port, mac=was.mac)
        return replace(nic, port=nic.port + 100, mac=nic.mac | 1 << 43)

    vms = tuple(replace(vm, nics=tuple(map(placed, vm.nics))) for vm in second.vms)
    return replace(second, vms=vms)


@settings(max_examples=40, deadline=None)
@given(builders(outside=False), builders(outside=False))
def test_there_and_back_again_is_where_it_was(one: Builder, other: Builder) -> None:
    """Law 5: flows by key, their order, and what they come from."""
    world, elsewhere = one.build(), other.build()
    compiler = Compiler(*world)
    before = compiler.compiled
    there, back = compiler.update(*elsewhere), compiler.update(*world)
    assert compiler.compiled.flows == before.flows
    assert compiler.compiled.provenance == before.provenance
    assert (set(there.added), set(there.removed)) == (set(back.removed), set(back.added))


@settings(max_examples=40, deadline=None)
@given(worlds(max_packets=20, outside=False), st.randoms(use_true_random=False))
def test_where_vms_are_plugged_in_is_no_matter(world: World, mixed: Random) -> None:
    """Law 6: other port numbers, other MACs, another order of VMs; the same verdict and the same rule."""
    topology, inventory = world.topology, world.inventory
    nics = list(inventory.nics)
    mixed.shuffle(nics)
    moved = {
        nic.name: Assignment(100 + place, 0x5254_0000_0000 | place, nic.addresses)
        for place, nic in enumerate(nics)
    }
    vms = [
        replace(
            vm,
            nics=tuple(replace(n, port=moved[n.name].port, mac=moved[n.name].mac) for n in vm.nics),
        )
        for vm in inventory.vms
    ]
    mixed.shuffle(vms)
    elsewhere = replace(inventory, vms=tuple(vms), assignments=moved)
    compiled = compile(topology, elsewhere)
    walk = Walk(compiled.flows)
    for packet in world.packets:
        if packet.source.is_link_local or packet.target.is_link_local:
            continue  # these follow the MAC
        verdict = decide(topology, inventory, packet)
        for leaf in fates(walk, elsewhere, packet):
            assert same(compiled, elsewhere, verdict, leaf, packet), (packet, verdict, leaf)
