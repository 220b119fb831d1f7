"""The law, on the loaded program: compiled flows decide as the language says (architecture law 1)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.bpf.bench import Bench
from tests.generators import World, frame, three_tier, worlds
from vnet.base.drop import DropReason
from vnet.policy.compile import compile
from vnet.policy.semantics import Packet, decide


@pytest.fixture(scope="module")
def shared() -> Iterator[Bench]:
    """Loading the program takes half a second: one switch serves all examples."""
    with Bench(ports=16) as bench:
        yield bench


def opposite(packet: Packet) -> Packet:
    """The packet that opens the connection `packet` replies to."""
    from dataclasses import replace

    request = {0: 8, 129: 128}.get(packet.icmp_type or 0, packet.icmp_type)
    return replace(
        packet,
        source_nic=packet.target_nic,
        source=packet.target,
        target_nic=packet.source_nic,
        target=packet.source,
        source_port=packet.target_port,
        target_port=packet.source_port,
        icmp_type=request,
        reply=False,
    )


def deliver(bench: Bench, world: World, packet: Packet) -> bool:
    """Whether the switch delivers the packet, untagged, to its target's port and nowhere else."""
    ports = {nic.name: nic.port for nic in world.inventory.nics}
    made = bench.decide(ports[packet.source_nic], frame(world.inventory, packet))
    assert made.drop is not DropReason.TABLE_MISS, "every table has a miss flow with a reason"
    assert made.outputs in ((), ((ports[packet.target_nic], None),))
    assert (made.drop is None) == bool(made.outputs)
    return bool(made.outputs)


def check(bench: Bench, world: World) -> None:
    bench.load(compile(world.topology, world.inventory).flows)
    for packet in world.packets:
        bench.forget_connections()
        if packet.reply and not deliver(bench, world, opposite(packet)):
            assert not deliver(bench, world, packet), "a reply to what never passed"
            continue
        means = decide(world.topology, world.inventory, packet)
        for attempt in ("first", "again, perhaps from the flow cache"):
            assert deliver(bench, world, packet) == means.allowed, (attempt, packet, means)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(world=worlds(max_packets=25))
def test_loaded_flows_decide_as_the_language_says(shared: Bench, world: World) -> None:
    check(shared, world)


def test_three_tier_on_the_loaded_program(shared: Bench) -> None:
    topology, inventory = three_tier().build()
    from tests.generators import packets

    strategy = packets(topology, inventory)

    @settings(max_examples=300, deadline=None)
    @given(packet=strategy)
    def run(packet: Packet) -> None:
        check(shared, World(topology, inventory, (packet,)))

    run()
