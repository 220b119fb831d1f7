"""The law, three ways: compiled flows decide as the language says (architecture laws 1 and 4).

The same flows run in the slow interpreter, in the loaded eBPF program and in Open vSwitch; each must
deliver a packet exactly when the language allows it, untagged, to its target's port and nowhere else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import pytest
from hypothesis import Phase, given, settings

from tests.bpf.bench import Bench
from tests.generators import World, frame, packets, three_tier, worlds
from tests.ovs import OpenVSwitch, why_not
from vnet.openflow.fields import TCP, UDP
from vnet.openflow.flow import Flow
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.semantics import Packet, decide

PORTS = 16
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

    def load(self, flows: Sequence[Flow]) -> None:
        self.switch = SlowSwitch(flows, {number: PortState() for number in range(1, PORTS + 1)})

    def forget(self) -> None:
        self.switch.tracker.flush()

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
        self.ovs.add_flows(flows)

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


def means(world: World, packet: Packet) -> bool | None:
    """What the language says; None where it does not speak.

    A reply without a request is judged by the tracker alone: invalid here, except that a datagram
    opens a connection of its own. Open vSwitch takes a SYN/ACK for the middle of a connection.
    """
    if packet.reply and not decide(world.topology, world.inventory, request(packet)).allowed:
        return (
            decide(world.topology, world.inventory, replace(packet, reply=False)).allowed
            if packet.protocol == UDP
            else None
        )
    return decide(world.topology, world.inventory, packet).allowed


def check(switches: dict[str, Switch], world: World) -> None:
    ports = {nic.name: nic.port for nic in world.inventory.nics}
    flows = compile(world.topology, world.inventory).flows
    for switch in switches.values():
        switch.load(flows)
    for packet in world.packets:
        allowed = means(world, packet)
        if allowed is None:
            continue
        expected = ((ports[packet.target_nic], False),) if allowed else ()
        for name, switch in switches.items():
            if (
                name == "Open vSwitch"
                and not (packet.source_port and packet.target_port)
                and packet.protocol in (TCP, UDP)
            ):
                continue  # its tracker takes port 0 for invalid (conntrack.c, extract_l4_tcp)
            switch.forget()
            if packet.reply:
                opening = request(packet)
                switch.send(ports[opening.source_nic], frame(world.inventory, opening))
            for attempt in ("first", "second"):  # the second may come from a flow cache
                sent = switch.send(ports[packet.source_nic], frame(world.inventory, packet))
                assert sent == expected, (name, attempt, packet)


@settings(max_examples=60, deadline=None, phases=PHASES)
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
