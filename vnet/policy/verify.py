"""Are the claims of `verify` true of these flows? Decided over all packets a claim speaks of.

The flows are those read back from the switch, so a claim that holds here holds of what is enforced,
not of what was meant. A claim that fails comes with a packet that breaks it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

from vnet.openflow.fields import ETH_IPV4, ETH_IPV6, CtState
from vnet.openflow.flow import Flow
from vnet.policy import claims
from vnet.policy.claims import Sender
from vnet.policy.compile import compile
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.explain import describe
from vnet.policy.identity import Selector, names_of, networks_of, selector_of
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.outside import of_fabric
from vnet.policy.semantics import selects
from vnet.policy.space import Cube, Region
from vnet.policy.strays import Owned, Stray, rewrites_header, strays
from vnet.policy.walk import Alike, Leaf, Narrow, Step, Walk
from vnet.policy.witness import Witness
from vnet.topology.inventory import Inventory
from vnet.topology.model import Claim, ClaimKind, Peer, PeerKind, Topology

REQUEST_STATES = (CtState.TRK | CtState.NEW, CtState.TRK | CtState.EST)
"""What the tracker can say of a packet that opens a connection, or goes on with one that was opened."""
BANNED_STATES = (*REQUEST_STATES, CtState.TRK | CtState.INV)
"""The same, or that it fits no connection: none of these may pass where a ban holds."""
KEPT_SENDERS = 4096
BEYOND = (PeerKind.INTERNET, PeerKind.ANY)
"""Of these claims mean all that is outside, and also what only pretends to be."""
REPLY_STATE = CtState.TRK | CtState.EST | CtState.RPL


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Why a claim fails: a packet in words and what decided its fate, with `file:line`.

    `packet` is empty when there is no packet to show: no such VM, or no network in common.
    """

    packet: str
    why: str
    origin: Origin | None = None

    def __str__(self) -> str:
        return f"{self.packet} {self.why}" if self.packet else self.why


@dataclass(frozen=True, slots=True)
class ClaimResult:
    """Whether a claim holds. `checked` counts the sets of packets (NIC, address, state) it was tried on."""

    claim: Claim
    holds: bool
    checked: int
    counterexample: Counterexample | None = None

    def __str__(self) -> str:
        verdict = "holds" if self.holds else f"FAILS: {self.counterexample}"
        return f"{self.claim.at}: {self.claim.text}: {verdict}"


def verify(
    topology: Topology,
    inventory: Inventory,
    flows: Iterable[Flow],
    provenance: Mapping[int, Origin] | None = None,
) -> tuple[ClaimResult, ...]:
    """Every claim of the topology, decided on the given flows.

    Args:
        provenance: where the flows of the topology come from; found by compiling it if None.
    Raises: Unfollowable when the flows do what no flow of vnet does.
    """
    judge = _Judge(topology, inventory, tuple(flows), provenance)
    return tuple(judge.result(claim) for claim in topology.claims)


_Classes = dict[Alike, list[Sender]]


