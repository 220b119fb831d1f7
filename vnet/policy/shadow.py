"""Rules that one earlier rule leaves nothing to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from vnet.policy import origin
from vnet.policy.identity import Identities
from vnet.policy.origin import Origin
from vnet.policy.semantics import in_tier, rules_of
from vnet.policy.spans import Span, covers, spans
from vnet.topology.model import Action, Direction, Peer, PeerKind, Topology


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule that can never decide, and the earlier rule that takes all its packets.

    Where different rules take the packets of different VMs, `by` is the first of them.
    """

    rule: Origin
    by: Origin


def shadows(topology: Topology, identities: Identities) -> tuple[Shadow, ...]:
    """All such rules, egress first, in the order in which they are asked."""
    return tuple(shadow for direction in Direction for shadow in _shadows(topology, identities, direction))


def _shadows(topology: Topology, identities: Identities, direction: Direction) -> Iterator[Shadow]:
    taken = _Taken()
    for tier in topology.tiers:
        taken.next_tier()
        for rule in _resolved(topology, identities, direction, tier):
            by = taken.shadowing(rule)
            if by is None:
                taken.add(rule)
            else:
                yield Shadow(rule.origin, by)


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A rule whose selectors are identities."""

    origin: Origin
    action: Action
    subjects: frozenset[int]
    peers: frozenset[int]
    services: tuple[Span, ...]

    def leaves_nothing_of(self, later: _Resolved) -> bool:
        """Whether this rule, where it applies, takes every packet that `later` could take."""
        return later.peers <= self.peers and covers(self.services, later.services)


def _resolved(
    topology: Topology, identities: Identities, direction: Direction, tier: str
) -> Iterator[_Resolved]:
    for policy in in_tier(topology, tier):
        subjects = _select(identities, policy.applied_to)
        for rule in rules_of(policy, direction) or ():
            peers, why = _select(identities, rule.peers), origin.of_rule(policy, rule)
            if subjects and peers:
                yield _Resolved(why, rule.action, subjects, peers, spans(rule.services))


def _select(identities: Identities, peers: tuple[Peer, ...]) -> frozenset[int]:
    every = any(peer.kind is PeerKind.ANY for peer in peers)
    return frozenset(identities.by_number) if every else identities.select(peers)


class _Taken:
    """What the rules so far take: by subject, those of this tier and those of earlier ones."""

    def __init__(self) -> None:
        self._here: dict[int, list[_Resolved]] = defaultdict(list)
        self._before: dict[int, list[_Resolved]] = defaultdict(list)

    def next_tier(self) -> None:
        """From now on rules are of the next tier: behind a `pass`, nothing is known of what is left."""
        for subject, rules in self._here.items():
            for rule in rules:
                if rule.action is Action.PASS:
                    break
                self._before[subject].append(rule)
        self._here.clear()

    def add(self, rule: _Resolved) -> None:
        for subject in rule.subjects:
            self._here[subject].append(rule)

    def shadowing(self, rule: _Resolved) -> Origin | None:
        """The earlier rule that leaves this one nothing, or the first of them if they differ by subject."""
        first = None
        for subject in sorted(rule.subjects):
            earlier = (*self._before[subject], *self._here[subject])
            taker = next((r for r in earlier if r.leaves_nothing_of(rule)), None)
            if taker is None:
                return None
            first = first or taker.origin
        return first
