"""Connections that were seen and that somebody may want allowed: which of them rules could allow, and which
sides of each need one."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from vnet.base.protocols import SERVICE_PROTOCOLS
from vnet.base.source import Location
from vnet.openflow.fields import ICMP
from vnet.policy import origin
from vnet.policy.endpoint import Endpoint
from vnet.policy.explain import CLIENT_PORT, place, say
from vnet.policy.origin import Origin, OriginKind
from vnet.policy.semantics import (
    REQUEST_TYPE,
    WITH_PORTS,
    Packet,
    decide,
    in_order,
    one_side,
    rules_of,
    selects,
    serves,
)
from vnet.topology.inventory import Inventory
from vnet.topology.model import (
    Action,
    Claim,
    ClaimKind,
    Direction,
    Enforcement,
    Peer,
    PeerKind,
    Policy,
    Rule,
    Topology,
)

Port = tuple[int, int]
"""What a rule's `ports` tells apart: IP protocol and port; `ECHO` for echo requests of both IP versions."""
ECHO: Port = (ICMP, 0)
SCAN_PORTS = 32
"""Who asks one server for more ports of a protocol than these is looking for open ones."""
DIRECTIONS = (Direction.EGRESS, Direction.INGRESS)


@dataclass(frozen=True, slots=True)
class Wanted:
    """A connection to be allowed. `port` is the server's; of ICMP (1) and ICMPv6 (58) the request's type."""

    client: Endpoint
    server: Endpoint
    protocol: int
    port: int

    @property
    def packet(self) -> Packet:
        """Its first packet."""
        ends = self.client.name, self.client.address, self.server.name, self.server.address
        if self.protocol in REQUEST_TYPE:
            return Packet(*ends, self.protocol, icmp_type=self.port)
        return Packet(*ends, self.protocol, CLIENT_PORT, self.port)

    @property
    def service(self) -> Port:
        """What a rule would have to name."""
        return ECHO if self.protocol in REQUEST_TYPE else (self.protocol, self.port)

    def sides(self, direction: Direction) -> tuple[Endpoint, Endpoint]:
        """Whom a rule of this direction applies to, and whom it names."""
        ends = self.client, self.server
        return ends if direction is Direction.EGRESS else (ends[1], ends[0])

    def __str__(self) -> str:
        name = SERVICE_PROTOCOLS.get(self.protocol, f"protocol {self.protocol}")
        has_port = self.protocol in WITH_PORTS
        return f"{self.client.vm.name} -> {self.server.vm.name}:{f'{self.port}/' if has_port else ''}{name}"


class Why(StrEnum):
    """Why no rule is suggested for a connection."""

    ALLOWED = "allowed"
    """The file allows it already."""
    RULE = "rule"
    """A rule forbids it by name."""
    CLAIM = "claim"
    """A claim says that it must not be."""
    FABRIC = "fabric"
    """No rule opens it: the fabric does not carry it, or port security drops it."""
    SCAN = "scan"
    """One of very many ports of one server."""


@dataclass(frozen=True, slots=True)
class Left:
    """A connection for which no rule is suggested, and why not, in words with the line that says so."""

    wanted: Wanted
    why: Why
    text: str
    at: Location


@dataclass(frozen=True, slots=True)
class Sorted:
    """What rules are missing for, by the sides that need one, and what is left out."""

    missing: Mapping[Direction, tuple[Wanted, ...]]
    left: tuple[Left, ...]


def enforced(topology: Topology) -> Topology:
    """The topology as it is once every policy that is audited is enforced: it allows no more than before."""
    policies = tuple(replace(policy, enforcement=Enforcement.ENFORCE) for policy in topology.policies)
    return replace(topology, policies=policies)


def sort(
    topology: Topology,
    inventory: Inventory,
    wanted: Iterable[Wanted],
    overrule: bool = False,
    scans: bool = False,
) -> Sorted:
    """Tell what rules are missing for.

    Args:
        topology: with all policies enforced.
        overrule: whether explicit refusals may be overruled.
        scans: whether very many ports of one server are meant.
    """
    wanted = tuple(dict.fromkeys(wanted))
    many = frozenset() if scans else _scanned(wanted)
    missing: dict[Direction, list[Wanted]] = defaultdict(list)
    left = []
    for one in wanted:
        sides = tuple(_refusals(topology, one))
        why = _why_not(topology, inventory, one, sides, overrule)
        if why is None and (one.client.vm.name, one.server.vm.name, one.protocol) in many:
            text = f"one of more than {SCAN_PORTS} ports that {one.client.vm.name} tried: a scan?"
            why = Left(one, Why.SCAN, text, one.client.vm.at)
        if why is not None:
            left.append(why)
            continue
        for direction, _ in sides:
            missing[direction].append(one)
    return Sorted({direction: tuple(found) for direction, found in missing.items()}, tuple(left))


