"""Rules that are in force for a time only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime

from vnet.topology.model import Policy, Rule, Topology


def in_force(topology: Topology, now: datetime) -> Topology:
    """The topology without the rules that have expired. The others keep their numbers."""
    if all(rule.expires is None for rule in _rules(topology)):
        return topology
    return replace(topology, policies=tuple(_in_force(policy, now) for policy in topology.policies))


def _in_force(policy: Policy, now: datetime) -> Policy:
    def left(rules: tuple[Rule, ...] | None) -> tuple[Rule, ...] | None:
        return None if rules is None else tuple(rule for rule in rules if not has_expired(rule, now))

    return replace(policy, ingress=left(policy.ingress), egress=left(policy.egress))


def has_expired(rule: Rule, now: datetime) -> bool:
    """Whether the rule's time is over."""
    return rule.expires is not None and rule.expires <= now


def next_expiry(topology: Topology, now: datetime) -> datetime | None:
    """When the next rule expires; None if none ever will."""
    coming = (r.expires for r in _rules(topology) if r.expires is not None and r.expires > now)
    return min(coming, default=None)


def _rules(topology: Topology) -> Iterator[Rule]:
    for policy in topology.policies:
        yield from policy.ingress or ()
        yield from policy.egress or ()
