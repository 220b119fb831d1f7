"""What a rule has decided is what its flows have counted, whatever they do with the packet."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from tests.generators import Builder
from vnet.openflow.flow import Flow
from vnet.openflow.message import FlowStats
from vnet.policy.compile import Compiled, compile
from vnet.policy.hits import Hits, hits

NOW = datetime(2026, 1, 2, tzinfo=UTC)
SECOND_NS = 10**9


def test_the_flows_of_a_rule_are_put_together_and_the_youngest_says_since_when() -> None:
    builder = Builder().network("net", 10, "10.0.0.0/24").vm("a", "net").vm("b", "net")
    rules = ["allow vm:b 22/tcp,80/tcp", "deny any 23/tcp", "pass any 24/tcp", "allow any 22/tcp"]
    builder.policy("p", "vm:a", ingress=rules[:2], established="keep")
    builder.policy("q", "vm:a", ingress=rules[2:], enforcement="audit", tier="baseline")
    topology, inventory = builder.build()
    compiled = compile(topology, inventory)
    stats = [
        FlowStats(flow, (100 + number) * SECOND_NS, packets=2 if "p ingress 2" in _key(compiled, flow) else 0)
        for number, flow in enumerate(compiled.flows)
    ]
    found = hits(topology, stats, NOW)
    first = [each.duration_ns // SECOND_NS for each in stats if "p ingress 1" in _key(compiled, each.flow)]
    assert len(first) == 2
    assert found["rule p ingress 1"] == Hits(0, NOW - timedelta(seconds=min(first)))
    assert found["rule p ingress 2"].packets == 4, "of new connections, and of those that are kept"
    assert "rule q ingress 1" not in found, "behind the last tier each VM has its own default"
    assert found["rule q ingress 2"].packets == 0


def _key(compiled: Compiled, flow: Flow) -> str:
    return compiled.provenance[flow.cookie].key
