"""Real packets that try the claims: what `vnet verify --probe` has the guests send.

Each claim is represented by a few connections, both those it promises and those it forbids. What is
expected is what the claim says, so a probe that ends otherwise means that the claim, or the proof, is wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from vnet.openflow.fields import ICMP, ICMPV6, TCP, UDP
from vnet.policy.claims import by_vms, can_meet
from vnet.policy.endpoint import Endpoint, IPAddress, Roads, endpoints
from vnet.policy.explain import CLIENT_PORT
from vnet.policy.semantics import Packet, decide, selects
from vnet.topology.inventory import Inventory
from vnet.topology.model import Claim, ClaimKind, PeerKind, Service, Topology

PER_CLAIM = 16
"""At most this many probes for one claim; a proof covers the rest."""

SAMPLE = ((TCP, 22), (TCP, 443), (UDP, 53), (ICMP, 0))
"""Services tried where a claim speaks of all."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection to try from inside a guest.

    Bind to `source_address`. `protocol` is that of the packet (ICMPv6 to an IPv6 address); `port` is 0
    for ICMP, which means an echo request.
    """

    claim: Claim
    source_vm: str
    source_address: IPAddress
    target_vm: str
    target_address: IPAddress
    protocol: int
    port: int
    allowed: bool


def probes(topology: Topology, inventory: Inventory, most: int = PER_CLAIM) -> tuple[Probe, ...]:
    """For every claim, in order, at most `most` probes, no two alike within a claim."""
    chosen = _Chooser(topology, inventory)
    return tuple(
        probe for claim in topology.claims for probe in islice(dict.fromkeys(chosen.of(claim)), most)
    )


def untried(topology: Topology, inventory: Inventory, claim: Claim) -> str:
    """What of a claim cannot be tried from inside of guests, and why; empty if all can."""
    if {claim.source.kind, claim.target.kind} & {PeerKind.INTERNET, PeerKind.HOST}:
        return "the rules are proved, but nobody outside is asked to send or to listen"
    attached = {vm.name for vm in inventory.vms if vm.endpoint}
    pairs = set(_pairs(topology, inventory, claim)) if attached else set()
    left_out = [pair for pair in pairs if attached.intersection(pair)]
    if not left_out:
        return ""
    names = sorted({name for pair in left_out for name in pair} & attached)
    what = f"{names[0]} is an endpoint" if len(names) == 1 else f"{', '.join(names)} are endpoints"
    return (
        f"{what}, and nobody there is asked to send or to listen: the rules are proved, but"
        f" {len(left_out)} of {len(pairs)} pairs {'is' if len(left_out) == 1 else 'are'} not tried"
    )


def _pairs(topology: Topology, inventory: Inventory, claim: Claim) -> Iterator[tuple[str, str]]:
    """Who sends to whom in a claim's probes, if everybody can: `only` tries all others too."""
    ends = [end for end in endpoints(topology, inventory) if end.is_given]
    sources = {
        end.vm.name for end in ends if claim.kind is ClaimKind.ONLY or selects(topology, claim.source, end)
    }
    targets = {end.vm.name for end in ends if selects(topology, claim.target, end)}
    yield from (pair for pair in product(sources, targets) if pair[0] != pair[1])


