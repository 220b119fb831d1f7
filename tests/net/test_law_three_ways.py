"""The law, three ways: compiled flows decide as the language says (architecture laws 1 and 4).

The same flows run in the slow interpreter, in the loaded eBPF program and in Open vSwitch; each must
deliver a packet exactly when the language allows it, untagged, to its target's port and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
from hypothesis import Phase, given, settings

from tests.bpf.bench import Bench
from tests.generators import (
    FIRST_EDGE,
    ROUTERS_REASONS,
    Builder,
    World,
    frame,
    is_routed,
    is_tagged,
    packets,
    plugs,
    three_tier,
    worlds,
)
from tests.ovs import OpenVSwitch, why_not
from vnet.base.drop import DropReason
from vnet.openflow.conntrack import Tracker
from vnet.openflow.fields import TCP, UDP
from vnet.openflow.flow import Flow
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.difference import without_answers
from vnet.policy.semantics import Packet, Verdict, decide
from vnet.topology.inventory import Inventory

PORTS = FIRST_EDGE + 1
PHASES = tuple(Phase) if os.environ.get("VNET_EXPLORE") else (Phase.explicit, Phase.generate)
"""Making a failure smaller takes longer on three switches than a test may."""
Sent = tuple[tuple[int, bool], ...]
"""(port, whether tagged)."""


class Switch(Protocol):
    """One way to run flows."""

    def load(self, flows: Sequence[Flow]) -> None: ...

    def forget(self) -> None: ...

    def send(self, port: int, frame: bytes) -> Sent: ...


class Interpreter:
    """`vnet.openflow.table`."""

    def __init__(self) -> None:
        self.tracker = Tracker()

    def load(self, flows: Sequence[Flow]) -> None:
        ports = {number: PortState() for number in range(1, PORTS + 1)}
        self.switch = SlowSwitch(flows, ports, self.tracker)

    def forget(self) -> None:
        self.tracker.flush()

    def send(self, port: int, frame: bytes) -> Sent:
        outputs = self.switch.receive(port, frame, 0.0).outputs
        return tuple((number, sent[12:14] == b"\x81\x00") for number, sent in outputs)


@dataclass
class Loaded:
    """The eBPF program in the kernel."""

    bench: Bench

    def load(self, flows: Sequence[Flow]) -> None:
        self.bench.load(flows)

    def forget(self) -> None:
        self.bench.forget_connections()

    def send(self, port: int, frame: bytes) -> Sent:
        return tuple((number, tag is not None) for number, tag in self.bench.decide(port, frame).outputs)


@dataclass
class Peer:
    """Open vSwitch."""

    ovs: OpenVSwitch

    def load(self, flows: Sequence[Flow]) -> None:
        self.ovs.delete_flows()
        self.ovs.add_flows(without_answers(flows))

    def forget(self) -> None:
        self.ovs.flush_connections()

    def send(self, port: int, frame: bytes) -> Sent:
        return tuple((number, sent[12:14] == b"\x81\x00") for number, sent in self.ovs.inject(port, frame))


@pytest.fixture(scope="module")
def switches() -> Iterator[dict[str, Switch]]:
    """Starting takes a second: one of each serves all examples."""
    assert why_not() is None, why_not()
    with Bench(PORTS) as bench, OpenVSwitch() as ovs:
        for number in range(1, PORTS + 1):
            ovs.add_port(f"p{number}", number)
        yield {"interpreter": Interpreter(), "eBPF": Loaded(bench), "Open vSwitch": Peer(ovs)}


def request(packet: Packet) -> Packet:
    """The packet that opens the connection which `packet` replies to."""
    return replace(
        packet,
        source_nic=packet.target_nic,
        source=packet.target,
        target_nic=packet.source_nic,
        target=packet.source,
        source_port=packet.target_port,
        target_port=packet.source_port,
        icmp_type={0: 8, 129: 128}.get(packet.icmp_type, packet.icmp_type),
        reply=False,
    )


def means(world: World, packet: Packet) -> Verdict | None:
    """What the language says; None where it does not speak.

    A reply without a request is judged by the tracker alone: invalid here, except that a datagram
    opens a connection of its own. Open vSwitch takes a SYN/ACK for the middle of a connection.
    """
    if packet.reply and not decide(world.topology, world.inventory, request(packet)).allowed:
        return (
            decide(world.topology, world.inventory, replace(packet, reply=False))
            if packet.protocol == UDP
            else None
        )
    return decide(world.topology, world.inventory, packet)


Ports = Mapping[str, tuple[int, bool]]
"""By name, the port of a NIC, an exit or a cable, and whether packets are tagged there."""


def outputs(verdict: Verdict, ports: Ports, packet: Packet, *, answers: bool) -> Sent:
    if verdict.allowed:
        return (ports[packet.target_nic],)
    told = answers and verdict.reason is DropReason.REJECTED
    return (ports[packet.source_nic],) if told else ()


def ports_of(inventory: Inventory) -> Ports:
    return {name: (nic.port, is_tagged(inventory, nic)) for name, nic in plugs(inventory).items()}


def check(switches: dict[str, Switch], world: World) -> None:
    ports = ports_of(world.inventory)
    flows = compile(world.topology, world.inventory).flows
    for switch in switches.values():
        switch.load(flows)
    for packet in (replace(packet, admitted=False) for packet in world.packets):
        verdict = means(world, packet)
        if verdict is None or verdict.reason is DropReason.SAME_PORT:
            continue  # what a NIC sends itself is its own affair: it may be answered
        for name, switch in switches.items():
            expected = outputs(verdict, ports, packet, answers=name != "Open vSwitch")
            if (
                name == "Open vSwitch"
                and not (packet.source_port and packet.target_port)
                and packet.protocol in (TCP, UDP)
            ):
                continue  # its tracker takes port 0 for invalid (conntrack.c, extract_l4_tcp)
            switch.forget()
            if packet.reply:
                opening = request(packet)
                switch.send(ports[opening.source_nic][0], frame(world.inventory, opening))
            for attempt in ("first", "second"):  # the second may come from a flow cache
                sent = switch.send(ports[packet.source_nic][0], frame(world.inventory, packet))
                if is_routed(world.inventory, packet) and verdict.reason in ROUTERS_REASONS:
                    # a gateway says so, or knows another who has the address
                    reached = {port for port, _ in sent} - {ports[packet.source_nic][0]}
                    assert ports[packet.target_nic][0] not in reached, (name, packet)
                else:
                    assert sent == expected, (name, attempt, packet)


@settings(max_examples=40, deadline=None, phases=PHASES)
@given(world=worlds(max_packets=20))
def test_flows_decide_as_the_language_says_on_all_three(switches: dict[str, Switch], world: World) -> None:
    check(switches, world)


def test_three_tier_decides_as_the_language_says_on_all_three(switches: dict[str, Switch]) -> None:
    topology, inventory = three_tier().build()

    @settings(max_examples=25, deadline=None, phases=PHASES)
    @given(packet=packets(topology, inventory))
    def tried(packet: Packet) -> None:
        check(switches, World(topology, inventory, (packet,)))

    tried()


@pytest.mark.parametrize("trunk", [False, True], ids=["access", "trunk"])
def test_who_is_outside_fares_as_the_language_says_on_all_three(
    switches: dict[str, Switch], trunk: bool
) -> None:
    """A fabric that has an exit and a cable, with packets from and to both."""
    builder = (
        Builder()
        .network("front", 10, "10.10.10.0/24", "fd00:10::/64")
        .network("lan", 20, "10.10.20.0/24", "fd00:20::/64")
        .network("back", 30, "10.10.30.0/24")
        .router("gw", "front", "lan", uplink="host")
        .cable("wire", "lan", *(["back"] if trunk else []), trunk=trunk)
        .vm("a", "front")
        .vm("b", "lan")
        .vm("c", "back")
        .policy(
            "in", "any", ingress=["allow 203.0.113.0/24 80/tcp", "allow internet 443/tcp,icmp", "allow host"]
        )
        .policy("out", "vm:a,vm:b", egress=["deny 2001:db8::/32", "reject 10.10.20.200/29", "allow internet"])
    )
    topology, inventory = builder.build()

    @settings(max_examples=25, deadline=None, phases=PHASES)
    @given(packet=packets(topology, inventory))
    def tried(packet: Packet) -> None:
        check(switches, World(topology, inventory, (packet,)))

    tried()


@pytest.mark.parametrize("rules", [["deny any"], ["reject any"], []], ids=["deny", "reject", "by default"])
@pytest.mark.parametrize("established", ["revalidate", "reset", "keep"])
def test_a_live_connection_fares_as_the_policy_that_forbids_it_says(
    switches: dict[str, Switch], established: str, rules: list[str]
) -> None:
    """It is opened while it is allowed; then the other side answers under the policy that forbids it."""

    def world(*ingress: str) -> Builder:
        builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
        return builder.policy("p", "vm:b", ingress=ingress, established=established)

    before, after = world("allow any").build(), world(*rules).build()
    a, b = after[1].nics
    ends = (a.name, a.addresses[0].ip, b.name, b.addresses[0].ip)
    opening = Packet(*ends, TCP, 40000, 80)
    answer = Packet(*ends[2:], *ends[:2], TCP, 80, 40000, reply=True, admitted=True)
    for name, switch in switches.items():
        switch.load(compile(*before).flows)
        switch.forget()
        assert switch.send(a.port, frame(after[1], opening)) == ((b.port, False),), name
        switch.load(compile(*after).flows)
        ports = ports_of(after[1])
        expected = outputs(decide(*after, answer), ports, answer, answers=name != "Open vSwitch")
        for _ in range(2):
            assert switch.send(b.port, frame(after[1], answer)) == expected, name
