"""The rules that are missing for connections that were seen: as few as two ways of grouping give, none of
which can be left out, none of which opens more than was seen unless that is asked for.

How:
1. Connections are sorted (`vnet.policy.wanted`): what a rule could allow, and on which sides it is missing.
   All is judged as if audited policies were enforced, so that they can be, afterwards.
2. Each missing side is a *need*: who, towards whom, which port; by VM, replicas one by one. With `generalize`
   needs of some replicas, or of half of a group, become those of all, told apart from what was seen.
3. Needs that all have in common to whom a policy applies become rules of this policy, as far back in its list
   as they still decide. What is left becomes new policies, behind the others as long as that is enough.
4. A rule without which all is allowed just as well is taken out again.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vnet.openflow.fields import ICMP, ICMPV6
from vnet.policy.endpoint import Endpoint
from vnet.policy.named import SUGGESTED, People, Ports, Who, address_of, told
from vnet.policy.semantics import in_order, one_side, responsible, rules_of, selects_any
from vnet.policy.wanted import DIRECTIONS, ECHO, Left, Port, Wanted, Why, enforced, sort
from vnet.topology.inventory import Inventory
from vnet.topology.model import (
    Action,
    Direction,
    Enforcement,
    Established,
    Peer,
    Policy,
    Rule,
    Topology,
)

Need = tuple[Who, Port]
"""Towards whom, and which port."""
GROUP_SHARE = 2
"""With `generalize` a group stands for its members if one in so many of them was seen, and two at least."""


@dataclass(frozen=True, slots=True)
class Options:
    """What may be done besides the least.

    `overrule`: refuse nothing because a rule says so. `generalize`: all replicas for some, groups for most of
    their members. `ranges`: ports that follow each other as a range, very many ports too.
    """

    overrule: bool = False
    generalize: bool = False
    ranges: bool = False


NO_OPTIONS = Options()


@dataclass(frozen=True, slots=True)
class Added:
    """A rule that is suggested.

    `policy` is the name of the one it belongs to; `before` the rule of it that it comes before, None behind
    all. `ports` are its services as it names them. `serves` are the connections that need it; `unseen` the
    pairs of client and server that it also speaks of.
    """

    policy: str
    direction: Direction
    before: Rule | None
    peers: tuple[Peer, ...]
    ports: Ports
    serves: tuple[Wanted, ...]
    unseen: tuple[tuple[Who, Who], ...] = ()

    @property
    def rule(self) -> Rule:
        """As the topology has it; its number is that of a list of its own."""
        return Rule("", 1, self.direction, self.peers, self.ports.services, Action.ALLOW, False, SUGGESTED)


@dataclass(frozen=True, slots=True)
class NewPolicy:
    """A policy that is suggested for rules that belong into none of those there are.

    `before` is the policy it comes before, None behind all.
    """

    name: str
    tier: str
    applied_to: tuple[Peer, ...]
    direction: Direction
    enforcement: Enforcement
    established: Established
    before: Policy | None

    @property
    def policy(self) -> Policy:
        """As the topology has it, without its rules."""
        lists: tuple[tuple[Rule, ...] | None, tuple[Rule, ...] | None] = ((), None)
        if self.direction is Direction.EGRESS:
            lists = (None, ())
        return Policy(
            self.name, self.tier, self.applied_to, *lists, SUGGESTED, self.enforcement, self.established
        )


@dataclass(frozen=True, slots=True)
class Suggested:
    """What to add, and what nothing is suggested for."""

    rules: tuple[Added, ...]
    policies: tuple[NewPolicy, ...]
    left: tuple[Left, ...]


def suggest(
    topology: Topology,
    inventory: Inventory,
    wanted: Iterable[Wanted],
    options: Options = NO_OPTIONS,
    fixed: Collection[tuple[str, Direction]] = (),
) -> Suggested:
    """The rules that allow what is wanted.

    Args:
        fixed: lists of policies that cannot be added to.
    """
    found = sort(enforced(topology), inventory, wanted, options.overrule, options.ranges)
    work, draft = _Work(topology, inventory, options, frozenset(fixed)), _Draft()
    for direction in DIRECTIONS:
        draft = work.cover(draft, direction, found.missing.get(direction, ()))
    return Suggested(draft.rules, draft.policies, found.left)


def with_suggested(topology: Topology, rules: Iterable[Added], policies: Iterable[NewPolicy]) -> Topology:
    """The topology with what is suggested in it."""
    rules = tuple(rules)
    those = list(topology.policies)
    for new in policies:
        at = next(
            (i for i, each in enumerate(those) if new.before and each.name == new.before.name), len(those)
        )
        those.insert(at, new.policy)
    return replace(topology, policies=tuple(_with_rules(policy, rules) for policy in those))


def _with_rules(policy: Policy, added: Sequence[Added]) -> Policy:
    for direction in DIRECTIONS:
        own = [each for each in added if (each.policy, each.direction) == (policy.name, direction)]
        if own:
            old = rules_of(policy, direction) or ()
            rules: list[Rule] = []
            for place in (*old, None):
                rules += [each.rule for each in own if each.before == place]
                rules += [place] if place is not None else []
            numbered = tuple(replace(rule, number=number) for number, rule in enumerate(rules, 1))
            is_ingress = direction is Direction.INGRESS
            policy = replace(policy, ingress=numbered) if is_ingress else replace(policy, egress=numbered)
    return policy


# -- the work -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Context:
    """What a new policy has to have in common with those there are, so that it closes nothing."""

    enforcement: Enforcement
    established: Established
    tier: str


@dataclass(frozen=True, slots=True)
class _Draft:
    """What is to be added so far."""

    rules: tuple[Added, ...] = ()
    policies: tuple[NewPolicy, ...] = ()

    def and_(self, *rules: Added, policies: tuple[NewPolicy, ...] = ()) -> _Draft:
        return _Draft((*self.rules, *rules), (*self.policies, *policies))

    def without(self, rule: Added) -> _Draft:
        """Without a rule, and without its policy if it has no other."""
        rules = tuple(each for each in self.rules if each is not rule)
        names = {each.policy for each in rules}
        kept = (each for each in self.policies if each.name != rule.policy or each.name in names)
        return _Draft(rules, tuple(kept))


class _Work:
    def __init__(
        self,
        topology: Topology,
        inventory: Inventory,
        options: Options,
        fixed: frozenset[tuple[str, Direction]],
    ) -> None:
        self._topology, self._strict = topology, enforced(topology)
        self._inventory, self._options, self._fixed = inventory, options, fixed
        self._people = People(topology, inventory)
        self._because: dict[tuple[Direction, Who, Need], list[Wanted]] = defaultdict(list)
        self._contexts: dict[tuple[Direction, Endpoint], _Context | None] = {}

    def cover(self, draft: _Draft, direction: Direction, wanted: Iterable[Wanted]) -> _Draft:
        """The draft and what is missing on one side."""
        needs: dict[Who, set[Need]] = defaultdict(set)
        for one in wanted:
            subject, peer = one.sides(direction)
            who, need = self._who(direction, subject), (peer.vm.name, one.service)
            needs[who].add(need)
            self._because[direction, who, need].append(one)
        if self._options.generalize:
            self._generalize(direction, needs)
        plain = self._covered(draft, direction, _frozen(needs))
        among_themselves = self._covered(draft, direction, _frozen(self._with_themselves(needs)))
        return min(plain, among_themselves, key=lambda each: len(each.rules))

    def _covered(self, draft: _Draft, direction: Direction, needs: dict[Who, frozenset[Need]]) -> _Draft:
        draft = self._into_policies(draft, direction, needs)
        return self._pruned(self._as_policies(draft, direction, needs))

    def _with_themselves(self, needs: Mapping[Who, set[Need]]) -> dict[Who, set[Need]]:
        """With those added that talk to others alike: what a VM of one NIC in a network sends itself is not
        carried, so `from web` for web opens no more than `from` each other one of web."""
        asked = {need for several in needs.values() for need in several}
        return {
            who: several
            | {(who, port) for _, port in several if self._is_single(who) and (who, port) in asked}
            for who, several in needs.items()
        }

    def _is_single(self, who: Who) -> bool:
        networks = {end.name: end.nic.network for end in self._people.ends.get(who, ())}
        return bool(networks) and len(set(networks.values())) == len(networks)

    # who

    def _who(self, direction: Direction, end: Endpoint) -> Who:
        """The VM, if a list for it as a whole changes nothing for its other addresses; else the address."""
        ends = self._people.ends[end.vm.name]
        same = {each and each.enforcement for each in (self._context(direction, one) for one in ends)}
        return end.vm.name if len(same) == 1 else address_of(end)

    def _context(self, direction: Direction, end: Endpoint) -> _Context | None:
        """None for egress that is open since no policy lists it: to list it would close it."""
        key = direction, end
        if key not in self._contexts:
            self._contexts[key] = self._context_of(direction, end)
        return self._contexts[key]

    def _context_of(self, direction: Direction, end: Endpoint) -> _Context | None:
        topology = self._topology
        listing = [
            policy
            for policy in in_order(topology)
            if rules_of(policy, direction) is not None and selects_any(topology, policy.applied_to, end)
        ]
        by = responsible(listing)
        if by is not None:
            return _Context(by.enforcement, by.established, by.tier)
        if direction is Direction.EGRESS:
            return None
        tier = _DEFAULT_TIER if _DEFAULT_TIER in topology.tiers else topology.tiers[-1]
        return _Context(Enforcement.ENFORCE, Established.REVALIDATE, tier)

    # more than was seen

    def _generalize(self, direction: Direction, needs: dict[Who, set[Need]]) -> None:
        for who, several in needs.items():
            for port in {port for _, port in several}:
                peers = {peer for peer, other in several if other == port}
                for extra in self._widened(peers):
                    if all(self._may(direction, who, peer, port) for peer in extra):
                        several |= {(peer, port) for peer in extra}
        for need in sorted({need for several in needs.values() for need in several}):
            for extra in self._widened({who for who, several in needs.items() if need in several}):
                if all(self._is_alike(direction, who) and self._may(direction, who, *need) for who in extra):
                    for who in extra:
                        needs.setdefault(who, set()).add(need)

    def _widened(self, seen: set[Who]) -> Iterator[frozenset[Who]]:
        """Who is missing from replicas and groups of which enough were seen."""
        for members in self._people.replicas.values():
            if members & seen:
                yield members - seen
        for members in self._people.groups.values():
            together = len(members & seen)
            if together > 1 and together * GROUP_SHARE >= len(members):
                yield members - seen

    def _is_alike(self, direction: Direction, who: Who) -> bool:
        """Whether the VM can be spoken of as a whole."""
        return self._who(direction, self._people.ends[who][0]) == who

    def _may(self, direction: Direction, who: Who, peer: Who, port: Port) -> bool:
        """Whether nothing that somebody wrote forbids it."""
        ends = (self._people.of(who), self._people.of(peer))
        clients, servers = ends if direction is Direction.EGRESS else (ends[1], ends[0])
        tried = [
            _of_service(client, server, port)
            for client in clients
            for server in servers
            if client.address.version == server.address.version and client.vm.name != server.vm.name
        ]
        found = sort(self._strict, self._inventory, tried, self._options.overrule)
        return all(left.why not in (Why.RULE, Why.CLAIM) for left in found.left)

    # rules of policies that are there

    def _into_policies(
        self, draft: _Draft, direction: Direction, needs: dict[Who, frozenset[Need]]
    ) -> _Draft:
        homes = self._homes(direction, needs)
        refused: dict[str, frozenset[Need]] = defaultdict(frozenset)
        while True:
            common = {
                policy.name: frozenset.intersection(*(needs[who] for who in members)) - refused[policy.name]
                for policy, members in homes
            }
            homes = [home for home in homes if common[home[0].name]]
            if not homes:
                return draft
            policy, members = max(homes, key=lambda home: len(common[home[0].name]) * len(home[1]))
            for those in _grouped(common[policy.name]):
                added = self._placed(draft, policy, direction, members, those)
                if added is None:
                    refused[policy.name] |= those
                    continue
                draft = draft.and_(added)
                for who in members:
                    needs[who] -= those

    def _homes(
        self, direction: Direction, needs: Mapping[Who, frozenset[Need]]
    ) -> list[tuple[Policy, frozenset[Who]]]:
        """The policies that can be added to and apply to nobody who needs nothing."""
        found = []
        subjects = [end for who in needs for end in self._people.of(who)]
        for policy in in_order(self._strict):
            if rules_of(policy, direction) is None or (policy.name, direction) in self._fixed:
                continue
            if any(selects_any(self._strict, policy.applied_to, end) for end in subjects):
                members = self._people.taken(policy.applied_to)
                if members <= needs.keys():
                    found.append((policy, members))
        return found

    def _placed(
        self,
        draft: _Draft,
        policy: Policy,
        direction: Direction,
        members: frozenset[Who],
        those: frozenset[Need],
    ) -> Added | None:
        """A rule as far back in a policy's list as it still decides; None if it decides nowhere in it."""
        rule = self._rule(policy.name, direction, members, those)
        for before in (None, *reversed(rules_of(policy, direction) or ())):
            added = replace(rule, before=before)
            if self._decides(draft.and_(added), added):
                return added
        return None

    def _rule(
        self, policy: str, direction: Direction, members: frozenset[Who], those: frozenset[Need]
    ) -> Added:
        peers = self._people.named({peer for peer, _ in those})
        ports = told({port for _, port in those}, self._topology.services, self._options.ranges)
        pairs = [(who, need) for who in sorted(members) for need in sorted(those)]
        serves = [one for who, need in pairs for one in self._because.get((direction, who, need), ())]
        unseen = {
            (who, need[0]) if direction is Direction.EGRESS else (need[0], who)
            for who, need in pairs
            if (direction, who, need) not in self._because and who != need[0]
        }
        return Added(policy, direction, None, peers, ports, tuple(serves), tuple(sorted(unseen)))

    def _decides(self, draft: _Draft, *rules: Added) -> bool:
        """Whether all that rules are for is allowed on their side."""
        after = enforced(with_suggested(self._topology, draft.rules, draft.policies))
        return all(
            one_side(after, rule.direction, *one.sides(rule.direction), one.packet)[0]
            for rule in rules
            for one in rule.serves
        )

    # new policies

    def _as_policies(
        self, draft: _Draft, direction: Direction, needs: Mapping[Who, frozenset[Need]]
    ) -> _Draft:
        by_context: dict[_Context, dict[Who, frozenset[Need]]] = defaultdict(dict)
        for who, several in needs.items():
            context = self._context(direction, self._people.of(who)[0])
            assert context is not None, "what is open needs no rule"
            if several:
                by_context[context][who] = several
        for context, those in by_context.items():
            for members, several in _clustered(those):
                draft = self._as_policy(draft, direction, context, members, several)
        return draft

    def _as_policy(
        self,
        draft: _Draft,
        direction: Direction,
        context: _Context,
        members: frozenset[Who],
        several: frozenset[Need],
    ) -> _Draft:
        applied_to = self._people.named(members)
        name = self._free_name(draft, f"{_slug(applied_to)}-{direction.value}-as-seen")
        rules = tuple(self._rule(name, direction, members, those) for those in _grouped(several))
        for tier, before in self._places(context.tier):
            new = NewPolicy(
                name, tier, applied_to, direction, context.enforcement, context.established, before
            )
            tried = draft.and_(*rules, policies=(new,))
            if self._decides(tried, *rules):
                return tried
        raise AssertionError("the first policy of the first tier has the first word")

    def _places(self, tier: str) -> Iterator[tuple[str, Policy | None]]:
        """The last place of a tier, those before it, then those of the tiers before."""
        tiers = self._topology.tiers
        for each in reversed(tiers[: tiers.index(tier) + 1]):
            own = [policy for policy in self._topology.policies if policy.tier == each]
            places: tuple[Policy | None, ...] = (None, *reversed(own))
            yield from ((each, before) for before in places)

    def _free_name(self, draft: _Draft, wanted: str) -> str:
        taken = {each.name for each in self._topology.policies} | {each.name for each in draft.policies}
        names = (wanted, *(f"{wanted}-{number}" for number in range(2, len(taken) + 3)))
        return next(name for name in names if name not in taken)

    # what can be left out

    def _pruned(self, draft: _Draft) -> _Draft:
        for rule in sorted(draft.rules, key=lambda each: len(each.serves)):
            fewer = draft.without(rule)
            if self._decides(fewer, rule):
                draft = fewer
        return draft


