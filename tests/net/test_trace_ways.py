"""A trace under compiled policies = what the packet meets = the interpreter = Open vSwitch's ofproto/trace.

Packets are those of generated fabrics and what is made of them: spoofed, tagged, in fragments, cut off, and
ICMP errors about them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest
from hypothesis import Phase, given, settings
from scapy.layers.inet import ICMP, IP, fragment
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Raw

from tests.bpf.bench import Bench
from tests.bpf.ends import Ends
from tests.bpf.test_trace import agrees, story
from tests.generators import World, frame, packets, three_tier, worlds
from tests.net.test_law_three_ways import request
from tests.ovs import OpenVSwitch, why_not
from vnet.openflow.conntrack import Tracker
from vnet.openflow.fields import CtState
from vnet.openflow.flow import Flow
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.difference import without_answers
from vnet.policy.semantics import Packet
from vnet.switch.trace import StepKind, Traced

PORTS = 16
PHASES = tuple(Phase) if os.environ.get("VNET_EXPLORE") else (Phase.explicit, Phase.generate)
STATES = {name.lower(): getattr(CtState, name) for name in ("NEW", "EST", "REL", "RPL", "INV", "TRK")}.items()
seen = Counter[str]()


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with Bench(PORTS) as made:
        yield made


@pytest.fixture(scope="module")
def ovs() -> Iterator[OpenVSwitch]:
    assert why_not() is None, why_not()
    with OpenVSwitch() as made:
        for number in range(1, PORTS + 1):
            made.add_port(f"p{number}", number)
        yield made


def kinds(good: bytes, inventory_port: int) -> Iterator[tuple[str, int, bytes]]:
    """The frame, and others that a guest should not send or hardly sends."""
    ether = Ether(good)
    port = inventory_port
    yield "plain", port, good
    yield "spoofed MAC", port, good[:6] + bytes.fromhex("0200deadbeef") + good[12:]
    yield "another's port", port % PORTS + 1, good
    yield "tagged", port, bytes(Ether(src=ether.src, dst=ether.dst) / Dot1Q(vlan=10) / ether.payload)
    yield "cut off", port, good[: max(54, len(good) - 12)]
    if isinstance(ether.payload, IP):
        spoofed = ether.payload.copy()
        spoofed.src, spoofed.chksum = "198.51.100.7", None
        yield "spoofed IP", port, bytes(Ether(src=ether.src, dst=ether.dst) / spoofed)
        large = IP(bytes(ether.payload))
        large.len = large.chksum = None
        parts = fragment(large / Raw(bytes(80)), fragsize=64)
        for number, part in enumerate(parts):
            yield f"fragment {min(number, 1)}", port, bytes(Ether(src=ether.src, dst=ether.dst) / part)
        orphan = IP(bytes(parts[-1]))
        orphan.id, orphan.chksum = 4711, None
        yield "orphaned fragment", port, bytes(Ether(src=ether.src, dst=ether.dst) / orphan)


def error_about(good: bytes) -> bytes:
    """What the receiver of a frame sends back when nothing listens there."""
    ether = Ether(good)
    back = Ether(src=ether.dst, dst=ether.src)
    inner = ether.payload
    if isinstance(inner, IP):
        return bytes(back / IP(src=inner.dst, dst=inner.src) / ICMP(type=3, code=3) / Raw(bytes(inner)[:28]))
    return bytes(
        back / IPv6(src=inner.dst, dst=inner.src) / ICMPv6DestUnreach(code=4) / Raw(bytes(inner)[:100])
    )


def check(bench: Bench, world: World) -> None:
    ports = {nic.name: nic.port for nic in world.inventory.nics}
    flows = compile(world.topology, world.inventory).flows
    bench.load(flows)
    with bench.datapath.sandbox() as sandbox:
        for packet in (replace(each, admitted=False) for each in world.packets):
            bench.forget_connections()
            tracker = Tracker()
            states = {number: PortState() for number in range(1, PORTS + 1)}
            slow = SlowSwitch(flows, states, tracker)
            said = frame(world.inventory, packet)
            tried = list(kinds(said, ports[packet.source_nic]))
            if packet.reply:
                opening = request(packet)
                tried.insert(0, ("opening", ports[opening.source_nic], frame(world.inventory, opening)))
            tried.append(("again", ports[packet.source_nic], said))
            tried.append(("error", ports[packet.target_nic], error_about(said)))
            for what, port, data in tried:
                sandbox.refresh()
                traced, real = sandbox.run(port, data), bench.decide(port, data)
                assert agrees(bench, traced, real), what + "\n" + story(traced, real, packet, port, data)
                twin = slow.receive(port, data, 0.0)
                assert (traced.reason or None, traced.outputs) == (twin.drop, twin.outputs), what
                assert traced.flows == tuple(step.flow for step in twin.trail if step.flow), what
                seen[f"{what}: {traced.reason.name}"] += 1


@settings(max_examples=8, deadline=None, phases=PHASES)
@given(world=worlds(max_packets=8, outside=False))
def test_under_generated_policies_packets_meet_what_the_trace_said(bench: Bench, world: World) -> None:
    check(bench, world)


def test_in_three_tiers_packets_meet_what_the_trace_said(bench: Bench) -> None:
    topology, inventory = three_tier().build()

    @settings(max_examples=15, deadline=None, phases=PHASES)
    @given(packet=packets(topology, inventory))
    def tried(packet: Packet) -> None:
        check(bench, World(topology, inventory, (packet,)))

    tried()
    wanted = (
        "plain: NONE",
        "error: NONE",
        "tagged: VLAN_NOT_ALLOWED",
        "spoofed IP: SPOOF_IP",
        "cut off: MALFORMED",
    )
    assert all(seen[each] for each in wanted), seen


def test_on_the_wire_arrives_what_the_trace_said() -> None:
    """Real frames from real interfaces, through TCX, to whoever listens behind the other ports."""
    topology, inventory = three_tier().build()
    flows = compile(topology, inventory).flows
    nics = {nic.name: nic for nic in inventory.nics}
    count = max(nic.port for nic in inventory.nics)
    app, db = "app.eth1", "db.eth0"
    ends = nics[app].addresses[0].ip, nics[db].addresses[0].ip
    opening = Packet(app, ends[0], db, ends[1], 6, 40000, 5432)
    answer = Packet(db, ends[1], app, ends[0], 6, 5432, 40000, reply=True)
    closed = replace(opening, target_port=22)
    with Ends(count) as wire:
        wire.put(*flows)
        for number in range(1, count + 1):
            wire.wire(number)
        with wire.datapath.sandbox() as sandbox:
            for packet, delivered in ((opening, True), (answer, True), (closed, False), (opening, True)):
                port, data = nics[packet.source_nic].port, frame(inventory, packet)
                sandbox.refresh()
                traced = sandbox.run(port, data)
                for number in range(1, count + 1):
                    if number != port:
                        wire.received(number)
                wire.wire(port).send(data)
                arrived = {n: wire.received(n) for n in range(1, count + 1) if n != port}
                assert tuple((n, each) for n, all_ in arrived.items() for each in all_) == traced.outputs
                assert bool(traced.outputs) == delivered


# -- Open vSwitch -----------------------------------------------------------------------------------------


def way(traced: Traced) -> list[tuple[int, int, int]]:
    return [(step.arg, step.flow.priority, step.flow.cookie) for step in traced.tables if step.flow]


def peers_way(text: str) -> list[tuple[int, int, int]]:
    """(table, priority, cookie) of each rule in the output of ofproto/trace."""
    rules = re.findall(r"^ *(\d+)\. .*?priority (\d+)(?:, cookie (0x[0-9a-f]+))?", text, re.MULTILINE)
    return [(int(table), int(priority), int(cookie or "0", 16)) for table, priority, cookie in rules]


def states(traced: Traced) -> tuple[str, ...]:
    """What the tracker said, as --ct-next takes it: ofproto/trace does not ask it."""
    bits = [step.fields.get("ct_state", 0) for step in traced.steps if step.kind is StepKind.CT]
    return tuple(",".join(name for name, bit in STATES if state & bit) for state in bits[:1])


def knows_marks(flows: tuple[Flow, ...]) -> bool:
    return any(name == "ct_mark" for flow in flows for name, _, _ in flow.match)


def compare(bench: Bench, ovs: OpenVSwitch, world: World) -> int:
    ports = {nic.name: nic.port for nic in world.inventory.nics}
    flows = compile(world.topology, world.inventory).flows
    bench.load(flows)
    ovs.delete_flows()
    ovs.add_flows(without_answers(flows))
    compared = 0
    with bench.datapath.sandbox() as sandbox:
        for packet in (replace(each, admitted=False) for each in world.packets):
            bench.forget_connections()
            if packet.reply:
                opening = request(packet)
                bench.decide(ports[opening.source_nic], frame(world.inventory, opening))
            sandbox.refresh()
            for what, port, data in kinds(frame(world.inventory, packet), ports[packet.source_nic]):
                traced = sandbox.run(port, data)
                marked = any(step.fields.get("ct_mark") for step in traced.steps)
                if what == "cut off" or "fragment" in what or (marked and knows_marks(flows)):
                    continue  # cut off: before the tables here; ofproto/trace knows no fragments and no marks
                text = ovs.trace(port, data, *states(traced))
                assert way(traced) == peers_way(text), f"{what} {packet}\n{text}"
                compared += 1
    return compared


@settings(max_examples=6, deadline=None, phases=PHASES)
@given(world=worlds(max_packets=8, outside=False))
def test_the_way_is_that_of_open_vswitchs_trace(bench: Bench, ovs: OpenVSwitch, world: World) -> None:
    compare(bench, ovs, world)


def test_in_three_tiers_the_way_is_that_of_open_vswitchs_trace(bench: Bench, ovs: OpenVSwitch) -> None:
    topology, inventory = three_tier().build()
    compared = Counter[bool]()

    @settings(max_examples=15, deadline=None, phases=PHASES)
    @given(packet=packets(topology, inventory))
    def tried(packet: Packet) -> None:
        compared[packet.reply] += compare(bench, ovs, World(topology, inventory, (packet,)))

    tried()
    assert compared[False] > 20 and compared[True] > 5, compared
