"""From what was seen to a changed topology file: the rules that are missing, put into the text, and proved.

The proof is made on the changed text, read again: what was asked for is allowed, by the words of the language
and by the flows compiled from it; what opens besides is worked out exactly, and so is that nothing closes.
Rules that would break a claim are not suggested.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from vnet.base.errors import InputError
from vnet.base.source import Location
from vnet.fabric.declared import load
from vnet.fabric.evidence import Apart, Evidence, evidence, observed
from vnet.fabric.file_edit import Files, plain, same
from vnet.fabric.seen import Seen
from vnet.fabric.store import Source
from vnet.openflow.fields import ICMP
from vnet.policy.compile import Compiled, compile
from vnet.policy.decisions import Asked
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.identity import told
from vnet.policy.matrix import Spans, joined, less
from vnet.policy.reach_changes import Reach, Side, reach_changes
from vnet.policy.semantics import one_side, rules_of, selects, selects_any
from vnet.policy.spans import packed
from vnet.policy.suggest import NO_OPTIONS, Added, Options, Suggested, suggest, with_suggested
from vnet.policy.verify import verify
from vnet.policy.wanted import DIRECTIONS, ECHO, Left, Wanted, Why, enforced
from vnet.topology.edit import CannotEdit
from vnet.topology.expiry import in_force
from vnet.topology.inventory import Assignment, Inventory, expand
from vnet.topology.model import Claim, ClaimKind, Direction, Policy, Topology


@dataclass(frozen=True, slots=True)
class Question:
    """What rules are asked for.

    `previous` is what the fabric's NICs were given, {} when that is not known. `vms`: only what these send or
    get; empty for all. `meaning` are the reasons of drops in words.
    """

    source: Source
    seen: tuple[Seen, ...]
    now: datetime
    options: Options = NO_OPTIONS
    vms: tuple[str, ...] = ()
    previous: Mapping[str, Assignment] = field(default_factory=dict)
    meaning: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SuggestedRule:
    """A rule, where it stands in the changed file, and what was seen that it allows."""

    added: Added
    at: Location
    is_new_policy: bool
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Opened:
    """What opens from one VM to another on a network though it was not seen."""

    client: str
    server: str
    network: str
    version: int
    services: Spans


@dataclass(frozen=True, slots=True)
class Report:
    """What is suggested, and what it does."""

    fabric: str
    asked: int
    """Connections that were denied or audited and that policies decide about."""
    rules: tuple[SuggestedRule, ...]
    left: tuple[tuple[Left, Evidence], ...]
    apart: tuple[Apart, ...]
    besides: tuple[Opened, ...]
    closes: tuple[Reach, ...]
    """Always empty; looked at nevertheless."""
    narrowed: bool
    """`generalize` would have broken a claim, so it was not done."""
    texts: Mapping[str, str]
    """The changed files."""
    diff: str


def report(question: Question) -> Report:
    """The rules that are missing in a file. Raises InputError if it is wrong, or has no place for them."""
    topology = in_force(load(question.source), question.now)
    inventory = expand(topology, question.previous)
    found = observed(topology, inventory, question.seen, question.meaning, question.vms)
    work = _Work(question, topology, inventory, found.wanted)
    suggested = work.suggested()
    written = work.written(suggested)
    besides, closes = work.proved(written) if written.suggested.rules else ((), ())
    left = (*written.suggested.left, *work.forbidden)
    return Report(
        topology.name,
        len(found.wanted),
        tuple(work.placed(written)),
        tuple((each, found.wanted[each.wanted]) for each in left),
        found.apart,
        besides,
        closes,
        question.options.generalize and not work.options.generalize,
        written.texts,
        work.files.diff(written.texts),
    )


@dataclass(frozen=True, slots=True)
class _Written:
    """What is suggested as it stands in the changed files, and the topology that they are."""

    suggested: Suggested
    texts: Mapping[str, str]
    topology: Topology


class _Work:
    def __init__(
        self,
        question: Question,
        topology: Topology,
        inventory: Inventory,
        wanted: Mapping[Wanted, Evidence],
    ) -> None:
        self.question, self.topology, self.inventory = question, topology, inventory
        self.wanted, self.options = wanted, question.options
        self.files = Files(question.source, topology)
        self.forbidden: list[Left] = []
        self._compiled: dict[tuple[Policy, ...], Compiled] = {}

    def _compile(self, topology: Topology) -> Compiled:
        """The flows of the file with other policies, made once."""
        if topology.policies not in self._compiled:
            self._compiled[topology.policies] = compile(topology, self.inventory)
        return self._compiled[topology.policies]

    # what to add

    def suggested(self) -> Suggested:
        """What can be added without breaking a claim that holds."""
        held = self._held(self.topology) if self.topology.claims else frozenset()
        while True:
            found = self._suggest(self.files.fixed())
            after = with_suggested(self.topology, found.rules, found.policies)
            broken = held - self._held(after) if held and found.rules else ()
            if not broken:
                return found
            if self.options.generalize:
                self.options = replace(self.options, generalize=False)
            else:
                self._forbid(found, next(each for each in self.topology.claims if each in broken))

    def _suggest(self, fixed: frozenset[tuple[str, Direction]]) -> Suggested:
        forbidden = {left.wanted for left in self.forbidden}
        wanted = (each for each in self.wanted if each not in forbidden)
        return suggest(self.topology, self.inventory, wanted, self.options, fixed)

    def _held(self, topology: Topology) -> frozenset[Claim]:
        strict = enforced(topology)
        compiled = self._compile(strict)
        results = verify(strict, self.inventory, compiled.flows, compiled.provenance)
        return frozenset(result.claim for result in results if result.holds)

    def _forbid(self, found: Suggested, claim: Claim) -> None:
        """Leave out what the rules are for that open something a claim forbids."""
        before = len(self.forbidden)
        for added in found.rules:
            pairs = self._pairs(found, added)
            if any(self._is_spoken_of(claim, client, server) for client, server in pairs):
                self.forbidden += [Left(one, Why.CLAIM, claim.text, claim.at) for one in added.serves]
        self.forbidden = list({left.wanted: left for left in self.forbidden}.values())
        assert len(self.forbidden) > before, "a claim breaks by what is opened between those it speaks of"

    def _is_spoken_of(self, claim: Claim, client: Endpoint, server: Endpoint) -> bool:
        by = claim.kind is ClaimKind.ONLY or selects(self.topology, claim.source, client)
        return by and selects(self.topology, claim.target, server)

    def _pairs(self, found: Suggested, added: Added) -> Iterator[tuple[Endpoint, Endpoint]]:
        """The clients and servers that a rule speaks of and that can meet."""
        after = with_suggested(self.topology, found.rules, found.policies)
        policy = next(each for each in after.policies if each.name == added.policy)
        ends = tuple(endpoints(self.topology, self.inventory))
        subjects = [end for end in ends if selects_any(after, policy.applied_to, end)]
        peers = [end for end in ends if selects_any(after, added.peers, end)]
        roads = Roads(self.topology, ends)
        for subject in subjects:
            for peer in peers:
                if subject.name != peer.name and roads.can_meet(subject, peer):
                    egress = added.direction is Direction.EGRESS
                    yield (subject, peer) if egress else (peer, subject)

    # the file

    def written(self, suggested: Suggested) -> _Written:
        """The files with it. Raises InputError where they have no place for it."""
        found = self._try(suggested)
        if found is None:
            lists = frozenset((each.name, way) for each in self.topology.policies for way in DIRECTIONS)
            found = self._try(self._suggest(lists))
        if found is None:
            raise InputError(
                f"{self.question.source.file} has no place where rules could be added without changing"
                " others: write its list of policies without anchors and aliases"
            )
        return found

    def _try(self, suggested: Suggested) -> _Written | None:
        """What the files become, None if reading them again does not give what was meant."""
        try:
            texts = self.files.with_(suggested, self._comments)
            topology = in_force(load(_changed(self.question.source, texts)), self.question.now)
        except (CannotEdit, InputError):
            return None
        meant = with_suggested(self.topology, suggested.rules, suggested.policies)
        return _Written(suggested, texts, topology) if same(topology, meant) else None

    def _comments(self, added: Added) -> tuple[str, ...]:
        seen = self._evidence(added)
        clients = told({one.client.vm.name for one in added.serves})
        servers = told({one.server.vm.name for one in added.serves})
        fate = " and ".join(sorted(verdict.value for verdict in seen.verdicts))
        first = f"suggested: {clients} -> {servers}, {packets(seen.packets)} {fate}, {span(seen)}"
        if not added.unseen:
            return (first,)
        return first, f"not seen, but alike: {told(f'{one} -> {other}' for one, other in added.unseen)}"

    def _evidence(self, added: Added) -> Evidence:
        return evidence(self.wanted[one] for one in dict.fromkeys(added.serves))

    def placed(self, written: _Written) -> Iterator[SuggestedRule]:
        """The rules with the lines that they got."""
        policies = {policy.name: policy for policy in written.topology.policies}
        new = {policy.name for policy in written.suggested.policies}
        for added in written.suggested.rules:
            rules = rules_of(policies[added.policy], added.direction) or ()
            at = next(rule.at for rule in rules if plain(rule) == plain(added.rule))
            yield SuggestedRule(added, at, added.policy in new, self._evidence(added))

    # the proof

    def proved(self, written: _Written) -> tuple[tuple[Opened, ...], tuple[Reach, ...]]:
        """What opens besides, and what closes; that all that was asked for is allowed is asserted."""
        asked = {one for added in written.suggested.rules for one in added.serves}
        after, before = enforced(written.topology), enforced(self.topology)
        is_open, was_open = (Asked(self._compile(each)) for each in (after, before))
        for one in asked:
            for direction in DIRECTIONS:
                assert one_side(after, direction, *one.sides(direction), one.packet)[0], (
                    f"{one} is not allowed"
                )
            assert not less(_spans(one)[:1], is_open.open(one.client, one.server)), f"no flow lets {one} pass"
        besides = tuple(self._besides(written.suggested, asked, was_open, is_open))
        return besides, self._closes(written)

    def _besides(
        self, found: Suggested, asked: Iterable[Wanted], before: Asked, after: Asked
    ) -> Iterator[Opened]:
        seen: dict[tuple[str, str, str, int], Spans] = defaultdict(tuple)
        for one in asked:
            key = _key(one.client, one.server)
            seen[key] = joined((*seen[key], *_spans(one)))
        opened: dict[tuple[str, str, str, int], Spans] = defaultdict(tuple)
        pairs = dict.fromkeys(pair for added in found.rules for pair in self._pairs(found, added))
        for client, server in pairs:
            key = _key(client, server)
            more = less(after.open(client, server), before.open(client, server))
            opened[key] = joined((*opened[key], *less(more, seen[key])))
        return (Opened(*key, services) for key, services in opened.items() if services)

    def _closes(self, written: _Written) -> tuple[Reach, ...]:
        old, new = self._compile(self.topology), self._compile(written.topology)
        touched = set(old.flows) ^ set(new.flows)
        before = Side(old.flows, old.identities, self.topology)
        after = Side(new.flows, new.identities, written.topology)
        changes = reach_changes(before, after, touched)
        return tuple(replace(change, opens=()) for change in changes if change.closes)


def _changed(source: Source, texts: Mapping[str, str]) -> Source:
    included = {file: texts.get(file, text) for file, text in source.included.items()}
    return replace(source, text=texts.get(source.file, source.text), included=included)


def _key(client: Endpoint, server: Endpoint) -> tuple[str, str, str, int]:
    return client.vm.name, server.vm.name, client.nic.network, client.address.version


def _spans(one: Wanted) -> Spans:
    """The service as the register has it; `icmp` means both kinds of echo."""
    if one.service == ECHO:
        echoes = sorted((8, 128), key=lambda kind: kind != one.port)
        return tuple((packed(ICMP, kind), packed(ICMP, kind)) for kind in echoes)
    number = packed(*one.service)
    return ((number, number),)


def packets(count: int) -> str:
    """`1 packet`, `1,204 packets`."""
    return f"{count:,} packet{'' if count == 1 else 's'}"


def span(seen: Evidence) -> str:
    """`2026-11-28 13:58 to 14:03 UTC`."""
    first, last = (f"{each.astimezone(UTC):%Y-%m-%d %H:%M}" for each in (seen.first, seen.last))
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last.removeprefix(first[:11])} UTC"
