"""The law of servers: on generated networks guests ask exactly what is offered, and servers only answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.policy.servers import STATES, Kind, Question, Source, Target, address, may_ask, packet
from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, TCP, UDP
from vnet.policy.compile import compile
from vnet.policy.pipeline import TABLES
from vnet.policy.space import Region, exactly
from vnet.policy.walk import Leaf, Walk
from vnet.topology.inventory import Inventory, Nic, ServicePort, expand
from vnet.topology.load import load_text
from vnet.topology.model import Topology

FIELDS = {name: 0 for table in TABLES for name in table.fields if not name.startswith(("reg", "ct_"))}
PORTS = (53, 22, 67, 547)


@dataclass(frozen=True, slots=True)
class World:
    topology: Topology
    inventory: Inventory
    walk: Walk

    def leaf(self, sender: Nic | ServicePort, state: str, fields: dict[str, int]) -> Leaf:
        known = {**FIELDS, "in_port": sender.port, "eth_src": sender.mac, **fields}
        (leaf,) = self.walk.leaves(Region(exactly(**known)), STATES[state], 0)
        return leaf

    @property
    def nics(self) -> tuple[Nic, Nic]:
        one, other = (nic for nic in self.inventory.nics if nic.network == "n")
        return one, other


@st.composite
def worlds(draw: st.DrawFn) -> World:
    four = draw(st.sampled_from(["", "10.0.0.0/24", "{cidr: 10.0.0.0/24, dhcp: true}"]))
    kinds = ("", ", dhcp: true", ", ra: slaac", ", dhcp: true, ra: slaac", ", dhcp: true, ra: none")
    six = draw(st.sampled_from(["", *(f'{{cidr: "fd00::/64"{kind}}}' for kind in kinds)]))
    subnets = ", ".join(filter(None, (four, six))) or "10.0.0.0/24"
    dns = draw(st.sampled_from(["false", "true", "lab.example"]))
    isolation = draw(st.sampled_from(["none", "isolated"]))
    network = f"n: {{vlan: 1, dns: {dns}, isolation: {isolation}, subnets: [{subnets}]}}"
    far = 'far: {vlan: 2, dns: true, subnets: [10.0.2.0/24, "fd00:2::/64"]}'
    router = draw(st.sampled_from(["", "routers: {gw: {networks: [n, far]}}\n"]))
    rules = draw(st.sampled_from(["ingress: [], egress: []", "ingress: [{from: any}]"]))
    text = (
        f"name: lab\nnetworks:\n  {network}\n  {far}\n{router}vms:\n  a: {{networks: [n]}}\n"
        f"  b: {{networks: [n]}}\npolicies: [{{name: p, applied_to: any, {rules}}}]\n"
    )
    topology = load_text(text, "lab.yaml", {})
    inventory = expand(topology, {})
    return World(topology, inventory, Walk(compile(topology, inventory).flows))


def questions() -> Iterator[Question]:
    for family in (4, 6):
        for kind in Kind:
            for port in PORTS if kind in (Kind.UDP, Kind.TCP) else (0,):
                for source in Source:
                    for target in Target:
                        for state in STATES:
                            yield Question(family, kind, source, target, port, state)


QUESTIONS = tuple(questions())


@settings(max_examples=25, deadline=None)
@given(worlds(), st.lists(st.sampled_from(QUESTIONS), min_size=60, max_size=60, unique=True))
def test_guests_ask_exactly_what_their_network_offers(world: World, asked: list[Question]) -> None:
    network, is_routed = world.topology.networks["n"], bool(world.topology.routers)
    servers = {each.network: each for each in world.inventory.services}
    nic, neighbour = world.nics
    server = servers.get("n", replace(servers["far"], port=99))
    for question in asked:
        fields = packet(question, nic, neighbour, server)
        if fields is None:
            continue
        reached = servers.keys() & {
            name
            for name, each in servers.items()
            if each.port in world.leaf(nic, question.state, fields).outputs
        }
        assert reached == ({"n"} if may_ask(question, network, is_routed) else set()), question


@settings(max_examples=20, deadline=None)
@given(worlds(), st.sampled_from(QUESTIONS))
def test_what_is_asked_over_ipv4_is_asked_over_ipv6(world: World, question: Question) -> None:
    """Of names and pings; addresses are asked for in other ways."""
    versions = {subnet.version for subnet in world.topology.networks["n"].subnets}
    servers = {each.network: each for each in world.inventory.services}
    if versions != {4, 6} or "n" not in servers or question.kind in (Kind.DHCP, Kind.ROUTERS):
        return
    reached = set()
    for family in (4, 6):
        fields = packet(replace(question, family=family), *world.nics, servers["n"])
        assert fields is not None
        reached.add(servers["n"].port in world.leaf(world.nics[0], question.state, fields).outputs)
    assert len(reached) == 1, question


@settings(max_examples=20, deadline=None)
@given(worlds(), st.sampled_from([*STATES]), st.sampled_from([UDP, TCP]), st.sampled_from([53, 22]))
def test_a_server_speaks_to_guests_only_when_it_was_asked(
    world: World, state: str, protocol: int, port: int
) -> None:
    nic, name = world.nics[0], "udp" if protocol == UDP else "tcp"
    for server in world.inventory.services:
        for family, eth_type in ((4, ETH_IPV4), (6, ETH_IPV6)):
            own, target = address(server, family), address(nic, family)
            if own is None or target is None:
                continue
            ends = {"eth_dst": nic.mac, f"ipv{family}_src": own, f"ipv{family}_dst": target}
            ports = {f"{name}_src": port, f"{name}_dst": 4000}
            fields = {**ends, "eth_type": eth_type, "ip_proto": protocol, **ports}
            is_answer = server.network == "n" and state in ("reply", "error")
            outputs = world.leaf(server, state, fields).outputs
            assert outputs == ((nic.port,) if is_answer else ()), (state, family)
