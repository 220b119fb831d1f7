"""Flows for people: table by table, each with what it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby

from vnet.openflow import ofctl
from vnet.openflow.flow import Flow
from vnet.policy.compile import Compiled
from vnet.policy.explain import describe
from vnet.policy.origin import Origin
from vnet.policy.pipeline import TABLES


def listing(compiled: Compiled) -> str:
    """All flows of a fabric, and the rules that have none because others shadow them."""
    lines = list(lines_of(compiled.flows, compiled.provenance))
    for shadow in compiled.shadowed:
        rule, by = (f"{origin.policy} {origin.rule} ({origin.at})" for origin in (shadow.rule, shadow.by))
        lines.append(f"# never matches: {rule}, shadowed by {by}")
    return "\n".join(lines) + "\n"


def lines_of(flows: Iterable[Flow], provenance: Mapping[int, Origin]) -> Iterator[str]:
    """A heading for each table, then its flows in `ovs-ofctl` syntax, each under its origin."""
    names = {int(table.number): table.name for table in TABLES}
    for table, in_table in groupby(flows, key=lambda flow: flow.table):
        yield f"# table {table} {names.get(table, '')}".rstrip()
        for cookie, together in groupby(in_table, key=lambda flow: flow.cookie):
            yield f"#   {describe(cookie, provenance)}"
            yield from map(ofctl.text, together)
