"""The tables of the tiers: the rules of all policies as flows over identities.

A rule becomes one flow per identity it applies to, identity it names and span of ports: never one
per pair of VMs. Where two rules can take the same packet, the earlier one has the higher priority,
so nothing rests on how a switch breaks ties. `any` leaves the identity out of the match.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise, product

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow.flow import Flow, Instructions, Match
from vnet.policy import origin
from vnet.policy.entry import ANSWER, NOTHING, Entry, miss
from vnet.policy.identity import Identities, Identity
from vnet.policy.origin import Origin
from vnet.policy.pipeline import ADMITTED, CLIENT, SERVER, SERVICE, Stage
from vnet.policy.semantics import in_order, in_tier, responsible, rules_of
from vnet.policy.spans import Span, covers, matches, spans
from vnet.topology.model import (
    Action,
    Direction,
    Enforcement,
    Established,
    Peer,
    PeerKind,
    Policy,
    Topology,
)

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
class Side:
    """One direction: its tables, tier by tier, and where an allowed packet goes on.

    `tables` holds those that have rules, and always the last tier's, which has the defaults.
    """

    direction: Direction
    tables: Mapping[str, int]
    onward: int

    @property
    def subject(self) -> str:
        """The register that holds whom the rules apply to."""
        return CLIENT if self.direction is Direction.EGRESS else SERVER

    @property
    def first(self) -> int:
        """The table in which it begins."""
        return next(iter(self.tables.values()))

    @property
    def last(self) -> int:
        """The table that has the defaults."""
        return [*self.tables.values()][-1]

    def after(self, table: int) -> int | None:
        """The table of the next tier; None behind the last."""
        return next((later for earlier, later in pairwise(self.tables.values()) if earlier == table), None)


@dataclass(frozen=True, slots=True)
class Sides:
    """Both directions. `egress` is None when no policy lists it: then it is open for all."""

    egress: Side | None
    ingress: Side

    @property
    def first(self) -> int:
        """Where packets go when client and service are known."""
        return self.egress.first if self.egress else self.ingress.first


def sides(topology: Topology) -> Sides:
    """Which tables the policies need."""
    ingress = Side(Direction.INGRESS, _tables(topology, Direction.INGRESS, Stage.INGRESS), Stage.DELIVER)
    if all(policy.egress is None for policy in topology.policies):
        return Sides(None, ingress)
    egress = _tables(topology, Direction.EGRESS, Stage.EGRESS)
    return Sides(Side(Direction.EGRESS, egress, ingress.first), ingress)


def _tables(topology: Topology, direction: Direction, base: Stage) -> Mapping[str, int]:
    used = {policy.tier for policy in topology.policies if rules_of(policy, direction)}
    numbered = {tier: base + number for number, tier in enumerate(topology.tiers)}
    return {tier: table for tier, table in numbered.items() if tier in used or tier == topology.tiers[-1]}


@dataclass(frozen=True, slots=True)
class _Resolved:
    """A rule whose selectors are identities; `every_*` says that `any` was among them."""

    policy: Policy
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


def judge(topology: Topology, identities: Identities, side: Side) -> tuple[list[Entry], list[Shadow]]:
    """One direction's tables: rules, defaults per identity, misses; and the rules that cannot match."""
    entries: list[Entry] = []
    shadows: list[Shadow] = []
    defaults = _Defaults(topology, identities, side)
    taken = _Taken()
    for tier, table in side.tables.items():
        rules = _Rules(side, table, defaults)
        taken.next_tier()
        for rule in _resolved(topology, identities, side.direction, tier):
            by = taken.shadowing(rule)
            if by is None:
                taken.add(rule)
                entries += rules.flows(rule)
            else:
                shadows.append(Shadow(rule.origin, by))
        if side.after(table) is not None:
            entries.append(_next_tier(side, tier, table))
    entries += defaults.flows()
    return entries, shadows


def _next_tier(side: Side, tier: str, table: int) -> Entry:
    why = origin.fabric(f"{side.direction.value} tier {tier}", f"no rule of tier {tier} matched")
    return miss(table, why, goto=side.after(table))


