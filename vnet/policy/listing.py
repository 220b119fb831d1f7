"""Flows for people: table by table, each with what it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby, product
from typing import Any

from vnet.base.errors import UsageError
from vnet.openflow import ofctl
from vnet.openflow.flow import Flow
from vnet.policy.compile import Compiled
from vnet.policy.endpoint import endpoints
from vnet.policy.explain import describe
from vnet.policy.hits import Hits
from vnet.policy.needless import Finding, needless
from vnet.policy.origin import Origin, of_rule
from vnet.policy.pipeline import name_of
from vnet.policy.semantics import in_order, rules_of, selects_any
from vnet.topology.inventory import Inventory
from vnet.topology.model import Direction, Enforcement, Policy, Topology


def listing(compiled: Compiled) -> str:
    """All flows of a fabric."""
    return "\n".join(lines_of(compiled.flows, compiled.provenance)) + "\n"


def ruling(
    topology: Topology,
    inventory: Inventory,
    compiled: Compiled,
    vm: str | None,
    hits: Mapping[str, Hits] | None = None,
) -> list[Mapping[str, Any]]:
    """The rules in the order in which they are asked, those that apply to a VM or all; as plain values.

    `hits` are what rules have decided, by the key of their origin; None if nobody has looked.

    Raises: UsageError when there is no VM of this name.
    """
    names = {name for each in inventory.vms for name in (each.name, each.spec)}
    if vm is not None and vm not in names:
        raise UsageError(f"there is no VM {vm}; VMs: {', '.join(each.name for each in inventory.vms)}")
    needless_ones = needless(topology, compiled.identities)
    found: list[Mapping[str, Any]] = []
    for direction, policy in product(Direction, in_order(topology)):
        if vm is not None and not _applies(topology, inventory, policy, vm):
            continue
        for rule in rules_of(policy, direction) or ():
            key = of_rule(policy, rule).key
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
                    **_needless(policy, needless_ones.get(key)),
                    **(_counted(hits.get(key)) if hits is not None else {}),
                }
            )
    return found


def _applies(topology: Topology, inventory: Inventory, policy: Policy, vm: str) -> bool:
    ends = (end for end in endpoints(topology, inventory) if vm in (end.vm.name, end.vm.spec))
    return any(selects_any(topology, policy.applied_to, end) for end in ends)


def _counted(hits: Hits | None) -> Mapping[str, Any]:
    """Null for a rule that has no flows of its own."""
    return {
        "packets": hits.packets if hits else None,
        "since": hits.since.isoformat(timespec="seconds") if hits else None,
    }


def _needless(policy: Policy, finding: Finding | None) -> Mapping[str, str]:
    """Whether a rule could be left out, in words; empty texts if not."""
    notes = [finding.note] if finding else []
    notes += ["audited"] if policy.enforcement is Enforcement.AUDIT else []
    return {
        "note": "; ".join(notes),
        "needless": finding.kind.value if finding else "",
        "example": finding.example if finding else "",
    }


def lines_of(flows: Iterable[Flow], provenance: Mapping[int, Origin]) -> Iterator[str]:
    """A heading for each table, then its flows in `ovs-ofctl` syntax, each under its origin."""
    for table, in_table in groupby(flows, key=lambda flow: flow.table):
        yield f"# table {table} {name_of(table)}".rstrip()
        for cookie, together in groupby(in_table, key=lambda flow: flow.cookie):
            yield f"#   {describe(cookie, provenance)}"
            yield from map(ofctl.text, together)