def _scanned(wanted: Iterable[Wanted]) -> frozenset[tuple[str, str, int]]:
    pairs = {(one.client.vm.name, one.server.vm.name, *one.service) for one in wanted}
    ports = Counter((client, server, protocol) for client, server, protocol, _ in pairs)
    return frozenset(pair for pair, count in ports.items() if count > SCAN_PORTS)


def _refusals(topology: Topology, one: Wanted) -> Iterator[tuple[Direction, Origin]]:
    """The sides that say no, and what says so."""
    for direction in DIRECTIONS:
        allowed, why = one_side(topology, direction, *one.sides(direction), one.packet)
        if not allowed:
            yield direction, why


def _why_not(
    topology: Topology,
    inventory: Inventory,
    one: Wanted,
    sides: tuple[tuple[Direction, Origin], ...],
    overrule: bool,
) -> Left | None:
    stopped = not_carried(topology, inventory, one)
    if stopped is not None:
        return Left(one, Why.FABRIC, stopped.text, stopped.at)
    if not sides:
        return Left(one, Why.ALLOWED, "the file allows it already", topology.at)
    claim = next((each for each in topology.claims if forbids(topology, each, one)), None)
    if claim is not None:
        return Left(one, Why.CLAIM, claim.text, claim.at)
    for direction, why in sides:
        if not overrule and _is_meant(topology, direction, one, why):
            return Left(one, Why.RULE, say(why).removesuffix(f" {place(why.at)}"), why.at)
    return None


# -- what no rule can do --------------------------------------------------------------------------


def not_carried(topology: Topology, inventory: Inventory, one: Wanted) -> Origin | None:
    """What stops the connection even where every rule allows everything; None if nothing does."""
    if not _can_be_named(one):
        return origin.fabric("untold", "no rule can name this protocol, port or kind of ICMP")
    nowhere = Location("")
    everybody = (Peer(PeerKind.ANY, "any", nowhere),)
    rules = {each: (Rule("", 1, each, everybody, (), Action.ALLOW, False, nowhere),) for each in DIRECTIONS}
    both = rules[Direction.INGRESS], rules[Direction.EGRESS]
    free = Policy("", topology.tiers[0], everybody, *both, nowhere)
    near = inventory
    if not one.server.is_allowed and not one.client.is_allowed:  # whoever else is there matters to none of it
        near = replace(inventory, vms=tuple({vm.name: vm for vm in (one.client.vm, one.server.vm)}.values()))
    verdict = decide(replace(topology, policies=(free,)), near, one.packet)
    return None if verdict.allowed else verdict.origin


def _can_be_named(one: Wanted) -> bool:
    if one.client.address.version != one.server.address.version:
        return False
    if one.protocol in REQUEST_TYPE:
        version = 4 if one.protocol == ICMP else 6
        return one.client.address.version == version and one.port == REQUEST_TYPE[one.protocol]
    return one.protocol in WITH_PORTS and 0 < one.port <= 0xFFFF


# -- what somebody meant --------------------------------------------------------------------------


def forbids(topology: Topology, claim: Claim, one: Wanted) -> bool:
    """Whether a claim of `verify` says that this connection must not be."""
    to = selects(topology, claim.target, one.server)
    by = selects(topology, claim.source, one.client)
    named = claim.service is None or serves(claim.service, one.packet)
    match claim.kind:
        case ClaimKind.DENY | ClaimKind.NEVER:
            return to and by and named
        case ClaimKind.ONLY:
            return to and not (by and named)
        case ClaimKind.ALLOW:
            return False


def _is_meant(topology: Topology, direction: Direction, one: Wanted, why: Origin) -> bool:
    """Whether a rule refuses the connection that does more than say aloud that a list ends closed.

    `{from: any, action: deny}` at the end of the rules refuses what nobody has thought of; without it the
    same would be refused, only not logged.
    """
    while why.kind is OriginKind.RULE:
        policy, rule = _rule_of(topology, direction, why)
        if any(peer.kind is not PeerKind.ANY for peer in rule.peers) or any(
            service.protocol is not None for service in rule.services
        ):
            return True
        topology = _without(topology, policy, rule)
        allowed, why = one_side(topology, direction, *one.sides(direction), one.packet)
        if allowed:
            return True
    return False


def _rule_of(topology: Topology, direction: Direction, why: Origin) -> tuple[Policy, Rule]:
    for policy in in_order(topology):
        for rule in rules_of(policy, direction) or () if policy.name == why.policy else ():
            if f"{direction.value} {rule.number}" == why.rule:
                return policy, rule
    raise AssertionError(f"{why.key} is no rule of this topology")


def _without(topology: Topology, policy: Policy, rule: Rule) -> Topology:
    def left(rules: tuple[Rule, ...] | None) -> tuple[Rule, ...] | None:
        return None if rules is None else tuple(each for each in rules if each is not rule)

    kept = replace(policy, ingress=left(policy.ingress), egress=left(policy.egress))
    return replace(topology, policies=tuple(kept if each is policy else each for each in topology.policies))
