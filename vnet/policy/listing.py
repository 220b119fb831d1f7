"""Flows for people: table by table, each with what it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, product
from typing import Any

from vnet.openflow import ofctl
from vnet.openflow.flow import Flow
from vnet.policy.compile import Compiled
from vnet.policy.endpoint import endpoints
from vnet.policy.explain import describe
from vnet.policy.idle import idle
from vnet.policy.origin import Origin, of_rule
from vnet.policy.pipeline import name_of
from vnet.policy.semantics import in_order, rules_of, selects_any
from vnet.policy.shadow import shadows
from vnet.topology.inventory import Inventory
from vnet.topology.model import Direction, Enforcement, Policy, Topology


def listing(topology: Topology, compiled: Compiled) -> str:
    """All flows of a fabric, and the rules to which another leaves nothing."""
    lines = list(lines_of(compiled.flows, compiled.provenance))
    for shadow in shadows(topology, compiled.identities):
        rule, by = (f"{origin.policy} {origin.rule} ({origin.at})" for origin in (shadow.rule, shadow.by))
        lines.append(f"# never matches: {rule}, shadowed by {by}")
    return "\n".join(lines) + "\n"


def ruling(
    topology: Topology, inventory: Inventory, compiled: Compiled, vm: str | None
) -> list[Mapping[str, Any]]:
    """The rules in the order in which they are asked, those that apply to a VM or all; as plain values."""
    why = idle(topology, compiled)
    found: list[Mapping[str, Any]] = []
    for direction, policy in product(Direction, in_order(topology)):
        if vm is not None and not _applies(topology, inventory, policy, vm):
            continue
        for rule in rules_of(policy, direction) or ():
            found.append(
                {
                    "direction": direction.value,
                    "tier": policy.tier,
                    "policy": policy.name,
                    "rule": rule.number,
                    "action": rule.action.value,
                    "peers": [str(peer) for peer in rule.peers],
                    "ports": [str(service) for service in rule.services],
                    "enforcement": policy.enforcement.value,
                    "at": str(rule.at),
                    "note": _note(policy, why.get(of_rule(policy, rule).key)),
                }
            )
    return found


def _applies(topology: Topology, inventory: Inventory, policy: Policy, vm: str) -> bool:
    ends = (end for end in endpoints(topology, inventory) if vm in (end.vm.name, end.vm.spec))
    return any(selects_any(topology, policy.applied_to, end) for end in ends)


def _note(policy: Policy, idle: str | None) -> str:
    notes = [idle] if idle else []
    notes += ["audited"] if policy.enforcement is Enforcement.AUDIT else []
    return "; ".join(notes)


def lines_of(flows: Iterable[Flow], provenance: Mapping[int, Origin]) -> Iterator[str]:
    """A heading for each table, then its flows in `ovs-ofctl` syntax, each under its origin."""
    for table, in_table in groupby(flows, key=lambda flow: flow.table):
        yield f"# table {table} {name_of(table)}".rstrip()
        for cookie, together in groupby(in_table, key=lambda flow: flow.cookie):
            yield f"#   {describe(cookie, provenance)}"
            yield from map(ofctl.text, together)
