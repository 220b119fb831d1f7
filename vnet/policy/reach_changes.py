"""What a change of flows opens and closes between whom: the words of a plan.

Only pairs that a changed flow speaks of, or of which one is new or gone, are worked out; the others' answers
stay what they were.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import product

from vnet.openflow.flow import Flow
from vnet.policy.endpoint import Endpoint, Places
from vnet.policy.identity import EndpointKey, Identities, label, peer_of, subject_of
from vnet.policy.matrix import NOTHING, Matrix, Spans, is_egress, joined, less, spoken_of
from vnet.policy.pipeline import Stage


@dataclass(frozen=True, slots=True)
class Side:
    """The flows of one generation, and who has which identity in it."""

    flows: Iterable[Flow]
    identities: Identities


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
    opens: dict[tuple[str, str], Spans] = defaultdict(tuple)
    closes: dict[tuple[str, str], Spans] = defaultdict(tuple)
    for client, server in _pairs(_classes(before.identities, after.identities), touched):
        old = _allowed(was, client.before, server.before)
        new = _allowed(becomes, client.after, server.after)
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

    @cached_property
    def places(self) -> Places:
        """Where its members are that were given addresses."""
        return Places(end for end in self.members if not end.address.is_link_local)


def _classes(before: Identities, after: Identities) -> tuple[_Class, ...]:
    ends: dict[EndpointKey, Endpoint] = {}
    for identity in (*before.by_number.values(), *after.by_number.values()):
        ends |= {(end.name, end.address): end for end in identity.members}
    found: dict[tuple[int | None, int | None], list[Endpoint]] = defaultdict(list)
    for key, end in ends.items():
        found[before.of.get(key), after.of.get(key)].append(end)
    return tuple(_Class(*numbers, tuple(members)) for numbers, members in found.items())


def _pairs(classes: tuple[_Class, ...], touched: Iterable[Flow]) -> Iterator[tuple[_Class, _Class]]:
    """The pairs that may fare otherwise, of those who can meet at all; each once."""
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
    return (pair for pair in dict.fromkeys(wanted) if pair[0].places.can_meet(pair[1].places))


def _judged(touched: Iterable[Flow]) -> Iterator[tuple[bool, int | None, int | None]]:
    """Whether it is about egress, and whom a flow of a policy names; what only takes the rest decides
    nothing new."""
    for flow in touched:
        if Stage.EGRESS <= flow.table < Stage.DELIVER and flow.match.entries:
            yield is_egress(flow.table), *spoken_of(flow)
