"""Which rows meet: for two identities that have a client and a server who can meet, what each side asks.

Only pairs of which one names the other are looked at one by one. All others have the row of those whom no
rule names, so one example for each outcome of the other side is enough, and stands for all of them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

from vnet.policy.endpoint import Endpoint, Roads, reached_by
from vnet.policy.identity import OUTSIDE, Identities, subject_of
from vnet.policy.rows import Asked, Default, Row, RuleList
from vnet.policy.semantics import in_order, rules_of
from vnet.topology.inventory import router_of_exit
from vnet.topology.model import Direction, Peer, PeerKind, Topology


@dataclass(frozen=True, slots=True)
class Meeting:
    """A client and a server of one family that meet, and what each side has for the other."""

    client: Endpoint
    server: Endpoint
    egress: Row
    ingress: Row


Side = Mapping[int, RuleList]
"""By identity: the rules that apply to it."""
_Place = tuple[str, int, bool]
"""Where two meet: a network, or a router (then True), and the IP version."""


def rule_lists(topology: Topology, identities: Identities, direction: Direction) -> Side:
    """What each identity is asked in one direction; those with the same policies share a list."""
    policies = [policy for policy in in_order(topology) if rules_of(policy, direction) is not None]
    applied: dict[int, list[int]] = {number: [] for number in identities.by_number}
    asked: list[tuple[Asked, ...]] = []
    for place, policy in enumerate(policies):
        tier = topology.tiers.index(policy.tier)
        asked.append(
            tuple(
                Asked(policy, rule, tier, *selected(identities, rule.peers))
                for rule in rules_of(policy, direction) or ()
            )
        )
        for number in selected(identities, policy.applied_to)[0]:
            if subject_of(number) != OUTSIDE:
                applied[number].append(place)
    shared: dict[tuple[int, ...], RuleList] = {}
    for places in {tuple(each) for each in applied.values()}:
        default = Default(direction, tuple(policies[place] for place in places))
        shared[places] = RuleList((rule for place in places for rule in asked[place]), default)
    beyond = RuleList((), Default(direction, (), is_outside=True))
    return {
        number: beyond if subject_of(number) == OUTSIDE else shared[tuple(places)]
        for number, places in applied.items()
    }


def selected(identities: Identities, peers: tuple[Peer, ...]) -> tuple[frozenset[int], bool]:
    """The identities that selectors mean, and whether they mean everybody."""
    every = any(peer.kind is PeerKind.ANY for peer in peers)
    return (frozenset(identities.by_number) if every else identities.select(peers)), every


class Meetings:
    """All who can meet; those of which many are alike are told once."""

    def __init__(self, topology: Topology, identities: Identities, egress: Side, ingress: Side) -> None:
        self._egress, self._ingress = egress, ingress
        everyone = [end for each in identities.by_number.values() for end in each.members]
        self._roads = Roads(topology, everyone)
        self._reached = reached_by(everyone)  # who is not stands for others only where all are such
        self._ends = {
            number: self._by_place(sorted(each.members, key=lambda end: not self._is_reached(end)))
            for number, each in identities.by_number.items()
        }
        self._servers = _named_pairs(egress, ingress)

    def _is_reached(self, end: Endpoint) -> bool:
        """Whether anybody is handed what is for it: several with the same MAC may have an address."""
        return end.is_outside or bool(self._reached[end.name, end.address])

    def __iter__(self) -> Iterator[Meeting]:
        yield from self._named()
        clients, servers = self._buckets(self._egress), self._buckets(self._ingress)
        known: dict[int, set[int]] = defaultdict(set)
        for client, named in self._servers.items():
            for server in named:
                known[server].add(client)
        for client in self._ends:
            yield from self._unnamed(client, servers, self._servers.get(client, ()), True)
        for server in self._ends:
            yield from self._unnamed(server, clients, known[server], False)

    def _named(self) -> Iterator[Meeting]:
        for client, servers in self._servers.items():
            mine = self._ends[client]
            for server in servers:
                theirs = self._ends[server]
                for place in mine.keys() & theirs.keys():
                    pair = self._pair(place, mine[place], theirs[place])
                    if pair is not None:
                        yield self._meeting((client, pair[0]), (server, pair[1]))

    def _meeting(self, client: tuple[int, Endpoint], server: tuple[int, Endpoint]) -> Meeting:
        egress, ingress = self._egress[client[0]].row(server[0]), self._ingress[server[0]].row(client[0])
        return Meeting(client[1], server[1], egress, ingress)

    def _buckets(self, side: Side) -> _Buckets:
        """Everybody by place and by what those are in for whom no rule names."""
        found: _Buckets = defaultdict(lambda: defaultdict(list))
        for number, ends in self._ends.items():
            outcome = side[number].row(None).outcome
            for place, reps in ends.items():
                found[place][outcome] += ((number, end) for end in reps)
        return found

    def _unnamed(
        self,
        one: int,
        buckets: _Buckets,
        named: Iterable[int],
        as_client: bool,
    ) -> Iterator[Meeting]:
        """One example for each place and outcome of those whom `one` does not name and who do not name it."""
        known = named if isinstance(named, set) else set(named)
        for place, reps in self._ends[one].items():
            for others in buckets.get(place, {}).values():
                left = ((number, end) for number, end in others if number not in known)
                found = next(
                    (
                        (client, server)
                        for other in left
                        for mine in reps
                        for client, server in [((one, mine), other) if as_client else (other, (one, mine))]
                        if self._meet(place, client[1], server[1])
                    ),
                    None,
                )
                if found is not None:
                    yield self._meeting(*found)

    def _by_place(self, members: Iterable[Endpoint]) -> Mapping[_Place, Sequence[Endpoint]]:
        """Of each network and family two NICs that are isolated and two that are not, of each router those of
        two networks that are sent packets and that are not: enough to find a pair."""
        found: dict[_Place, list[Endpoint]] = defaultdict(list)
        for end in members:
            if end.is_outside and not end.nic.network:
                reps = found[router_of_exit(end.name), end.address.version, True]
                reps += [] if reps else [end]
                continue
            reps = found[end.nic.network, end.address.version, False]
            alike = [other.name for other in reps if other.nic.is_isolated == end.nic.is_isolated]
            if len(alike) < 2 and end.name not in alike:
                reps.append(end)
            router = self._roads.routing.router(end.nic.network)
            if router is None or end.is_outside or end.is_link_local:
                continue
            reps = found[router.name, end.address.version, True]
            routed = self._roads.is_routed_to(end)
            known = [other.nic.network for other in reps if self._roads.is_routed_to(other) == routed]
            if len(known) < 2 and end.nic.network not in known:
                reps.append(end)
        return found

    def _meet(self, place: _Place, client: Endpoint, server: Endpoint) -> bool:
        """Whether they can, given that both are there."""
        if place[2]:
            return self._roads.leads(client, server)
        apart = client.nic.is_isolated and server.nic.is_isolated
        return client.name != server.name and not apart and self._is_reached(server)

    def _pair(
        self, place: _Place, clients: Sequence[Endpoint], servers: Sequence[Endpoint]
    ) -> tuple[Endpoint, Endpoint] | None:
        return next(
            (pair for pair in product(clients, servers) if self._meet(place, *pair)),
            None,
        )


_Buckets = dict[_Place, dict[object, list[tuple[int, Endpoint]]]]


def _named_pairs(egress: Side, ingress: Side) -> Mapping[int, set[int]]:
    """For each client the servers that it names or that name it."""
    found: dict[int, set[int]] = defaultdict(set)
    for client, rules in egress.items():
        found[client].update(rules.named)
    for server, rules in ingress.items():
        for client in rules.named:
            found[client].add(server)
    return found