_DEFAULT_TIER = "application"
_NAME_MAX = 40


def _slug(peers: Sequence[Peer]) -> str:
    """A name made of the first selector."""
    words = re.sub(r"[^a-z0-9]+", "-", peers[0].value.lower()).strip("-")
    return words[:_NAME_MAX].strip("-")


def _frozen(needs: Mapping[Who, set[Need]]) -> dict[Who, frozenset[Need]]:
    return {who: frozenset(several) for who, several in needs.items()}


def _of_service(client: Endpoint, server: Endpoint, port: Port) -> Wanted:
    if port == ECHO:
        kind = (ICMP, 8) if client.address.version == 4 else (ICMPV6, 128)
        return Wanted(client, server, *kind)
    return Wanted(client, server, *port)


def _grouped(needs: Collection[Need]) -> list[frozenset[Need]]:
    """Needs put together as rules: by peer or by port, whichever gives fewer."""
    by_peer, by_port = _alike(needs, 0), _alike(needs, 1)
    return by_peer if len(by_peer) <= len(by_port) else by_port


def _alike(needs: Collection[Need], key: int) -> list[frozenset[Need]]:
    several: dict[Who | Port, set[Who | Port]] = defaultdict(set)
    for need in sorted(needs):
        several[need[key]].add(need[1 - key])
    together: dict[frozenset[Who | Port], set[Who | Port]] = defaultdict(set)
    for one, others in several.items():
        together[frozenset(others)].add(one)
    chosen = ({each for each in needs if each[key] in ones} for ones in together.values())
    return [frozenset(each) for each in chosen]


def _clustered(needs: Mapping[Who, frozenset[Need]]) -> list[tuple[frozenset[Who], frozenset[Need]]]:
    """Whom new policies are for, and their needs: by who has the same ones, or by what the same ones have."""
    by_who: dict[frozenset[Need], set[Who]] = defaultdict(set)
    by_need: dict[Need, set[Who]] = defaultdict(set)
    for who, several in needs.items():
        by_who[several].add(who)
        for need in several:
            by_need[need].add(who)
    together: dict[frozenset[Who], set[Need]] = defaultdict(set)
    for need in sorted(by_need):
        together[frozenset(by_need[need])].add(need)
    one = [(frozenset(members), several) for several, members in by_who.items()]
    other = [(members, frozenset(several)) for members, several in together.items()]
    return min(one, other, key=lambda each: sum(len(_grouped(several)) for _, several in each))
