"""Lists of rules as they are asked: what each leaves to those behind it, and what becomes of every service.

A `Row` is what one side has for one peer: of the rules that apply to the subject those that name the peer,
tier by tier, and what holds if none of them matches. It is worked out for all services at once, as spans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from vnet.base.drop import DropReason
from vnet.policy import origin
from vnet.policy.endpoint import Endpoint
from vnet.policy.matrix import EVERY, NOTHING, Spans, common, joined, less
from vnet.policy.origin import Origin
from vnet.policy.semantics import responsible
from vnet.policy.spans import packed, spans
from vnet.topology.model import Action, Direction, Enforcement, Established, Policy, Rule

_REGISTER = (0, 0xFFFFFFFF)
_REASON = {Action.DENY: DropReason.POLICY, Action.REJECT: DropReason.REJECTED}


@dataclass(frozen=True, slots=True)
class Fate:
    """What a side does with a packet: why it drops it (NONE: it passes), and what is noted of it."""

    drop: DropReason = DropReason.NONE
    logged: bool = False
    audited: bool = False

    @property
    def passes(self) -> bool:
        """Whether the packet goes on."""
        return self.drop is DropReason.NONE


Fates = tuple[Fate, Fate]
"""What becomes of packets of new connections, and of connections that were let in before."""


def _refused(policy: Policy | None, drop: DropReason, logged: bool) -> Fates:
    """See `vnet.policy.semantics`: what becomes of packets that a policy says no to."""
    no = Fate(drop, logged)
    if policy is None:
        return no, no
    if policy.enforcement is Enforcement.AUDIT:
        noted = Fate(logged=True, audited=True)
        return noted, noted
    if policy.established is Established.KEEP:
        return no, Fate()
    if policy.established is Established.RESET:
        return no, Fate(DropReason.REJECTED, logged)
    return no, no


@dataclass(frozen=True, eq=False)
class Asked:
    """A rule at its place: the tier's number, the identities that it names, its services as spans."""

    policy: Policy
    rule: Rule
    tier: int
    peers: frozenset[int]
    names_every: bool

    @property
    def passes_on(self) -> bool:
        """Whether it leaves the decision to the next tier."""
        return self.rule.action is Action.PASS

    @cached_property
    def services(self) -> Spans:
        """The services that it takes."""
        found = spans(self.rule.services)
        return tuple(
            _REGISTER if s.protocol is None else (packed(s.protocol, s.low), packed(s.protocol, s.high))
            for s in found
        )

    @cached_property
    def fates(self) -> Fates:
        """What becomes of packets that it decides."""
        if self.rule.action in _REASON:
            return _refused(self.policy, _REASON[self.rule.action], self.rule.log)
        return Fate(logged=self.rule.log), Fate(logged=self.rule.log)

    @cached_property
    def origin(self) -> Origin:
        """The rule as the origin of what it decides."""
        return origin.of_rule(self.policy, self.rule)


@dataclass(frozen=True, eq=False)
class Default:
    """What holds if no rule matches; `listing` are the policies that list the direction for the subject.

    `is_outside`: no policy applies to the subject, who is not of the fabric.
    """

    direction: Direction
    listing: tuple[Policy, ...]
    is_outside: bool = False

    @property
    def is_open(self) -> bool:
        """Whether all passes."""
        return self.is_outside or (self.direction is Direction.EGRESS and not self.listing)

    @cached_property
    def fates(self) -> Fates:
        """What becomes of packets that no rule takes."""
        if self.is_open:
            return Fate(), Fate()
        return _refused(responsible(self.listing), DropReason.POLICY, False)

    def origin_for(self, subject: Endpoint) -> Origin:
        """The origin of what is decided for this subject."""
        if self.is_open:
            return origin.OUTSIDE if self.is_outside else origin.EGRESS_OPEN
        vm = subject.vm
        return origin.of_default(self.direction, vm.name, vm.name, self.listing, vm.at)


Decider = Asked | Default