class _Chooser:
    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        self._topology = topology
        self._inventory = inventory
        self._roads = Roads(topology, endpoints(topology, inventory))
        ends = endpoints(topology, inventory)  # what is not launched here is asked nothing
        self._ends = tuple(end for end in ends if end.is_given and not end.vm.endpoint)

    def of(self, claim: Claim) -> Iterator[Probe]:
        sources = [end for end in self._ends if selects(self._topology, claim.source, end)]
        targets = [end for end in self._ends if selects(self._topology, claim.target, end)]
        promised, tried = _services(claim.service)
        match claim.kind:
            case ClaimKind.ALLOW:
                yield from self._promised(claim, sources, targets, promised)
            case ClaimKind.DENY | ClaimKind.NEVER:
                yield from _each(claim, _meeting(self._roads, sources, targets), tried)
            case ClaimKind.ONLY:
                yield from _alternating(
                    self._promised(claim, sources, targets, promised),
                    self._other_ports(claim, sources, targets),
                    self._other_sources(claim, sources, targets, promised),
                )

    def _promised(
        self,
        claim: Claim,
        sources: Sequence[Endpoint],
        targets: Sequence[Endpoint],
        services: Sequence[tuple[int, int]],
    ) -> Iterator[Probe]:
        """On the networks where the policies let it pass; the first shared one if they do on none."""
        for networks in by_vms(self._roads, sources, targets).values():
            passing = [pairs for pairs in networks.values() if self._passes(pairs[0], services[0])]
            for pairs in passing or list(networks.values())[:1]:
                for source, target in pairs:
                    yield from (_probe(claim, source, target, s, allowed=True) for s in services)

    def _passes(self, pair: tuple[Endpoint, Endpoint], service: tuple[int, int]) -> bool:
        source, target = pair
        protocol, port = _spoken(service, source)
        echo = {ICMP: 8, ICMPV6: 128}.get(protocol, 0)
        ends = source.name, source.address, target.name, target.address
        packet = Packet(*ends, protocol, CLIENT_PORT, port, echo)
        return decide(self._topology, self._inventory, packet).allowed

    def _other_ports(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Probe]:
        """The named source on services beside the named one."""
        service = claim.service
        if service is None or service.protocol is None:
            return
        beside = [each for each in SAMPLE if not _within(each, service)]
        if service.ports and service.ports[1] < 0xFFFF:
            beside.insert(0, (service.protocol, service.ports[1] + 1))
        yield from _each(claim, _meeting(self._roads, sources, targets), beside)

    def _other_sources(
        self,
        claim: Claim,
        sources: Sequence[Endpoint],
        targets: Sequence[Endpoint],
        services: Sequence[tuple[int, int]],
    ) -> Iterator[Probe]:
        """Everyone else on the named service, neighbours of the target first."""
        named = {(end.name, end.address) for end in sources}
        others = [end for end in self._ends if (end.name, end.address) not in named]
        yield from _each(claim, _meeting(self._roads, others, targets), services)


def _services(service: Service | None) -> tuple[Sequence[tuple[int, int]], Sequence[tuple[int, int]]]:
    """What to try for a promise and for a ban: both ends of a port range, a sample where all are meant."""
    if service is None or service.protocol is None:
        return SAMPLE, SAMPLE
    low, high = service.ports or ((0, 0) if service.protocol in (ICMP, ICMPV6) else (22, 443))
    both = tuple(dict.fromkeys(((service.protocol, low), (service.protocol, high))))
    return both, both


def _within(sample: tuple[int, int], service: Service) -> bool:
    protocol, port = sample
    low, high = service.ports or (0, 0xFFFF)
    return protocol == service.protocol and low <= port <= high


def _meeting(
    roads: Roads, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
) -> Iterator[tuple[Endpoint, Endpoint]]:
    """Pairs that can meet; then, for VMs that nowhere meet, one pair of each family they have in common."""
    apart: dict[tuple[str, str, int], tuple[Endpoint, Endpoint]] = {}
    met = set()
    for source, target in product(sources, targets):
        names = source.vm.name, target.vm.name
        if can_meet(roads, source, target) and names[0] != names[1]:
            met.add(names)
            yield source, target
        elif names[0] != names[1] and source.address.version == target.address.version:
            apart.setdefault((*names, source.address.version), (source, target))
    yield from (pair for (source, target, _), pair in apart.items() if (source, target) not in met)


def _each(
    claim: Claim, pairs: Iterator[tuple[Endpoint, Endpoint]], services: Sequence[tuple[int, int]]
) -> Iterator[Probe]:
    for source, target in pairs:
        yield from (_probe(claim, source, target, service, allowed=False) for service in services)


def _alternating(*several: Iterator[Probe]) -> Iterator[Probe]:
    """One of each in turn, so that a limit cuts none of them off."""
    waiting = list(several)
    while waiting:
        for probes_of_kind in tuple(waiting):
            probe = next(probes_of_kind, None)
            if probe is None:
                waiting.remove(probes_of_kind)
            else:
                yield probe


def _spoken(service: tuple[int, int], source: Endpoint) -> tuple[int, int]:
    protocol, port = service
    return (ICMPV6 if protocol == ICMP and source.address.version == 6 else protocol), port


def _probe(
    claim: Claim, source: Endpoint, target: Endpoint, service: tuple[int, int], *, allowed: bool
) -> Probe:
    protocol, port = _spoken(service, source)
    return Probe(
        claim,
        source.vm.name,
        source.address,
        target.vm.name,
        target.address,
        protocol,
        port,
        allowed,
    )
