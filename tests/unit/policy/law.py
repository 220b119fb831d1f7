"""What compiled flows do with a packet, and whether that is what the language says."""

from __future__ import annotations

import re
from collections.abc import Mapping

from tests.generators import ROUTERS_REASONS, header, is_routed, plugs
from vnet.base.drop import DropReason
from vnet.openflow.fields import ICMP, ICMPV6, CtState
from vnet.policy.compile import Compiled
from vnet.policy.origin import OriginKind
from vnet.policy.pipeline import ADMITTED, Stage
from vnet.policy.semantics import NOBODY, WITH_PORTS, Packet, Verdict
from vnet.policy.space import Region, exactly
from vnet.policy.spans import packed
from vnet.policy.walk import Leaf, Walk
from vnet.topology.inventory import Inventory

_REQUEST_STATES = (CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST)
_REPLY_STATES = (CtState.TRK | CtState.EST | CtState.RPL,)


def fates(walk: Walk, inventory: Inventory, packet: Packet) -> list[Leaf]:
    """What becomes of one packet, in every state the tracker could say it is in."""
    region = Region(exactly(**header(inventory, packet)))
    leaves = []
    for state in _REPLY_STATES if packet.reply else _REQUEST_STATES:
        (leaf,) = walk.leaves(region, state, ADMITTED[1] if packet.admitted else 0)
        leaves.append(leaf)
    return leaves


def same(compiled: Compiled, inventory: Inventory, verdict: Verdict, leaf: Leaf, packet: Packet) -> bool:
    """Whether flows and meaning agree: on the fate, on its reason, and on the rule behind it."""
    if verdict.reason is DropReason.SAME_PORT:
        return not leaf.outputs
    ports = {name: nic.port for name, nic in plugs(inventory).items()}
    if is_routed(inventory, packet) and (
        verdict.origin == NOBODY or is_lost_at_an_exit(packet, verdict) or is_led_out(leaf, ports, verdict)
    ):
        # a router may know another who has it
        return ports[packet.target_nic] not in leaf.outputs
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


def is_lost_at_an_exit(packet: Packet, verdict: Verdict) -> bool:
    """Whether it is not led out, or not in: for which of several reasons does not matter."""
    crosses = any(name.startswith("exit:") for name in (packet.source_nic, packet.target_nic))
    return crosses and verdict.reason in ROUTERS_REASONS


def is_led_out(leaf: Leaf, ports: Mapping[str, int], verdict: Verdict) -> bool:
    """Whether what no router sends to the one who has it goes to the outside, where somebody may have it."""
    exits = {port for name, port in ports.items() if name.startswith("exit:")}
    return verdict.reason in ROUTERS_REASONS and bool(leaf.outputs) and set(leaf.outputs) <= exits


def service(packet: Packet) -> int:
    """What the service register holds of a request."""
    if packet.protocol in (ICMP, ICMPV6):
        return packed(ICMP, packet.icmp_type)
    return packed(packet.protocol, packet.target_port) if packet.protocol in WITH_PORTS else 0
