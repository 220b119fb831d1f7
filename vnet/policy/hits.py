"""What rules have decided: the counters of their flows, put together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta

from vnet.openflow.message import FlowStats
from vnet.policy import origin
from vnet.policy.origin import Origin
from vnet.policy.semantics import in_order, rules_of
from vnet.topology.model import Direction, Topology


@dataclass(frozen=True, slots=True)
class Hits:
    """The packets that met a rule, of new connections and of established ones.

    Since `since` all of its flows have been there and counted; some may have been longer.
    """

    packets: int
    since: datetime


def hits(topology: Topology, stats: Iterable[FlowStats], now: datetime) -> Mapping[str, Hits]:
    """What each rule has decided, by the key of its origin; without rules that have no flows of their own."""
    by_cookie: dict[int, list[FlowStats]] = defaultdict(list)
    for each in stats:
        by_cookie[each.flow.cookie].append(each)
    found = {}
    for policy in in_order(topology):
        for direction in Direction:
            for rule in rules_of(policy, direction) or ():
                its = origin.of_rule(policy, rule)
                flows = [each for cookie in _cookies(its) for each in by_cookie.get(cookie, ())]
                if flows:
                    found[its.key] = _together(flows, now)
    return found


def _cookies(its: Origin) -> Iterable[int]:
    """Those of all that a rule can do."""
    return {each.cookie for each in (its, origin.audited(its), origin.kept(its), origin.reset(its))}


def _together(flows: Iterable[FlowStats], now: datetime) -> Hits:
    counted = tuple(flows)
    youngest_s = min(each.duration_ns for each in counted) / 1e9
    return Hits(sum(each.packets for each in counted), now - timedelta(seconds=youngest_s))