class _Judge:
    def __init__(
        self,
        topology: Topology,
        inventory: Inventory,
        flows: Sequence[Flow],
        provenance: Mapping[int, Origin] | None,
    ) -> None:
        self._given = provenance
        self._topology = topology
        self._flows, self._walk = flows, Walk(flows)
        self._inventory = inventory
        asked = (peer for claim in topology.claims for peer in (claim.source, claim.target))
        outside = of_fabric(topology, inventory, asked)
        self._ends = (*endpoints(topology, inventory), *outside.ends())
        self._nowhere = tuple(outside.nowhere())
        self._roads = Roads(topology, self._ends)
        self._senders: dict[tuple[Sender, int], tuple[Step, ...]] = {}
        self._checked = 0

    @cached_property
    def _provenance(self) -> Mapping[int, Origin]:
        """Where flows come from, to be told of what breaks a claim."""
        given = self._given
        return compile(self._topology, self._inventory).provenance if given is None else given

    @cached_property
    def _witness(self) -> Witness:
        return Witness(self._topology, self._inventory)

    def result(self, claim: Claim) -> ClaimResult:
        """The first packet that breaks the claim decides; if there is none, it holds."""
        self._checked = 0
        broken = next(self._breaches(claim), None)
        return ClaimResult(claim, broken is None, self._checked, broken)

    def _breaches(self, claim: Claim) -> Iterator[Counterexample]:
        sources, targets = self._taken_by(claim.source), self._taken_by(claim.target)
        if claim.kind is not ClaimKind.ALLOW and self._nowhere:
            yield from self._forged(claim, sources, targets)
        match claim.kind:
            case ClaimKind.ALLOW:
                yield from self._unreachable(claim, sources, targets)
            case ClaimKind.DENY | ClaimKind.NEVER:
                yield from self._reachable(claim, sources, targets)
            case ClaimKind.ONLY:
                yield from self._unreachable(claim, sources, targets)
                yield from self._others(claim, sources, targets)

    def _forged(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Counterexample]:
        """What reaches a target from outside by a forged address, or leaves for what is not outside."""
        is_banned = claim.kind is not ClaimKind.ONLY
        if claim.source.kind in BEYOND or not is_banned:
            yield from self._passing(claim, self._nowhere, targets)
        if claim.target.kind in BEYOND:
            yield from self._passing(claim, sources if is_banned else self._ends, self._nowhere)

    def _taken_by(self, peer: Peer) -> Sequence[Endpoint]:
        """The endpoints that a selector takes (see `semantics.selects`)."""
        selector = selector_of(peer)
        if networks_of(self._topology.groups, selector):
            return [end for end in self._ends if selects(self._topology, peer, end)]
        return self._by_name.get(selector, ())

    @cached_property
    def _by_name(self) -> Mapping[Selector, Sequence[Endpoint]]:
        found: dict[Selector, list[Endpoint]] = defaultdict(list)
        for end in self._ends:
            for name in names_of(end):
                found[name].append(end)
        return found

    def _unreachable(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Counterexample]:
        """Pairs of VMs with no network on which all that the claim promises passes."""
        promised = claims.promised(claim.source, sources), claims.promised(claim.target, targets)
        pairs = claims.by_vms(self._roads, *promised)
        if not pairs:
            yield Counterexample(
                "", f"nobody to try it on: {claim.source} -> {claim.target} names no two VMs"
            )
        for (source, target), networks in pairs.items():
            if not networks:
                yield Counterexample("", f"{source} and {target} share no network and address family")
                continue
            lost = [next(self._lost(claim, ends), None) for ends in networks.values()]
            if all(lost):
                yield from (each for each in lost if each)

    def _lost(self, claim: Claim, pairs: Iterable[tuple[Endpoint, Endpoint]]) -> Iterator[Counterexample]:
        """Requests and replies of the claim's service, on one network, that do not arrive."""
        for source, target in pairs:
            requests = claims.requests(self._roads, source, target, claim.service)
            for region, state in product(requests, REQUEST_STATES):
                yield from self._not_arriving(region, state, target)
            for region in claims.replies(self._roads, source, target, claim.service):
                yield from self._not_arriving(region, REPLY_STATE, source)

    def _not_arriving(self, region: Region, state: int, target: Endpoint) -> Iterator[Counterexample]:
        self._checked += 1
        for leaf in self._walk.leaves(region, state):
            if not leaf.reaches(target.nic.port):
                yield self._counterexample(leaf, state, "is lost")

    def _reachable(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Counterexample]:
        """Packets of the claim's service that arrive."""
        yield from self._passing(claim, sources, targets)
        if claim.service is None and self._strays:
            yield from self._astray(claims.senders(sources, self._ends), targets)

    def _passing(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Counterexample]:
        classes = self._classes(claims.senders(sources, self._ends), targets)
        for target in targets:
            for cube in claims.services(claim.service, target.address.version):
                yield from self._of_any(classes[target.address.version], target, cube)

    def _others(
        self, claim: Claim, sources: Sequence[Endpoint], targets: Sequence[Endpoint]
    ) -> Iterator[Counterexample]:
        """Packets that arrive although they are not the source's to the service."""
        named = {sender.key: sender for sender in claims.senders(sources, self._ends)}
        everyone = tuple(claims.senders(self._ends, self._ends))
        classes = self._classes((each for each in everyone if each.key not in named), targets)
        for target in targets:
            for sender in everyone:
                if sender.key in named and not claims.is_own_affair(sender, target):
                    permitted = claims.permitted(claim.service, named[sender.key], target)
                    yield from self._arriving(sender, target, {}, permitted)
            yield from self._of_any(classes[target.address.version], target, {})
        yield from self._astray(everyone, targets)

    def _astray(self, sending: Iterable[Sender], targets: Iterable[Endpoint]) -> Iterator[Counterexample]:
        """What a target's NIC is handed that is for none of its addresses."""
        nics = {end.nic.port: end.vm.name for end in targets}
        found = [each for each in self._strays if any(map(each.reaches, nics))]
        for sender, stray in product(sending, found):
            for port in (port for port, vm in nics.items() if stray.reaches(port) and vm != sender.vm):
                region = stray.region(sender.nic.port, self._owned[port], self._is_rewritten)
                for sent in claims.sources(sender, region):
                    yield from self._handed(sent, port)

    def _handed(self, region: Region | None, port: int) -> Iterator[Counterexample]:
        for state in BANNED_STATES if region and region.some() is not None else ():
            self._checked += 1
            assert region is not None
            for leaf in self._walk.leaves(region, state):
                if leaf.reaches(port):
                    yield self._counterexample(leaf, state, "passes")

    @cached_property
    def _owned(self) -> Owned:
        found: dict[int, set[tuple[str, int]]] = defaultdict(set)
        for end in self._ends:
            if end.is_outside:  # all that is IP is for somebody there
                found[end.nic.port] |= {("eth_type", ETH_IPV4), ("eth_type", ETH_IPV6)}
            else:
                found[end.nic.port].add((f"ipv{end.address.version}_dst", int(end.address)))
        return {port: frozenset(addresses) for port, addresses in found.items()}

    @cached_property
    def _strays(self) -> Sequence[Stray]:
        return strays(self._flows, self._owned)

    @cached_property
    def _is_rewritten(self) -> bool:
        return rewrites_header(self._flows)

    def _of_any(self, classes: _Classes, target: Endpoint, service: Cube) -> Iterator[Counterexample]:
        """What any sender can bring to the target; worked out once for those who are not told apart."""
        narrow = _narrowing(target, service, ())
        for steps, alike in classes.items():
            others = [sender for sender in alike if not claims.is_own_affair(sender, target)]
            if all(self._walk.are_lost(steps, narrow, state) for state in BANNED_STATES):
                self._checked += len(others) * len(BANNED_STATES)
                continue
            for sender in others:
                yield from self._arriving(sender, target, service, ())

    def _classes(self, sending: Iterable[Sender], targets: Iterable[Endpoint]) -> Mapping[int, _Classes]:
        """The senders, for each IP version that the targets have, by how they fare past the guards."""
        found: dict[int, _Classes] = {target.address.version: defaultdict(list) for target in targets}
        for sender, version in product(tuple(sending), found):
            begun = self._begun(sender, version)
            found[version][self._walk.told_apart(begun, BANNED_STATES)].append(sender)
        return found

    def _arriving(
        self, sender: Sender, target: Endpoint, service: Cube, permitted: Sequence[Cube]
    ) -> Iterator[Counterexample]:
        """What the sender can bring to the target of a service, apart from what is permitted."""
        narrow = _narrowing(target, service, permitted)
        for state in BANNED_STATES:
            self._checked += 1
            for leaf in self._walk.finish(self._begun(sender, target.address.version), narrow, state):
                if leaf.reaches(target.nic.port):
                    yield self._counterexample(leaf, state, "passes")

    def _begun(self, sender: Sender, version: int) -> tuple[Step, ...]:
        """What gets past the sender's guards, for whatever destination; remembered for the next target."""
        key = sender, version
        if key not in self._senders:
            regions = claims.whatever(sender, version)
            if len(self._senders) >= KEPT_SENDERS:
                self._senders.clear()
            self._senders[key] = tuple(step for region in regions for step in self._walk.begin(region))
        return self._senders[key]

    def _counterexample(self, leaf: Leaf, state: int, fate: str) -> Counterexample:
        cookie = _deciding(leaf, self._provenance)
        why = describe(cookie, self._provenance) if cookie is not None else "no flow takes it"
        origin = self._provenance.get(cookie) if cookie is not None else None
        return Counterexample(self._witness.of(leaf.region, state), f"{fate}: {why}", origin)


def _narrowing(target: Endpoint, service: Cube, permitted: Sequence[Cube]) -> Narrow:
    """What of a set of packets is for the target and of the service, and not permitted."""

    def narrow(region: Region) -> Region | None:
        served = region.meet(service)
        rest = served and claims.of(served, target, "dst")
        for cube in permitted:
            rest = rest.minus(cube) if rest else None
        return rest

    return narrow


def _deciding(leaf: Leaf, provenance: Mapping[int, Origin]) -> int | None:
    """The cookie of the flow to name: the one that dropped, or the last rule that allowed."""
    if leaf.missed:
        return None
    if leaf.drop is None:
        for flow in reversed(leaf.trail):
            origin = provenance.get(flow.cookie)
            if origin is None or origin.kind is OriginKind.RULE:
                return flow.cookie
    return leaf.trail[-1].cookie
