"""The tables of the tiers: the rules of all policies as flows over identities.

A rule becomes one flow per subject it applies to, peer it names and block of ports: never one per pair of
VMs. Where two rules can take the same packet, the earlier one has the higher priority, so nothing rests on
how a switch breaks ties. `any` leaves the identity out of the match.

The flows of one rule for one subject are a *unit*. The priorities of a policy begin where those of the
subject's earlier policies end, rounded up: a rule that is added to one seldom moves the policies behind it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise, product, zip_longest

from vnet.base.drop import DropReason
from vnet.base.errors import InputError
from vnet.openflow.flow import Flow, Instructions, Match, SetField
from vnet.policy import origin
from vnet.policy.entry import ANSWER, NOTHING, Entry, miss
from vnet.policy.identity import ANYONE, OUTSIDE, Classes, Moved, Role, Selector, selector_of
from vnet.policy.origin import Origin
from vnet.policy.pipeline import (
    ADMITTED,
    CLIENT,
    CLIENT_PEER,
    LOGGED,
    LOGGED_BY,
    SERVER,
    SERVER_PEER,
    SERVICE,
    Stage,
)
from vnet.policy.semantics import in_order, responsible, rules_of
from vnet.policy.spans import matches, spans
from vnet.topology.model import Action, Direction, Enforcement, Established, Policy, Rule, Topology

FIRST_PRIORITY = 60_000
DEFAULT_PRIORITY = 10
ROUNDING = 8
"""A policy takes a multiple of so many priorities."""
REGISTER_MASK = 0xFFFFFFFF
FEW = 32
"""Subjects whose policies are looked for one by one."""
DECIDES_FATES = ("name", "tier", "enforcement", "established")
"""What of a policy, beside the rule itself, its flows depend on."""
ALL = None
"""In place of a subject: whoever it is."""


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
    def peer(self) -> str:
        """The register that holds whom the rules name."""
        return SERVER_PEER if self.direction is Direction.EGRESS else CLIENT_PEER

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

    def match(
        self, subject: int | None, peer: int | None, service: tuple[int, int] | None, admitted_only: bool
    ) -> Match:
        """The match that all flows of its tables use; None leaves something out.

        Built by hand, in the order of names, because there are so many.
        """
        return Match(
            (
                *(((ADMITTED[0], ADMITTED[1], ADMITTED[1]),) if admitted_only else ()),
                *(((self.subject, subject, REGISTER_MASK),) if subject is not None else ()),
                *(((SERVICE, *service),) if service is not None else ()),
                *(((self.peer, peer, REGISTER_MASK),) if peer is not None else ()),
            )
        )


@dataclass(frozen=True, slots=True)
class Sides:
    """Both directions. `egress` is None when no policy lists it: then it is open for all."""

    egress: Side | None
    ingress: Side

    @property
    def first(self) -> int:
        """Where packets go when client and service are known."""
        return self.egress.first if self.egress else self.ingress.first

    def __iter__(self) -> Iterator[Side]:
        yield from (self.egress,) if self.egress else ()
        yield self.ingress


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
class _Fate:
    """What becomes of a packet: of any, or of one of a connection that was let in before."""

    instructions: Instructions
    origin: Origin
    cookie: int
    admitted_only: bool = False

    def entry(self, table: int, priority: int, where: Match) -> Entry:
        return Entry(Flow(table, priority, where, self.instructions, self.cookie), self.origin)


def _fate(instructions: Instructions, why: Origin, admitted_only: bool = False) -> _Fate:
    return _Fate(instructions, why, why.cookie, admitted_only)


def _onward(why: Origin, side: Side) -> _Fate:
    """To let pass; what a rule logs is noted, for the table that commits new connections."""
    if not why.log:
        return _fate(Instructions(goto=side.onward), why)
    by = SetField(LOGGED_BY[side.direction], why.cookie & REGISTER_MASK)
    return _fate(Instructions(apply=(SetField(LOGGED, 1), by), goto=side.onward), why)


def logs_connections(policy: Policy) -> bool:
    """Whether new connections may have to be told: a rule that allows some is logged, or all is audited."""
    rules = (*(policy.ingress or ()), *(policy.egress or ()))
    return policy.enforcement is Enforcement.AUDIT or any(
        rule.log and rule.action is Action.ALLOW for rule in rules
    )


def refused(policy: Policy | None, why: Origin, side: Side) -> Iterator[_Fate]:
    """What becomes of packets that a policy says no to, connections that were let in before first."""
    if policy is not None and policy.enforcement is Enforcement.AUDIT:
        yield _onward(origin.audited(why), side)
        return
    if policy is not None and policy.established is Established.KEEP:
        yield _fate(Instructions(goto=side.onward), origin.kept(why), admitted_only=True)
    if policy is not None and policy.established is Established.RESET:
        yield _fate(ANSWER, origin.reset(why), admitted_only=True)
    yield _fate(ANSWER if why.reason is DropReason.REJECTED else NOTHING, why)


@dataclass(frozen=True, slots=True)
class _Rule:
    """A rule made ready for flows. `fates` is None where each subject's own default decides."""

    origin: Origin
    selectors: tuple[Selector, ...]
    services: tuple[tuple[int, int] | None, ...]
    fates: tuple[_Fate, ...] | None

    @property
    def depth(self) -> int:
        """How many priorities it takes: a default has up to two fates."""
        return 2 if self.fates is None else len(self.fates)


