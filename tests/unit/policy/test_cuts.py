"""A live connection is told to be cut if, and only if, the language lets it in before and stops it after."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.generators import Builder, World, plugs, worlds
from tests.unit.policy.law import service
from vnet.openflow.conntrack import Direction, Endpoint
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6
from vnet.policy.compile import compile
from vnet.policy.cuts import Cut, cuts
from vnet.policy.endpoint import IPAddress, endpoints
from vnet.policy.outside import of_fabric
from vnet.policy.reach_changes import Side
from vnet.policy.semantics import WITH_PORTS, Packet, decide
from vnet.policy.spans import packed
from vnet.topology.inventory import Inventory, router_of_exit
from vnet.topology.model import Topology
from vnet.topology.routing import zone_of

Fabric = tuple[Topology, Inventory]


def side(fabric: Fabric) -> Side:
    compiled = compile(*fabric)
    return Side(compiled.flows, compiled.identities, fabric[0])


def zone(topology: Topology, inventory: Inventory, packet: Packet) -> int:
    """In which the connection of a packet is, of one network or by an exit."""
    for name in (packet.source_nic, packet.target_nic):
        if name.startswith("exit:"):
            return zone_of(topology.routers[router_of_exit(name)], topology.networks)
    return plugs(inventory)[packet.source_nic].vlan


def live(topology: Topology, inventory: Inventory, packet: Packet) -> Direction:
    """The connection that the packet is of, as the switch tracks it."""
    ports = (packet.source_port, packet.target_port) if packet.protocol in WITH_PORTS else (0, 0)
    ends = Endpoint(int(packet.source), ports[0]), Endpoint(int(packet.target), ports[1])
    family = ETH_IPV4 if packet.source.version == 4 else ETH_IPV6
    return Direction(zone(topology, inventory, packet), family, packet.protocol, ends[0], ends[1])


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
    outside = of_fabric(*before)

    def is_known(name: str, other: str, address: IPAddress) -> bool:
        """An address that several NICs may have tells not whose it was."""
        vlan = vlans.get(name) if other not in vlans else vlans.get(other)
        return outside.at(name, address) is not None or holders[vlan, address] == 1

    opened = [
        packet
        for packet in opened
        if decide(*before, packet).allowed
        and is_known(packet.source_nic, packet.target_nic, packet.source)
        and is_known(packet.target_nic, packet.source_nic, packet.target)
    ]

    def who(name: str, address: IPAddress) -> str:
        end = outside.at(name, address)
        return end.vm.name if end else next(nic.vm for nic in world.inventory.nics if nic.name == name)

    expected = Counter(
        (who(packet.source_nic, packet.source), who(packet.target_nic, packet.target), service(packet))
        for packet in opened
        if not decide(*after, packet).allowed
    )
    tracked = [live(*before, packet) for packet in opened]
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


def test_connections_with_the_outside_are_cut_too() -> None:
    def fabric(*rules: str) -> Side:
        builder = Builder().network("n", 10, "10.0.0.0/24").router("gw", "n", uplink="host").vm("a", "n")
        return side(builder.policy("p", "vm:a", ingress=rules, egress=["allow internet"]).build())

    a, far, near = (int(ip_address(each)) for each in ("10.0.0.11", "198.51.100.7", "203.0.113.7"))
    zone = 0x1000 | 10
    tracked = [
        Direction(zone, ETH_IPV4, 6, Endpoint(far, 1024), Endpoint(a, 80)),
        Direction(zone, ETH_IPV4, 6, Endpoint(near, 1024), Endpoint(a, 80)),
        Direction(zone, ETH_IPV4, 6, Endpoint(a, 1024), Endpoint(far, 443)),
    ]
    before, after = fabric("allow internet 80/tcp"), fabric("allow 203.0.113.0/24 80/tcp")
    (cut,) = cuts(before, after, tracked)
    assert (cut.source, cut.target, cut.count) == ("internet", "a", 1)
    assert cuts(before, before, tracked) == ()
