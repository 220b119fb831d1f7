"""The matrix says of every pair and service what the language says."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings

from tests.generators import Builder, World, everybody, three_tier, worlds
from tests.unit.policy.law import service
from vnet.policy.compile import compile
from vnet.policy.matrix import EVERY, NOTHING, Matrix, Spans, words
from vnet.policy.reach import reach
from vnet.policy.semantics import decide
from vnet.policy.spans import packed


def holds(spans: Spans, number: int) -> bool:
    return any(low <= number <= high for low, high in spans)


@settings(max_examples=60, deadline=None)
@given(worlds())
def test_the_matrix_says_what_the_language_says(world: World) -> None:
    compiled = compile(world.topology, world.inventory)
    matrix, identities = Matrix(compiled.flows), compiled.identities
    ends = {(end.name, end.address): end for end in everybody(world.topology, world.inventory)}
    for packet in (replace(one, admitted=False) for one in world.packets if not one.reply):
        verdict = decide(world.topology, world.inventory, packet)
        if verdict.origin.kind.value not in ("rule", "default"):
            continue  # guards and the fabric itself are no policy's affair
        client, server = (
            identities.number(ends[key])
            for key in ((packet.source_nic, packet.source), (packet.target_nic, packet.target))
        )
        assert holds(matrix.allowed(client, server), service(packet)) == verdict.allowed, packet


def test_pairs_of_vms_are_told_with_what_is_open_between_them() -> None:
    topology, inventory = three_tier().build()
    told = {
        (pair.source, pair.target, pair.ports)
        for pair in reach(topology, inventory, compile(topology, inventory))
    }
    assert ("app", "db", "5432/tcp") in told
    assert ("web-1", "app", "icmp, 8080/tcp") in told
    assert ("intruder", "db", "-") in told
    assert not any(pair[:2] == ("web-1", "db") for pair in told), "they share no network"


def test_families_that_differ_are_told_apart_and_isolated_pairs_are_closed() -> None:
    builder = (
        Builder()
        .network("net", 10, "10.0.0.0/24", "fd00::/64")
        .network("cells", 20, "10.1.0.0/24", isolated=True)
    )
    builder.vm("a", "net", "cells").vm("b", "net", "cells")
    builder.policy("four", "vm:b", ingress=["allow 10.0.0.0/8 80/tcp,icmp:8", "allow fd00::/64 icmp"])
    topology, inventory = builder.build()
    told = {
        (p.source, p.target, p.network): p.ports
        for p in reach(topology, inventory, compile(topology, inventory))
    }
    assert told["a", "b", "net"] == "IPv4: icmp:8, 80/tcp; IPv6: icmp"
    assert told["a", "b", "cells"] == "-"


@pytest.mark.parametrize(
    ("spans", "text"),
    [
        (EVERY, "any"),
        (NOTHING, "-"),
        (((packed(6, 80), packed(6, 443)), (packed(17, 53), packed(17, 53))), "80-443/tcp, 53/udp"),
        (((packed(6), packed(6, 0xFFFF)),), "tcp"),
        (((0, 0),), "other protocols"),
    ],
)
def test_spans_are_told_as_the_language_writes_them(spans: Spans, text: str) -> None:
    assert words(spans) == text
