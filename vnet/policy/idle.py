"""Rules that decide nothing: they speak of nobody who is there, or no packet gets as far as them.

One earlier rule may shadow another. What several others together leave nothing to is found for every two
identities that can meet and all services.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product

from vnet.policy import origin
from vnet.policy.compile import Compiled
from vnet.policy.endpoint import Places
from vnet.policy.identity import Identities
from vnet.policy.matrix import Matrix
from vnet.policy.semantics import in_order, rules_of
from vnet.policy.shadow import shadows
from vnet.topology.model import Direction, Topology

NOBODY = "never decides: nobody whom it speaks of is there"
NOT_REACHED = "never decides: no packet gets as far as this rule"


def idle(topology: Topology, compiled: Compiled) -> Mapping[str, str]:
    """Why a rule never decides, in words, by the key of its origin."""
    found = {one.rule.key: _shadowed(one.by) for one in shadows(topology, compiled.identities)}
    waiting: dict[str, frozenset[int]] = {}
    in_flows = {flow.cookie for flow in compiled.flows}
    for direction, policy in product(Direction, in_order(topology)):
        for rule in rules_of(policy, direction) or ():
            its = origin.of_rule(policy, rule)
            cookies = frozenset((its.cookie, origin.audited(its).cookie)) & in_flows
            if its.key not in found and not cookies:
                found[its.key] = NOBODY
            elif its.key not in found:
                waiting[its.key] = cookies
    return found | dict.fromkeys(_never_met(compiled, waiting), NOT_REACHED)


def _shadowed(by: origin.Origin) -> str:
    return f"never decides: {by.policy} {by.rule} ({by.at}) comes first"


def _never_met(compiled: Compiled, waiting: Mapping[str, frozenset[int]]) -> tuple[str, ...]:
    """Those of the rules whose flows no pair meets; ends as soon as each was met."""
    matrix, left = Matrix(compiled.flows), dict(waiting)
    for client, server in _pairs(compiled.identities):
        if not left:
            break
        met = matrix.deciding(client, server)
        left = {key: cookies for key, cookies in left.items() if met.isdisjoint(cookies)}
    return tuple(left)


def _pairs(identities: Identities) -> Iterator[tuple[int, int]]:
    places = {number: Places(identity.members) for number, identity in identities.by_number.items()}
    return ((one, other) for one, other in product(places, places) if places[one].can_meet(places[other]))
