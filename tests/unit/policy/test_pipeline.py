"""The pipeline's description, its documentation and the compiler's flows are one thing."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hypothesis import given, settings

from tests.generators import Builder, builders, three_tier
from vnet.openflow.cookie import OWNER_COOKIE, OWNER_MASK, reason
from vnet.openflow.fields import FIELDS
from vnet.openflow.flow import Conntrack, Flow, rejects
from vnet.policy.compile import Compiled, compile
from vnet.policy.entry import NOTHING
from vnet.policy.pipeline import TABLES, Stage, markdown, name_of, table_of
from vnet.topology.inventory import expand
from vnet.topology.load import load_text

DOCUMENT = Path(__file__).parents[3] / "docs" / "pipeline.md"


SERVED = """\
name: lab
networks:
  n:
    vlan: 1
    dns: true
    subnets: [{cidr: 10.0.0.0/24, dhcp: true}, {cidr: "fd00::/64", ra: slaac, dhcp: true}]
  routed: {vlan: 2, dns: true, subnets: 10.0.1.0/24}
routers: {gw: {networks: [routed]}}
vms: {a: {networks: [n]}}
"""


def served() -> Compiled:
    """A network with everything that its server can answer."""
    topology = load_text(SERVED, "lab.yaml", {})
    return compile(topology, expand(topology, {}))


def test_the_document_holds_the_pipeline_as_it_is() -> None:
    assert markdown() in DOCUMENT.read_text(encoding="utf-8")


def test_tables_are_numbered_in_the_order_of_the_walk() -> None:
    assert [table.number for table in TABLES] == list(Stage)
    assert all(table.name == Stage(table.number).name.lower() for table in TABLES)
    assert all(field in FIELDS for table in TABLES for field in table.fields)


@settings(max_examples=15, deadline=None)
@given(builders())
def test_flows_match_only_on_what_their_table_declares(builder: Builder) -> None:
    for flow in compile(*builder.build()).flows:
        table = table_of(flow.table)
        assert table, flow
        assert {name for name, _, _ in flow.match} <= set(table.fields), flow


def test_each_declared_field_is_used() -> None:
    builder = three_tier().network("cells", 30, "10.10.30.0/24", isolated=True)
    builder.vm("one", "cells").vm("two", "cells").router("gw", "front", "cells", uplink="host")
    builder.cable("wire", "front", "back", trunk=True)
    for established, tier in (("keep", "application"), ("reset", "admin")):
        rules = ["allow web 80/tcp log", "deny any"]
        builder.policy(tier, "app", egress=rules, ingress=rules, tier=tier, established=established)
    used: dict[int, set[str]] = {}
    for flow in (*compile(*builder.build()).flows, *served().flows):
        table = table_of(flow.table)
        assert table, flow
        used.setdefault(table.number, set()).update(name for name, _, _ in flow.match)
    assert used == {int(table.number): set(table.fields) for table in TABLES}


def test_what_leaves_a_table_is_declared_and_nothing_else_is() -> None:
    builder = three_tier().network("cells", 30, "10.10.30.0/24", isolated=True)
    builder.vm("one", "cells").vm("two", "cells").router("gw", "front", "cells", uplink="host")
    builder.cable("wire", "front", "back", trunk=True)
    for tier in ("admin", "application", "baseline"):
        rules = ["allow web 80/tcp", "reject any 22/tcp", "pass web", "deny any"]
        builder.policy(tier, "app", egress=rules, ingress=rules, tier=tier)
    drops: dict[int, set[int]] = {int(table.number): set() for table in TABLES}
    onward: dict[int, set[int]] = {int(table.number): set() for table in TABLES}
    for flow in (*compile(*builder.build()).flows, *compile(*Builder().network("n", 1).build()).flows):
        table = table_of(flow.table)
        assert table, flow
        if loses(flow):
            drops[table.number].add(reason(flow.cookie))
        for number in _leads_to(flow):
            after = table_of(number)
            assert after, flow
            onward[table.number].add(after.number)
    assert drops == {int(table.number): set(table.drops) for table in TABLES}
    assert onward == {int(table.number): set(table.onward) for table in TABLES}


def loses(flow: Flow) -> bool:
    return flow.instructions == NOTHING or rejects(flow.instructions.apply)


def _leads_to(flow: Flow) -> Iterator[int]:
    """The tables a flow sends packets to, straight or through the connection tracker."""
    if flow.instructions.goto is not None:
        yield flow.instructions.goto
    for action in flow.instructions.apply:
        if isinstance(action, Conntrack) and action.table is not None:
            yield action.table


@settings(max_examples=15, deadline=None)
@given(builders())
def test_match_prerequisites_are_met(builder: Builder) -> None:
    """OpenFlow 1.3.5, section 7.2.3.6: a field needs its protocol matched exactly."""
    for flow in compile(*builder.build()).flows:
        for name, _, _ in flow.match:
            needs = FIELDS[name].needs
            assert not needs or any(
                flow.match.get(field) == (value, FIELDS[field].full_mask) for field, value in needs
            ), (name, flow)


def is_miss(flow: Flow) -> bool:
    return flow.priority == 0 and not flow.match.entries


@settings(max_examples=15, deadline=None)
@given(builders())
def test_every_table_has_one_miss_flow_with_the_reason_it_declares(builder: Builder) -> None:
    flows = compile(*builder.build()).flows
    for number in {flow.table for flow in flows}:
        table = table_of(number)
        assert table
        (miss,) = (flow for flow in flows if flow.table == number and is_miss(flow))
        if miss.instructions == NOTHING:
            assert table.miss.endswith(f"drop {reason(miss.cookie).name}")
        else:
            assert table.miss.startswith("goto")


def test_tables_of_tiers_are_known_by_the_number_of_the_tier() -> None:
    assert [name_of(number) for number in (0, 10, 12, 31, 50)] == [
        "admit",
        "egress 1",
        "egress 3",
        "ingress 2",
        "deliver",
    ]
    assert [name_of(number) for number in (6, 51)] == ["", ""]


@settings(max_examples=15, deadline=None)
@given(builders())
def test_every_flow_is_owned_and_every_drop_has_a_reason(builder: Builder) -> None:
    compiled = compile(*builder.build())
    for flow in compiled.flows:
        assert flow.cookie & OWNER_MASK == OWNER_COOKIE
        origin = compiled.provenance[flow.cookie]
        assert loses(flow) == bool(origin.reason), (flow, origin)
