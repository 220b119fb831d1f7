"""The law: compiled flows decide as the language says, and name the rule that decided."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given, settings

from tests.generators import World, frame, header, worlds
from vnet.base.drop import DropReason
from vnet.openflow.answer import answer as answered
from vnet.openflow.fields import CtState
from vnet.openflow.table import PortState, SlowSwitch
from vnet.policy.compile import Compiled, compile
from vnet.policy.origin import OriginKind
from vnet.policy.pipeline import ADMITTED, Stage
from vnet.policy.semantics import Packet, Verdict, decide
from vnet.policy.space import Region, exactly
from vnet.policy.walk import Leaf, Walk

REQUEST_STATES = (CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST)
REPLY_STATES = (CtState.TRK | CtState.EST | CtState.RPL,)


def fates(walk: Walk, world: World, packet: Packet) -> list[Leaf]:
    """What becomes of one packet, in every state the tracker could say it is in."""
    region = Region(exactly(**header(world.inventory, packet)))
    leaves = []
    for state in REPLY_STATES if packet.reply else REQUEST_STATES:
        (leaf,) = walk.leaves(region, state, ADMITTED[1] if packet.admitted else 0)
        leaves.append(leaf)
    return leaves


def same(compiled: Compiled, world: World, verdict: Verdict, leaf: Leaf, packet: Packet) -> bool:
    """Whether flows and meaning agree: on the fate, on its reason, and on the rule behind it."""
    if verdict.reason is DropReason.SAME_PORT:
        return not leaf.outputs
    ports = {nic.name: nic.port for nic in world.inventory.nics}
    expected = (ports[packet.target_nic],) if verdict.allowed else ()
    reason = None if verdict.allowed else verdict.reason
    if leaf.outputs != expected or leaf.drop != reason:
        return False
    kind = verdict.origin.kind
    if kind not in (OriginKind.RULE, OriginKind.DEFAULT):
        return True
    judged = (flow for flow in leaf.trail if Stage.EGRESS <= flow.table < Stage.DELIVER)
    named = [compiled.provenance[flow.cookie] for flow in judged][-1]
    if kind is OriginKind.DEFAULT:
        said, meant = (re.sub("gress of [^:]*:", "", origin.text) for origin in (named, verdict.origin))
        return named.kind is kind and said == meant and named.lets is verdict.origin.lets
    return named == verdict.origin


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_compiled_flows_decide_as_the_language_says(world: World) -> None:
    compiled = compile(world.topology, world.inventory)
    walk = Walk(compiled.flows)
    for packet in world.packets:
        verdict = decide(world.topology, world.inventory, packet)
        for leaf in fates(walk, world, packet):
            assert same(compiled, world, verdict, leaf, packet), (packet, verdict, leaf)


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
    nics = {nic.name: nic for nic in world.inventory.nics}
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
            told = answered(wire) if verdict.reason is DropReason.REJECTED else None
            expected = ((target, wire),) if verdict.allowed else ()
            if told:
                expected = ((nics[sent.source_nic].port, told),)
            assert outcome.outputs == expected, (sent, outcome)
            assert verdict.reason in (outcome.drop or DropReason.NONE, DropReason.SAME_PORT), (sent, outcome)
            assert not outcome.ambiguous, "the result depends on how a tie is broken"