def walk(rules: Sequence[Asked], asked: Spans) -> Iterator[tuple[Asked | None, Spans]]:
    """Who takes which of the services that are asked about; None is what holds if no rule matches.

    What a rule takes that passes on is taken once more, in a later tier.
    """
    for _, of_tier in groupby(rules, key=lambda each: each.tier):
        passed: list[tuple[int, int]] = []
        for each in of_tier:
            taken = common(asked, each.services)
            if not taken:
                continue
            asked = less(asked, taken)
            if each.passes_on:
                passed += taken
            yield each, taken
        asked = joined((*asked, *passed))
    if asked:
        yield None, asked


@dataclass(frozen=True, slots=True)
class Piece:
    """Services that a rule meets, who decides them with it and who without it."""

    services: Spans
    now: Decider
    then: Decider


@dataclass(frozen=True, eq=False)
class Row:
    """The rules of one side for one peer, in order."""

    rules: tuple[Asked, ...]
    default: Default

    @cached_property
    def met(self) -> Mapping[Asked | None, Spans]:
        """What each rule takes of all services; rules that take nothing are left out."""
        return dict(walk(self.rules, EVERY))

    @cached_property
    def outcome(self) -> tuple[tuple[Fates, Spans], ...]:
        """What becomes of which services; equal for rows that decide alike."""
        found: dict[Fates, list[tuple[int, int]]] = defaultdict(list)
        for each, taken in self.met.items():
            if each is None or not each.passes_on:
                found[(each or self.default).fates] += taken
        return tuple(sorted(((fates, joined(taken)) for fates, taken in found.items()), key=lambda x: x[1]))

    def decider(self, service: int) -> Decider:
        """What decides a service."""
        one = ((service, service),)
        return next(each for each, _ in self._deciding(self.rules, one))

    def pieces(self, rule: Asked) -> Iterator[Piece]:
        """What the rule meets, cut by who decides it with the rule and without."""
        met = self.met.get(rule, NOTHING)
        others = tuple(each for each in self.rules if each is not rule) if met else ()
        for then, left in self._deciding(others, met):
            if not rule.passes_on:
                yield Piece(left, rule, then)
                continue
            yield from (Piece(taken, now, then) for now, taken in self._deciding(self.rules, left))

    def takers(self, rule: Asked, asked: Spans) -> Iterator[tuple[Asked, Spans]]:
        """The rules before this one that take services of it, of those that are asked about."""
        for each, taken in walk(self.rules, common(asked, rule.services)):
            if each is rule or each is None or each.tier > rule.tier:
                return
            if not (each.passes_on and each.tier < rule.tier):
                yield each, taken

    def _deciding(self, rules: Sequence[Asked], asked: Spans) -> Iterator[tuple[Decider, Spans]]:
        for each, taken in walk(rules, asked):
            if each is None or not each.passes_on:
                yield each or self.default, taken


class RuleList:
    """All rules of one direction that apply to the same subjects; gives the row for each peer."""

    def __init__(self, rules: Iterable[Asked], default: Default) -> None:
        self.rules, self.default = tuple(rules), default
        self._always = tuple(n for n, rule in enumerate(self.rules) if rule.names_every)
        named: dict[int, list[int]] = defaultdict(list)
        for number, rule in enumerate(self.rules):
            for peer in () if rule.names_every else rule.peers:
                named[peer].append(number)
        self._named = {peer: tuple(sorted((*self._always, *own))) for peer, own in named.items()}
        self._rows: dict[tuple[int, ...], Row] = {}

    @property
    def named(self) -> Iterable[int]:
        """The peers that some rule names; the others all have the same row."""
        return self._named.keys()

    def row(self, peer: int | None) -> Row:
        """The row for a peer; None for one that no rule names."""
        numbers = self._always if peer is None else self._named.get(peer, self._always)
        if numbers not in self._rows:
            self._rows[numbers] = Row(tuple(self.rules[n] for n in numbers), self.default)
        return self._rows[numbers]
