"""A live connection is told to be cut if, and only if, the language lets it in before and stops it after."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, worlds
from tests.unit.policy.law import service
from vnet.openflow.conntrack import Direction, Endpoint
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6
from vnet.policy.compile import compile
from vnet.policy.cuts import Cut, cuts
from vnet.policy.endpoint import endpoints
from vnet.policy.reach_changes import Side
from vnet.policy.semantics import WITH_PORTS, Packet, decide
from vnet.policy.spans import packed
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology

Fabric = tuple[Topology, Inventory]


def side(fabric: Fabric) -> Side:
    compiled = compile(*fabric)
    return Side(compiled.flows, compiled.identities, fabric[0])


def live(inventory: Inventory, packet: Packet) -> Direction:
    """The connection that the packet is of, as the switch tracks it."""
    nic = next(nic for nic in inventory.nics if nic.name == packet.source_nic)
    ports = (packet.source_port, packet.target_port) if packet.protocol in WITH_PORTS else (0, 0)
    ends = Endpoint(int(packet.source), ports[0]), Endpoint(int(packet.target), ports[1])
    return Direction(
        nic.vlan, ETH_IPV4 if packet.source.version == 4 else ETH_IPV6, packet.protocol, ends[0], ends[1]
    )


@settings(max_examples=80, deadline=None)
@given(worlds(), st.data())
def test_what_the_language_stops_is_cut_and_nothing_else(world: World, data: st.DataObject) -> None:
    before = world.topology, world.inventory
    policies = world.topology.policies
    kept = data.draw(st.lists(st.sampled_from(policies), unique=True) if policies else st.just([]))
    gone = data.draw(st.integers(0, 1))
    after = (
        replace(world.topology, policies=tuple(one for one in policies if one in kept)),
        replace(world.inventory, vms=world.inventory.vms[gone:]),
    )
    opened = [replace(packet, admitted=True) for packet in world.packets if not packet.reply]
    holders = Counter((end.nic.vlan, end.address) for end in endpoints(*before))
    vlans = {nic.name: nic.vlan for nic in world.inventory.nics}
    opened = [
        packet
        for packet in opened
        if decide(*before, packet).allowed  # and an address that several NICs may have tells not whose it was
        and all(holders[vlans[packet.source_nic], each] == 1 for each in (packet.source, packet.target))
    ]
    vms = {nic.name: nic.vm for nic in world.inventory.nics}
    expected = Counter(
        (vms[packet.source_nic], vms[packet.target_nic], service(packet))
        for packet in opened
        if not decide(*after, packet).allowed
    )
    tracked = [live(world.inventory, packet) for packet in opened]
    told = cuts(side(before), side(after), tracked)
    assert {(cut.source, cut.target, cut.service): cut.count for cut in told} == expected


def test_who_is_started_again_loses_its_connections_and_others_keep_theirs() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net").vm("c", "net")
    builder.policy("web", "any", ingress=["allow any 80/tcp"])
    fabric = builder.build()
    by_vm = {nic.vm: int(nic.addresses[0].ip) for nic in fabric[1].nics}

    def web(client: str, server: str, port: int) -> Direction:
        return Direction(10, ETH_IPV4, 6, Endpoint(by_vm[client], port), Endpoint(by_vm[server], 80))

    tracked = [web("a", "b", 1), web("a", "b", 2), web("c", "b", 1), web("c", "a", 1)]
    same = side(fabric)
    assert cuts(same, same, tracked) == ()
    assert cuts(same, same, tracked, {"c"}) == (
        Cut("c", "a", packed(6, 80), 1),
        Cut("c", "b", packed(6, 80), 1),
    )


def test_a_policy_that_keeps_what_is_established_cuts_nothing() -> None:
    def fabric(action: str, established: str) -> Side:
        builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
        builder.policy("web", "any", ingress=[f"{action} any 80/tcp"], established=established)
        return side(builder.build())

    hosts = 10 << 24 | 11, 10 << 24 | 12
    tracked = [Direction(10, ETH_IPV4, 6, Endpoint(hosts[0], 1024), Endpoint(hosts[1], 80))]
    was = fabric("allow", "keep")
    assert cuts(was, fabric("deny", "keep"), tracked) == ()
    for cutting in ("revalidate", "reset"):
        assert cuts(was, fabric("deny", cutting), tracked) == (Cut("a", "b", packed(6, 80), 1),)
