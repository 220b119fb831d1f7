"""What a change of flows opens and closes between whom: the words of a plan.

Only pairs that a changed flow speaks of, or of which one is new or gone, are worked out; the others' answers
stay what they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from vnet.openflow.flow import Flow
from vnet.policy.endpoint import Endpoint, Places
from vnet.policy.identity import EndpointKey, Identities, label, peer_of, subject_of
from vnet.policy.matrix import NOTHING, Matrix, Spans, is_egress, joined, less, spoken_of
from vnet.policy.pipeline import Stage
from vnet.topology.model import Topology
from vnet.topology.routing import Routing


@dataclass(frozen=True, slots=True)
class Side:
    """The flows of one generation, who has which identity in it, and which networks routers join."""

    flows: Iterable[Flow]
    identities: Identities
    topology: Topology


@dataclass(frozen=True, slots=True)
class Reach:
    """What changes for the VMs of two classes; each by the names they are declared under."""

    source: str
    target: str
    opens: Spans
    closes: Spans


def reach_changes(before: Side, after: Side, touched: Iterable[Flow]) -> tuple[Reach, ...]:
    """Which services open and close, by client and server; `touched` are the flows that differ."""
    was, becomes = Matrix(before.flows), Matrix(after.flows)
    met, meet = _Ground(before.topology), _Ground(after.topology)
    joins = ((side.topology.routers, side.topology.uplinks) for side in (before, after))
    rejoined = next(joins) != next(joins)
    opens: dict[tuple[str, str], Spans] = defaultdict(tuple)
    closes: dict[tuple[str, str], Spans] = defaultdict(tuple)
    for client, server in _pairs(_classes(before.identities, after.identities), touched, rejoined):
        old = _allowed(was, client.before, server.before) if met.have(client, server) else NOTHING
        new = _allowed(becomes, client.after, server.after) if meet.have(client, server) else NOTHING
        names = client.label, server.label
        opens[names] = joined((*opens[names], *less(new, old)))
        closes[names] = joined((*closes[names], *less(old, new)))
    pairs = sorted(opens.keys() | closes.keys())
    found = (Reach(*names, opens[names], closes[names]) for names in pairs)
    return tuple(each for each in found if each.opens or each.closes)


def _allowed(matrix: Matrix, client: int | None, server: int | None) -> Spans:
    """Nothing where one of the two is not there."""
    return NOTHING if client is None or server is None else matrix.allowed(client, server)


@dataclass(frozen=True)
class _Class:
    """Those who had one identity and get one; None for those who are new or go."""

    before: int | None
    after: int | None
    members: tuple[Endpoint, ...] = field(compare=False)

    @property
    def label(self) -> str:
        return label(self.members)


class _Ground:
    """Where classes can meet in one generation."""

    def __init__(self, topology: Topology) -> None:
        self._routing = Routing(topology)
        self._places: dict[tuple[int | None, int | None], Places] = {}

    def have(self, client: _Class, server: _Class) -> bool:
        """Whether there is a place for the two."""
        return self._of(client).can_meet(self._of(server))

    def _of(self, one: _Class) -> Places:
        """Where its members are that were given addresses."""
        key = one.before, one.after
        if key not in self._places:
            given = (end for end in one.members if not end.is_link_local)
            self._places[key] = Places(given, self._routing)
        return self._places[key]


def _classes(before: Identities, after: Identities) -> tuple[_Class, ...]:
    ends: dict[EndpointKey, Endpoint] = {}
    for identity in (*before.by_number.values(), *after.by_number.values()):
        ends |= {(end.name, end.address): end for end in identity.members}
    found: dict[tuple[int | None, int | None], list[Endpoint]] = defaultdict(list)
    for end in ends.values():
        found[before.find(end), after.find(end)].append(end)
    return tuple(_Class(*numbers, tuple(members)) for numbers, members in found.items())


def _pairs(
    classes: tuple[_Class, ...], touched: Iterable[Flow], rejoined: bool
) -> Iterator[tuple[_Class, _Class]]:
    """The pairs that may fare otherwise, each once; all, if other networks are joined than before."""
    if rejoined:
        yield from product(classes, repeat=2)
        return
    subjects: dict[int | None, list[_Class]] = defaultdict(list)
    peers: dict[int | None, list[_Class]] = defaultdict(list)
    one_sided = [each for each in classes if each.before is None or each.after is None]
    for each in classes:
        numbers = {each.before, each.after} - {None}
        for number in {subject_of(number) for number in numbers if number is not None}:
            subjects[number].append(each)
        for number in {peer_of(number) for number in numbers if number is not None}:
            peers[number].append(each)
    subjects[None] = peers[None] = [*classes]
    wanted = [*product(one_sided, classes), *product(classes, one_sided)]
    for egress, subject, peer in dict.fromkeys(_judged(touched)):
        pairs = product(subjects.get(subject, ()), peers.get(peer, ()))
        wanted += pairs if egress else ((client, server) for server, client in pairs)
    yield from dict.fromkeys(wanted)


def _judged(touched: Iterable[Flow]) -> Iterator[tuple[bool, int | None, int | None]]:
    """Whether it is about egress, and whom a flow of a policy names; what only takes the rest decides
    nothing new."""
    for flow in touched:
        if Stage.EGRESS <= flow.table < Stage.DELIVER and flow.match.entries:
            yield is_egress(flow.table), *spoken_of(flow)
