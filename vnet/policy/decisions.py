"""What becomes of all connections between two VMs: which services, by which rule. Read from the flows."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from vnet.policy import origin
from vnet.policy.claims import promised
from vnet.policy.compile import Compiled
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.explain import say
from vnet.policy.matrix import EVERY, Matrix, Spans, joined, words
from vnet.policy.origin import Origin
from vnet.policy.outside import of_fabric
from vnet.policy.semantics import selects
from vnet.topology.inventory import Inventory
from vnet.topology.model import Peer, Topology


@dataclass(frozen=True, slots=True)
class Decision:
    """The services of one VM towards another that one rule or default decides.

    `version` is 4 or 6 where the other IP version fares otherwise, else 0.
    """

    source: str
    target: str
    version: int
    services: Spans
    allowed: bool
    origin: Origin

    @property
    def ports(self) -> str:
        """The services in words, and their IP version."""
        return f"{words(self.services)}{f' over IPv{self.version}' if self.version else ''}"

    @property
    def by(self) -> str:
        """What decides, in words."""
        return say(self.origin)


def decisions(
    topology: Topology, inventory: Inventory, compiled: Compiled, source: Peer, target: Peer
) -> tuple[Decision, ...]:
    """Each pair of VMs that share a network or a router: what is allowed first, then what is not."""
    outside = of_fabric(topology, inventory, (source, target)).ends()
    ends = [end for end in (*endpoints(topology, inventory), *outside) if not end.is_link_local]
    sources = promised(source, [end for end in ends if selects(topology, source, end)])
    targets = promised(target, [end for end in ends if selects(topology, target, end)])
    asked, found = Asked(compiled), dict[tuple[str, str, bool, Origin], dict[int, Spans]]()
    versions: dict[tuple[str, str], set[int]] = defaultdict(set)
    for one, other in _pairs(Roads(topology, endpoints(topology, inventory)), sources, targets):
        versions[_names(one, other)].add(one.address.version)
        for allowed, why, services in asked.between(one, other):
            family = found.setdefault((*_names(one, other), allowed, why), {})
            version = one.address.version
            family[version] = joined((*family.get(version, ()), *services))
    told = [each for key, family in found.items() for each in _told(key, family, versions[key[:2]])]
    return tuple(sorted(told, key=lambda each: (each.source, each.target, not each.allowed)))


def _names(one: Endpoint, other: Endpoint) -> tuple[str, str]:
    """What two ends are called: VMs by their own names, also replicas."""
    first, second = (end.who if end.is_outside else end.vm.name for end in (one, other))
    return first, second


def _pairs(
    roads: Roads, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
) -> Iterator[tuple[Endpoint, Endpoint]]:
    for one in sources:
        for other in targets:
            if one.vm.name != other.vm.name and roads.can_meet(one, other):
                yield one, other


def _told(
    key: tuple[str, str, bool, Origin], by_family: Mapping[int, Spans], versions: Set[int]
) -> Iterator[Decision]:
    """One decision where all families that the two have in common fare the same, else one each."""
    source, target, allowed, why = key
    services = set(by_family.values())
    if by_family.keys() == versions and len(services) == 1:
        yield Decision(source, target, 0, services.pop(), allowed, why)
        return
    for version, its in by_family.items():
        yield Decision(source, target, version, its, allowed, why)


class Asked:
    """What the flows of a fabric make of connections between two endpoints."""

    def __init__(self, compiled: Compiled) -> None:
        self._matrix = Matrix(compiled.flows)
        self._identities, self._provenance = compiled.identities, compiled.provenance
        self._known: dict[tuple[int, int], list[tuple[bool, Origin, Spans]]] = {}

    def open(self, source: Endpoint, target: Endpoint) -> Spans:
        """The services that the source may open to the target."""
        return joined(span for ok, _, spans in self.between(source, target) if ok for span in spans)

    def between(self, source: Endpoint, target: Endpoint) -> list[tuple[bool, Origin, Spans]]:
        """All services, by whether they are allowed and what decides that."""
        here = source.nic.network == target.nic.network
        if here and source.nic.is_isolated and target.nic.is_isolated:
            return [(False, origin.APART, EVERY)]
        one, other = (self._identities.number(end) for end in (source, target))
        if (one, other) not in self._known:
            decided = self._matrix.decided(one, other)
            self._known[one, other] = [
                (allowed, self._provenance[cookie], services)
                for (allowed, cookie), services in decided.items()
            ]
        return self._known[one, other]