class _Listed:
    """A policy as one side sees it, with whom it applies to and whom its rules name at the moment."""

    def __init__(self, policy: Policy, side: Side, classes: Classes, before: _Listed | None) -> None:
        self.policy, self.table = policy, side.tables.get(policy.tier, side.last)
        ready = before.ready(side) if before and _is_alike(before.policy, policy) else {}
        listing = rules_of(policy, side.direction) or ()
        self.rules = tuple(ready.get(id(rule)) or _rule(policy, rule, side, self.table) for rule in listing)
        self.applied_to = frozenset(map(selector_of, policy.applied_to))
        self.asks_defaults = any(rule.fates is None for rule in self.rules)
        depth = sum(rule.depth for rule in self.rules)
        self.depth = -(-depth // ROUNDING) * ROUNDING
        self.subjects: frozenset[int] = frozenset()
        self.peers = [_peers(rule, classes) for rule in self.rules]
        self._naming: dict[Selector, list[int]] = defaultdict(list)
        for place, rule in enumerate(self.rules):
            for selector in rule.selectors:
                self._naming[selector].append(place)
        self.look_up_subjects(classes)

    @property
    def is_for_all(self) -> bool:
        return ANYONE in self.applied_to

    @property
    def keys(self) -> Iterator[_Key]:
        """By what its units are known."""
        subjects = () if not self.rules else (ALL,) if self.is_for_all else self.subjects
        return ((self.policy.name, subject) for subject in subjects)

    @property
    def room(self) -> tuple[object, ...]:
        """All that matters for where its units and those behind it begin."""
        return self.table, self.depth, self.is_for_all, self.subjects

    def ready(self, side: Side) -> Mapping[int, _Rule]:
        """The rules made ready, by identity of the rule."""
        listing = rules_of(self.policy, side.direction) or ()
        return dict(zip(map(id, listing), self.rules, strict=True))

    def look_up_subjects(self, classes: Classes) -> None:
        self.subjects = classes.select(Role.SUBJECT, self.applied_to)

    def look_up_peers(self, classes: Classes, selectors: Set[Selector]) -> bool:
        """Look up again what these selectors take; whether any rule names one of them."""
        places = {place for each in selectors & self._naming.keys() for place in self._naming[each]}
        for place in places:
            self.peers[place] = _peers(self.rules[place], classes)
        return bool(places)


def _is_alike(policy: Policy, other: Policy) -> bool:
    """Whether a rule comes to the same in both."""
    return all(getattr(policy, name) == getattr(other, name) for name in DECIDES_FATES)


def _rule(policy: Policy, rule: Rule, side: Side, table: int) -> _Rule:
    services = tuple(each for span in spans(rule.services) for each in matches(span))
    why = origin.of_rule(policy, rule)
    return _Rule(
        why, tuple(map(selector_of, rule.peers)), services, _fates(policy, rule.action, why, side, table)
    )


def _fates(policy: Policy, action: Action, why: Origin, side: Side, table: int) -> tuple[_Fate, ...] | None:
    match action:
        case Action.ALLOW:
            return (_onward(why, side),)
        case Action.PASS:
            onward = side.after(table)
            return None if onward is None else (_fate(Instructions(goto=onward), why),)
        case Action.DENY | Action.REJECT:
            return tuple(refused(policy, why, side))


def _peers(rule: _Rule, classes: Classes) -> tuple[int | None, ...]:
    return (ALL,) if ANYONE in rule.selectors else tuple(sorted(classes.select(Role.PEER, rule.selectors)))


Unit = tuple[str, Direction, str, int | None, int]
"""`rule` with a policy's name, a subject and the rule's place, or `default` with a subject."""
_Key = tuple[str, int | None]
"""A policy's name and a subject."""


@dataclass(frozen=True, slots=True)
class _Input:
    """All that the flows of one rule for one subject depend on, but the subject."""

    table: int
    rule: _Rule
    peers: tuple[int | None, ...]
    start: int
    """How many priorities lie above it."""


@dataclass(slots=True)
class _Seen:
    """What differs: policies by name, because of themselves or of whom they name, and subjects whose policies
    are others."""

    policies: set[str] = field(default_factory=set)
    subjects: set[int] = field(default_factory=set)
    has_moved: bool = False
    """Whether units may begin elsewhere."""

    def exchange(self, was: _Listed | None, becomes: _Listed | None) -> None:
        """A policy is another, is new or is gone."""
        for each in filter(None, (was, becomes)):
            self.policies.add(each.policy.name)
            self.subjects |= each.subjects
        self.has_moved |= was is None or becomes is None or was.room != becomes.room


class Judge:
    """One direction's flows, kept while policies and classes come and go."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._listed: dict[str, _Listed] = {}
        self._starts: dict[_Key, int] = {}
        self._inputs: dict[_Key, tuple[_Input, ...]] = {}

    def units(
        self, topology: Topology, classes: Classes, moved: Mapping[Role, Moved]
    ) -> Iterator[tuple[Unit, tuple[Entry, ...]]]:
        """The units that are not what they were, () for one that is no more.

        Raises: InputError when more rules apply to one VM than a table has priorities; nothing is known then
        of what was in force.
        """
        seen = self._look_again(topology, classes, moved)
        stale, before = seen.subjects | moved[Role.SUBJECT].numbers, self._starts
        if seen.has_moved:
            self._starts = self._begin()
        defaults = _Defaults(self._side, classes, [*self._listed.values()])
        for key in self._starts if seen.has_moved else self._keys_of(seen.policies):
            name, subject = key
            listed, start = self._listed[name], self._starts[key]
            is_stale = listed.asks_defaults and (subject is ALL or subject in stale)
            if is_stale or before.get(key) != start or name in seen.policies:
                yield from self._of_policy(listed, subject, start, defaults, is_stale)
        for name, subject in before.keys() - self._starts.keys():
            for place in range(len(self._inputs.pop((name, subject)))):
                yield ("rule", self._side.direction, name, subject, place), ()
        known = classes.numbers(Role.SUBJECT)
        for subject in stale:
            flows = tuple(defaults.flows(subject)) if subject in known else ()
            yield ("default", self._side.direction, "", subject, 0), flows

    def _look_again(self, topology: Topology, classes: Classes, moved: Mapping[Role, Moved]) -> _Seen:
        """Make policies that are new ready, and look up selectors that take others."""
        seen, before = _Seen(), self._listed
        self._look_up(classes, moved, seen)
        self._listed = {}
        for policy in in_order(topology):
            listed = before.get(policy.name)
            if listed is not None and (listed.policy is policy or listed.policy == policy):
                self._listed[policy.name] = listed
            elif rules_of(policy, self._side.direction) is not None:
                self._listed[policy.name] = becomes = _Listed(policy, self._side, classes, listed)
                seen.exchange(listed, becomes)
        for name in before.keys() - self._listed.keys():
            seen.exchange(before[name], None)
        if not _keep_their_order(before, self._listed):
            seen.has_moved = True
            seen.subjects.update(classes.numbers(Role.SUBJECT))
        return seen

    def _look_up(self, classes: Classes, moved: Mapping[Role, Moved], seen: _Seen) -> None:
        """Have the policies look up those of their selectors that take others."""
        subjects, peers = moved[Role.SUBJECT].selectors, moved[Role.PEER].selectors
        for listed in self._listed.values() if subjects or peers else ():
            if not subjects.isdisjoint(listed.applied_to):
                seen.subjects |= listed.subjects
                listed.look_up_subjects(classes)
                seen.subjects |= listed.subjects
                seen.has_moved = True
            if listed.look_up_peers(classes, peers):
                seen.policies.add(listed.policy.name)

    def _keys_of(self, changed: Set[str]) -> Iterator[_Key]:
        """The units of policies that changed, or that ask for defaults, which may have."""
        for name, listed in self._listed.items():
            if name in changed or listed.asks_defaults:
                yield from listed.keys

    def _begin(self) -> dict[_Key, int]:
        """Where each unit begins: behind the subject's earlier units of its tier."""
        starts: dict[_Key, int] = {}
        base, depth, table = 0, dict[int, int](), -1
        for name, listed in self._listed.items():
            if listed.table != table:
                base, table = 0, listed.table
                depth.clear()
            if not listed.rules:
                continue
            if listed.is_for_all:
                base = starts[name, ALL] = max(depth.values(), default=base)
                base += listed.depth
                depth.clear()
                continue
            for subject in listed.subjects:
                start = starts[name, subject] = depth.get(subject, base)
                depth[subject] = start + listed.depth
        return starts

    def _of_policy(
        self, listed: _Listed, subject: int | None, start: int, defaults: _Defaults, is_stale: bool
    ) -> Iterator[tuple[Unit, tuple[Entry, ...]]]:
        """A policy's units for one subject that are not what they were; `is_stale` if defaults are others."""
        key = listed.policy.name, subject
        before = self._inputs.get(key, ())
        after = self._inputs[key] = tuple(_inputs(listed, start))
        for place, (was, becomes) in enumerate(zip_longest(before, after)):
            if was == becomes and not (is_stale and becomes.rule.fates is None):
                continue
            flows = tuple(self._of_rule(listed, subject, becomes, defaults)) if becomes else ()
            yield ("rule", self._side.direction, *key, place), flows

    def _of_rule(
        self, listed: _Listed, subject: int | None, given: _Input, defaults: _Defaults
    ) -> Iterator[Entry]:
        rule = given.rule
        if FIRST_PRIORITY - given.start - rule.depth <= DEFAULT_PRIORITY:
            raise InputError(
                f"{rule.origin.at}: {rule.origin.policy}: more rules of one tier apply to one VM than a "
                "table has priorities; join rules, split the group or use another tier"
            )
        if rule.fates is not None:
            yield from self._spelled_out(given, subject, rule.fates)
            return
        for each in listed.subjects if subject is ALL else (subject,):  # each has its own default
            yield from self._spelled_out(given, each, defaults.fates(each))

    def _spelled_out(self, given: _Input, subject: int | None, fates: tuple[_Fate, ...]) -> Iterator[Entry]:
        """One flow per peer, block of ports and fate."""
        for peer, service in product(given.peers, given.rule.services):
            for below, fate in enumerate(fates):
                where = self._side.match(subject, peer, service, fate.admitted_only)
                yield fate.entry(given.table, FIRST_PRIORITY - given.start - below, where)


def _inputs(listed: _Listed, start: int) -> Iterator[_Input]:
    for rule, peers in zip(listed.rules, listed.peers, strict=True):
        yield _Input(listed.table, rule, peers, start)
        start += rule.depth


def _keep_their_order(before: Iterable[str], after: Iterable[str]) -> bool:
    """Whether those that are in both come in the same order."""
    before, after = [*before], [*after]
    if before == after:
        return True
    were, are = set(before), set(after)
    return [name for name in before if name in are] == [name for name in after if name in were]


def misses(side: Side) -> Iterator[Entry]:
    """What takes the packets that no other flow of each table took."""
    for tier, table in side.tables.items():
        if side.after(table) is not None:
            why = origin.fabric(f"{side.direction.value} tier {tier}", f"no rule of tier {tier} matched")
            yield miss(table, why, goto=side.after(table))
    if side.direction is Direction.EGRESS:
        yield miss(side.last, origin.EGRESS_OPEN, goto=side.onward)
    else:
        closed = origin.fabric("ingress", "ingress is closed unless a rule opens it", DropReason.POLICY)
        yield miss(side.last, closed)


def outside(side: Side) -> Entry:
    """What takes packets whose subject is outside: no policy applies to them."""
    where = side.match(OUTSIDE, ALL, None, False)
    return _fate(Instructions(goto=side.onward), origin.OUTSIDE).entry(side.first, FIRST_PRIORITY + 1, where)


class _Defaults:
    """What holds when no rule matched, told apart by subject so that a drop can name its policies."""

    def __init__(self, side: Side, classes: Classes, listed: Sequence[_Listed]) -> None:
        self._side, self._classes, self._listed = side, classes, listed
        self._known: dict[int, list[Policy]] = {}
        self._all: Mapping[int, list[Policy]] | None = None

    def _listing(self, subject: int) -> Sequence[Policy]:
        """The policies that list the direction for a subject; looked for one by one while few are asked."""
        if self._all is None and len(self._known) > FEW:
            self._all = self._of_all()
        if self._all is not None:
            return self._all.get(subject, ())
        if subject not in self._known:
            self._known[subject] = [each.policy for each in self._listed if subject in each.subjects]
        return self._known[subject]

    def _of_all(self) -> Mapping[int, list[Policy]]:
        found: dict[int, list[Policy]] = defaultdict(list)
        for each in self._listed:
            for subject in each.subjects:
                found[subject].append(each.policy)
        return found

    def fates(self, subject: int) -> tuple[_Fate, ...]:
        """What becomes of packets that no rule for this subject takes."""
        listing = self._listing(subject)
        if self._is_open(subject):
            return (_fate(Instructions(goto=self._side.onward), origin.EGRESS_OPEN),)
        key, name = f"{subject:#010x}", self._classes.label(subject)
        why = origin.of_default(self._side.direction, name, key, listing, self._classes.declared_at(subject))
        return tuple(refused(responsible(listing), why, self._side))

    def flows(self, subject: int) -> Iterator[Entry]:
        """Its lowest flows of the last table."""
        if self._is_open(subject):
            return
        for above, fate in enumerate(reversed(self.fates(subject))):
            where = self._side.match(subject, ALL, None, fate.admitted_only)
            yield fate.entry(self._side.last, DEFAULT_PRIORITY + above, where)

    def _is_open(self, subject: int) -> bool:
        return self._side.direction is Direction.EGRESS and not self._listing(subject)
