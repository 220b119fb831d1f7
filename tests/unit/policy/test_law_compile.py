"""The law: compiled flows decide as the language says, and name the rule that decided."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings

from tests.generators import ROUTERS_REASONS, World, delivered, frame, is_routed, plugs, worlds
from tests.unit.policy.law import fates, same
from vnet.base.drop import DropReason
from vnet.openflow.answer import answer as answered
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import compile
from vnet.policy.semantics import Packet, decide
from vnet.policy.walk import Walk


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_compiled_flows_decide_as_the_language_says(world: World) -> None:
    compiled = compile(world.topology, world.inventory)
    walk = Walk(compiled.flows)
    for packet in world.packets:
        verdict = decide(world.topology, world.inventory, packet)
        for leaf in fates(walk, world.inventory, packet):
            assert same(compiled, world.inventory, verdict, leaf, packet), (packet, verdict, leaf)


def answer(packet: Packet) -> Packet:
    """The packet turned round: what the target would send back on this connection."""
    return Packet(
        packet.target_nic,
        packet.target,
        packet.source_nic,
        packet.source,
        packet.protocol,
        packet.target_port,
        packet.source_port,
        {8: 0, 128: 129}.get(packet.icmp_type, 0),
        reply=True,
    )


@settings(max_examples=25, deadline=None)
@given(worlds(max_packets=12))
def test_the_slow_switch_decides_real_frames_as_the_language_says(world: World) -> None:
    """Each connection is opened in an empty tracker; what the server may answer is tried as well."""
    flows = compile(world.topology, world.inventory).flows
    nics = plugs(world.inventory)
    ports = {nic.port: PortState() for nic in nics.values()}
    for packet in (replace(one, admitted=False) for one in world.packets if not one.reply):
        switch = SlowSwitch(flows, ports)
        tried = [packet]
        if decide(world.topology, world.inventory, packet).allowed:
            tried.append(answer(packet))
        for now_s, sent in enumerate(tried):
            wire = frame(world.inventory, sent)
            verdict = decide(world.topology, world.inventory, sent)
            outcome = switch.receive(nics[sent.source_nic].port, wire, float(now_s))
            target = nics[sent.target_nic].port
            if verdict.reason is DropReason.SAME_PORT:  # its own affair: it may be answered, not delivered
                assert wire not in [out for _, out in outcome.outputs]
                continue
            told = answered(wire) if verdict.reason is DropReason.REJECTED else None
            expected = ((target, delivered(world.inventory, sent, wire)),) if verdict.allowed else ()
            if is_routed(world.inventory, sent) and verdict.reason in ROUTERS_REASONS:
                reached = {port for port, _ in outcome.outputs} - {nics[sent.source_nic].port}
                assert target not in reached
                continue  # the gateway says so, or knows another who has it
            if told:
                expected = ((nics[sent.source_nic].port, told),)
            assert outcome.outputs == expected, (sent, outcome)
            assert verdict.reason == (outcome.drop or DropReason.NONE), (sent, outcome)
            assert not outcome.ambiguous, "the result depends on how a tie is broken"