def _resolved(
    topology: Topology, identities: Identities, direction: Direction, tier: str
) -> Iterator[_Resolved]:
    for policy in in_tier(topology, tier):
        subjects, every_subject = _select(identities, policy.applied_to)
        for rule in rules_of(policy, direction) or ():
            peers, every_peer = _select(identities, rule.peers)
            if subjects and peers:
                yield _Resolved(
                    policy,
                    origin.of_rule(policy, rule),
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


@dataclass(frozen=True, slots=True)
class _Fate:
    """What becomes of a packet: of any, or of one of a connection that was let in before."""

    instructions: Instructions
    origin: Origin
    admitted_only: bool = False

    def entry(self, table: int, priority: int, where: Match) -> Entry:
        return Entry(Flow(table, priority, where, self.instructions, self.origin.cookie), self.origin)


class _Rules:
    """The rules of one table, in order: how deep each identity's list is."""

    def __init__(self, side: Side, table: int, defaults: _Defaults) -> None:
        self._side = side
        self._table = table
        self._defaults = defaults
        self._depth: dict[int, int] = defaultdict(int)

    def flows(self, rule: _Resolved) -> Iterator[Entry]:
        """The rule's flows, below those of every earlier rule that shares a subject with it."""
        if rule.action is Action.PASS and self._side.after(self._table) is None:
            return self._to_defaults(rule)
        fates = tuple(self._fates(rule))
        priority = self._reserve(rule, len(fates))
        subjects: list[int | None] = [None] if rule.every_subject else [*sorted(rule.subjects)]
        return self._spelled_out(rule, subjects, fates, priority)

    def _to_defaults(self, rule: _Resolved) -> Iterator[Entry]:
        """Behind the last tier each subject has its own default."""
        by_fates: dict[tuple[_Fate, ...], list[int]] = defaultdict(list)
        for subject in sorted(rule.subjects):
            by_fates[self._defaults.fates(subject)].append(subject)
        priority = self._reserve(rule, max(map(len, by_fates)))
        for fates, subjects in by_fates.items():
            yield from self._spelled_out(rule, subjects, fates, priority)

    def _reserve(self, rule: _Resolved, count: int) -> int:
        """The highest of `count` priorities that nobody has whom the rule applies to."""
        depth = max(self._depth[subject] for subject in rule.subjects)
        if FIRST_PRIORITY - depth - count <= DEFAULT_PRIORITY:
            raise InputError(
                f"{rule.origin.at}: {rule.origin.policy}: more rules of one tier apply to one VM than a "
                "table has priorities; join rules, split the group or use another tier"
            )
        for subject in rule.subjects:
            self._depth[subject] = depth + count
        return FIRST_PRIORITY - depth

    def _fates(self, rule: _Resolved) -> Iterator[_Fate]:
        match rule.action:
            case Action.ALLOW:
                yield _Fate(Instructions(goto=self._side.onward), rule.origin)
            case Action.PASS:
                yield _Fate(Instructions(goto=self._side.after(self._table)), rule.origin)
            case Action.DENY | Action.REJECT:
                yield from refused(rule.policy, rule.origin, self._side.onward)

    def _spelled_out(
        self,
        rule: _Resolved,
        subjects: Iterable[int | None],
        fates: Iterable[_Fate],
        priority: int,
    ) -> Iterator[Entry]:
        """One flow per subject, peer, block of ports and fate; built by hand because there are so many."""
        services = [each for span in rule.services for each in matches(span)]
        peers: list[int | None] = [None] if rule.every_peer else [*sorted(rule.peers)]
        is_egress = self._side.direction is Direction.EGRESS
        for subject, peer, service in product(subjects, peers, services):
            client, server = (subject, peer) if is_egress else (peer, subject)
            for below, fate in enumerate(fates):
                where = connection_match(client, server, service, fate.admitted_only)
                yield fate.entry(self._table, priority - below, where)


def refused(policy: Policy | None, why: Origin, onward: int) -> Iterator[_Fate]:
    """What becomes of packets that a policy says no to, connections that were let in before first."""
    if policy is not None and policy.enforcement is Enforcement.AUDIT:
        yield _Fate(Instructions(goto=onward), origin.audited(why))
        return
    if policy is not None and policy.established is Established.KEEP:
        yield _Fate(Instructions(goto=onward), origin.kept(why), admitted_only=True)
    if policy is not None and policy.established is Established.RESET:
        yield _Fate(ANSWER, origin.reset(why), admitted_only=True)
    yield _Fate(ANSWER if why.reason is DropReason.REJECTED else NOTHING, why)


def connection_match(
    client: int | None, server: int | None, service: tuple[int, int] | None, admitted_only: bool = False
) -> Match:
    """The match on client, server and service that all these tables use; None leaves one out."""
    return Match(
        (
            *(((ADMITTED[0], ADMITTED[1], ADMITTED[1]),) if admitted_only else ()),
            *(((CLIENT, client, REGISTER_MASK),) if client is not None else ()),
            *(((SERVER, server, REGISTER_MASK),) if server is not None else ()),
            *(((SERVICE, *service),) if service is not None else ()),
        )
    )


class _Defaults:
    """What holds when no rule matched, told apart by identity so that a drop can name its policies."""

    def __init__(self, topology: Topology, identities: Identities, side: Side) -> None:
        self._side = side
        self._identities = identities.by_number
        self._listing: dict[int, list[Policy]] = defaultdict(list)
        for policy in in_order(topology):
            if rules_of(policy, side.direction) is not None:
                for number in _select(identities, policy.applied_to)[0]:
                    self._listing[number].append(policy)

    def fates(self, number: int) -> tuple[_Fate, ...]:
        """What becomes of packets that no rule for this subject takes."""
        listing = self._listing.get(number, [])
        if self._side.direction is Direction.EGRESS and not listing:
            return (_Fate(Instructions(goto=self._side.onward), origin.EGRESS_OPEN),)
        why = self._closed(self._identities[number], listing)
        return tuple(refused(responsible(listing), why, self._side.onward))

    def _closed(self, identity: Identity, listing: list[Policy]) -> Origin:
        key, declared = f"{identity.number:#010x}", identity.members[0].vm.at
        return origin.of_default(self._side.direction, identity.label, key, listing, declared)

    def flows(self) -> Iterator[Entry]:
        """The lowest flows of the last table."""
        side = self._side
        for number in sorted(self._identities):
            if side.direction is Direction.EGRESS and not self._listing.get(number):
                continue
            client, server = (number, None) if side.direction is Direction.EGRESS else (None, number)
            for above, fate in enumerate(reversed(self.fates(number))):
                where = connection_match(client, server, None, fate.admitted_only)
                yield fate.entry(side.last, DEFAULT_PRIORITY + above, where)
        yield self._miss()

    def _miss(self) -> Entry:
        if self._side.direction is Direction.EGRESS:
            return miss(self._side.last, origin.EGRESS_OPEN, goto=self._side.onward)
        closed = origin.fabric("ingress", "ingress is closed unless a rule opens it", DropReason.POLICY)
        return miss(self._side.last, closed)
