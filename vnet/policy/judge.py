"""Tables 5 and 6: the rules of all policies as flows over identities.

A rule becomes one flow per identity it applies to, identity it names and span of ports: never one
per pair of VMs. Where two rules can take the same packet, the earlier one has the higher priority,
so nothing rests on how a switch breaks ties. `any` leaves the identity out of the match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow.flow import Flow, Instructions, Match, match
from vnet.policy import origin
from vnet.policy.entry import Entry, entry, miss
from vnet.policy.identity import Identities
from vnet.policy.origin import Origin
from vnet.policy.pipeline import CLIENT, SERVER, SERVICE, Stage
from vnet.policy.semantics import in_order, rules_of
from vnet.policy.spans import Span, covers, matches, spans
from vnet.topology.model import Action, Direction, Peer, PeerKind, Policy, Topology

FIRST_PRIORITY = 60_000
DEFAULT_PRIORITY = 10
REGISTER_MASK = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Shadow:
    """A rule that can never decide, and the earlier rule that takes all its packets.

    Where different rules take the packets of different VMs, `by` is the first of them.
    """

    rule: Origin
    by: Origin


@dataclass(frozen=True, slots=True)
class _Side:
    """What differs between the two tables."""

    direction: Direction
    table: Stage
    subject: str
    """The register that holds whom the rules apply to."""
    onward: Stage


EGRESS = _Side(Direction.EGRESS, Stage.EGRESS, CLIENT, Stage.INGRESS)
INGRESS = _Side(Direction.INGRESS, Stage.INGRESS, SERVER, Stage.DELIVER)


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A rule whose selectors are identities; `every_*` says that `any` was among them."""

    origin: Origin
    action: Action
    subjects: frozenset[int]
    peers: frozenset[int]
    every_subject: bool
    every_peer: bool
    services: tuple[Span, ...]

    def leaves_nothing_of(self, later: _Resolved) -> bool:
        """Whether this rule, where it applies, takes every packet that `later` could take."""
        return later.peers <= self.peers and covers(self.services, later.services)


def judge(topology: Topology, identities: Identities, side: _Side) -> tuple[list[Entry], list[Shadow]]:
    """One direction's table: rules, defaults per identity, miss; and the rules that cannot match."""
    entries: list[Entry] = []
    shadows: list[Shadow] = []
    rules = _Rules(side)
    for rule in _resolved(topology, identities, side.direction):
        by = rules.shadowing(rule)
        if by is None:
            entries += rules.add(rule)
        else:
            shadows.append(Shadow(rule.origin, by))
    entries += _defaults(topology, identities, side)
    return entries, shadows


def _resolved(topology: Topology, identities: Identities, direction: Direction) -> Iterator[_Resolved]:
    for policy in in_order(topology):
        subjects, every_subject = _select(identities, policy.applied_to)
        for number, rule in enumerate(rules_of(policy, direction) or (), start=1):
            peers, every_peer = _select(identities, rule.peers)
            if subjects and peers:
                yield _Resolved(
                    origin.of_rule(policy, rule, number),
                    rule.action,
                    subjects,
                    peers,
                    every_subject,
                    every_peer,
                    spans(rule.services),
                )


def _select(identities: Identities, peers: tuple[Peer, ...]) -> tuple[frozenset[int], bool]:
    every = any(peer.kind is PeerKind.ANY for peer in peers)
    return (frozenset(identities.by_number) if every else identities.select(peers)), every


class _Rules:
    """The rules so far, in order: how deep each identity's list is, and what is already taken."""

    def __init__(self, side: _Side) -> None:
        self._side = side
        self._by_subject: dict[int, list[_Resolved]] = defaultdict(list)
        self._depth: dict[int, int] = defaultdict(int)

    def shadowing(self, rule: _Resolved) -> Origin | None:
        """The earlier rule that leaves this one nothing, or the first of them if they differ by subject."""
        first = None
        for subject in sorted(rule.subjects):
            takers = (r for r in self._by_subject[subject] if r.leaves_nothing_of(rule))
            taker = next(takers, None)
            if taker is None:
                return None
            first = first or taker.origin
        return first

    def add(self, rule: _Resolved) -> Iterator[Entry]:
        """The rule's flows, below those of every earlier rule that shares a subject with it."""
        depth = max(self._depth[subject] for subject in rule.subjects)
        priority = FIRST_PRIORITY - depth
        if priority <= DEFAULT_PRIORITY:
            raise InputError(
                f"{rule.origin.at}: {rule.origin.policy}: more than {FIRST_PRIORITY - DEFAULT_PRIORITY} "
                "rules apply to one VM; join rules or split the group"
            )
        for subject in rule.subjects:
            self._depth[subject] = depth + 1
            self._by_subject[subject].append(rule)
        return self._flows(rule, priority)

    def _flows(self, rule: _Resolved, priority: int) -> Iterator[Entry]:
        """One flow per subject, peer and block of ports; built by hand because there are so many."""
        side, cookie = self._side, rule.origin.cookie
        instructions = Instructions(goto=int(side.onward)) if rule.action is Action.ALLOW else Instructions()
        services = [each for span in rule.services for each in matches(span)]
        subjects: list[int | None] = [None] if rule.every_subject else [*sorted(rule.subjects)]
        peers: list[int | None] = [None] if rule.every_peer else [*sorted(rule.peers)]
        for subject, peer, service in product(subjects, peers, services):
            client, server = (subject, peer) if side is EGRESS else (peer, subject)
            where = connection_match(client, server, service)
            yield Entry(Flow(int(side.table), priority, where, instructions, cookie), rule.origin)


def connection_match(client: int | None, server: int | None, service: tuple[int, int] | None) -> Match:
    """The match on client, server and service that both tables use; None leaves one out."""
    return Match(
        (
            *(((CLIENT, client, REGISTER_MASK),) if client is not None else ()),
            *(((SERVER, server, REGISTER_MASK),) if server is not None else ()),
            *(((SERVICE, *service),) if service is not None else ()),
        )
    )


def _defaults(topology: Topology, identities: Identities, side: _Side) -> Iterator[Entry]:
    """What holds when no rule matched, told apart by identity so that a drop can name its policies."""
    listing: dict[int, list[Policy]] = defaultdict(list)
    for policy in in_order(topology):
        if rules_of(policy, side.direction) is not None:
            for number in _select(identities, policy.applied_to)[0]:
                listing[number].append(policy)
    for number, identity in sorted(identities.by_number.items()):
        if side is INGRESS or listing[number]:
            why = origin.of_default(
                side.direction,
                identity.label,
                f"{number:#010x}",
                listing[number],
                identity.members[0].vm.at,
            )
            yield entry(side.table, DEFAULT_PRIORITY, match(**{side.subject: number}), why)
    yield _miss(side)


def _miss(side: _Side) -> Entry:
    if side is EGRESS:
        return miss(side.table, origin.EGRESS_OPEN, goto=side.onward)
    closed = origin.fabric("ingress", "ingress is closed unless a rule opens it", DropReason.POLICY)
    return miss(side.table, closed)
