"""Identities: numbers for those who are the same to every policy.

An endpoint is met in two roles: policies apply to it (the *subject*), and rules name it (the *peer*). Two
endpoints share a subject number when every selector that some policy is applied to takes both or neither, and
a peer number when the same holds of every selector that some rule names; the identity is both. So a rule
for one VM that names a group needs no more flows because each member of the group has a policy of its own.

A number is a digest of the selectors that take its members, so it does not depend on who else is in the
fabric, on addresses that no selector tells apart, or on the order of the file.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from hashlib import blake2b
from heapq import nsmallest
from ipaddress import IPv4Address, IPv6Address, ip_network

from vnet.base.source import Location
from vnet.policy.endpoint import Endpoint, IPAddress, endpoints
from vnet.policy.outside import Outside, edges
from vnet.topology.inventory import Inventory
from vnet.topology.model import IPNetwork, Peer, PeerKind, Policy, Topology

Selector = str
"""`KIND:VALUE`, a peer without the line it was written on: texts are hashed once."""
EndpointKey = tuple[str, IPAddress]
Membership = frozenset[Selector]
"""The selectors of one role that take an endpoint."""

ANYONE: Selector = "any:any"
OUTSIDE = 1
"""The subject number of who is outside: no policy applies to them."""


class Role(IntEnum):
    SUBJECT = 0
    PEER = 1


ROLES = (Role.SUBJECT, Role.PEER)


def number_of(subject: int, peer: int) -> int:
    """The identity of both numbers."""
    return subject << 32 | peer


def subject_of(identity: int) -> int:
    """The number of an identity as the one whom policies apply to."""
    return identity >> 32


def peer_of(identity: int) -> int:
    """The number of an identity as the one whom rules name."""
    return identity & 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Identity:
    """A class of endpoints; `families` are the IP versions (4, 6) among their addresses."""

    number: int
    selectors: frozenset[Selector]
    members: tuple[Endpoint, ...]
    families: frozenset[int]

    @property
    def label(self) -> str:
        """Whose traffic this is, in words: `web`, `app, web`, `app, db, web and 7 more`."""
        return label(self.members)


def label(members: Iterable[Endpoint]) -> str:
    """Whose endpoints these are, in words."""
    return told({end.who for end in members})


def told(names: Iterable[str]) -> str:
    """The first of some different names, and how many more there are."""
    names = tuple(names)
    rest = len(names) - 3
    return ", ".join(nsmallest(3, names)) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, slots=True)
class Identities:
    """The identities of a fabric: by endpoint, by number, and which numbers a selector takes."""

    of: Mapping[EndpointKey, int]
    by_number: Mapping[int, Identity]
    taken: Mapping[Selector, frozenset[int]]

    @property
    def outside(self) -> tuple[Endpoint, ...]:
        """The blocks of who is outside."""
        return tuple(end for each in self.by_number.values() for end in each.members if end.is_outside)

    def number(self, end: Endpoint) -> int:
        """That of an endpoint; of one outside also if a block of which it is a part stands for it."""
        found = self.find(end)
        assert found is not None, f"{end} is not of this fabric"
        return found

    def find(self, end: Endpoint) -> int | None:
        """The same; None for who is not there."""
        known = self.of.get((end.name, end.address))
        if known is not None or not end.is_outside:
            return known
        alike = (each for each in self.outside if each.name == end.name)
        block = next((each for each in alike if each.block and end.address in each.block), None)
        return None if block is None else self.of[block.name, block.address]

    def select(self, peers: Iterable[Peer]) -> frozenset[int]:
        """The numbers of all identities that the selectors take together."""
        return frozenset().union(*(self.taken.get(selector_of(peer), ()) for peer in peers))


def selector_of(peer: Peer) -> Selector:
    """The selector without the line it was written on."""
    return selector(peer.kind, peer.value)


def selector(kind: PeerKind, value: str) -> Selector:
    """The selector of a kind and a name."""
    return ANYONE if kind is PeerKind.ANY else f"{kind.value}:{value}"


def used_selectors(policy: Policy, role: Role) -> Iterator[Selector]:
    """The selectors that a policy uses for one role, as often as it does."""
    if role is Role.SUBJECT:
        yield from map(selector_of, policy.applied_to)
        return
    for rule in (*(policy.ingress or ()), *(policy.egress or ())):
        yield from map(selector_of, rule.peers)


def identify(topology: Topology, inventory: Inventory) -> Identities:
    """Sort every endpoint of the fabric into its class and number the classes."""
    classes = Classes(topology.groups)
    for policy in topology.policies:
        classes.use(policy)
    outside = Outside(edges(topology, inventory), classes.named())
    classes.place((*endpoints(topology, inventory), *outside.ends()), afresh=True)
    return classes.identities()


class Collision(Exception):
    """Two classes have the same digest. Which of them is given another depends on all: number them afresh."""


@dataclass(slots=True)
class Moved:
    """What a change did to the classes of one role."""

    selectors: set[Selector] = field(default_factory=set)
    """They take other classes than before."""
    numbers: set[int] = field(default_factory=set)
    """Classes that came, went or have other members."""

    def __or__(self, other: Moved) -> Moved:
        return Moved(self.selectors | other.selectors, self.numbers | other.numbers)


class Classes:
    """The classes of both roles, kept while policies and endpoints come and go."""

    def __init__(self, groups: Mapping[str, tuple[IPNetwork, ...]]) -> None:
        self._roles = {role: _RoleClasses(role, groups) for role in ROLES}
        self._ends: dict[EndpointKey, Endpoint] = {}

    def use(self, policy: Policy, times: int = 1) -> set[Selector]:
        """Count a policy's selectors, or with -1 no longer. Returns those whose use began or ended.

        Endpoints that these take are to be placed again.
        """
        return self._roles[Role.SUBJECT].use(policy, times) | self._roles[Role.PEER].use(policy, times)

    def place(self, ends: Iterable[Endpoint], afresh: bool = False) -> Mapping[Role, Moved]:
        """Sort endpoints into their classes, also such as were in others.

        Args:
            afresh: these are all endpoints there are, so that collisions can be resolved.
        Raises: Collision.
        """
        ends = tuple(ends)
        self._ends.update(((end.name, end.address), end) for end in ends)
        own = tuple(end for end in ends if not end.is_outside)
        taken = {Role.SUBJECT: own, Role.PEER: ends}
        return {role: classes.place(taken[role], afresh) for role, classes in self._roles.items()}

    def forget(self, ends: Iterable[Endpoint]) -> Mapping[Role, Moved]:
        """Take endpoints out of their classes."""
        ends = tuple(ends)
        for end in ends:
            self._ends.pop((end.name, end.address), None)
        return {role: classes.forget(ends) for role, classes in self._roles.items()}

    def of(self, end: Endpoint) -> int:
        """The identity of a placed endpoint."""
        key = end.name, end.address
        subject = OUTSIDE if end.is_outside else self._roles[Role.SUBJECT].of[key].number
        return number_of(subject, self._roles[Role.PEER].of[key].number)

    def named(self) -> frozenset[IPNetwork]:
        """The CIDRs that rules name."""
        return self._roles[Role.PEER].networks

    def select(self, role: Role, selectors: Iterable[Selector]) -> frozenset[int]:
        """The numbers that the selectors take together in a role."""
        taken = self._roles[role].taken
        return frozenset().union(*(taken.get(each, ()) for each in selectors))

    def numbers(self, role: Role) -> Iterable[int]:
        """All numbers of a role."""
        return self._roles[role].members.keys()

    def label(self, subject: int) -> str:
        """Whose endpoints have a subject number, in words."""
        return told({name for name, _ in self._roles[Role.SUBJECT].members[subject]})

    def declared_at(self, subject: int) -> Location:
        """Where the first VM that `label` names is declared."""
        return min(self._roles[Role.SUBJECT].members[subject])[1]

    def identities(self) -> Identities:
        """The classes as they are now."""
        members: dict[int, list[Endpoint]] = defaultdict(list)
        for end in self._ends.values():
            members[self.of(end)].append(end)
        by_number = {number: self._identity(number, tuple(ends)) for number, ends in members.items()}
        taken: dict[Selector, set[int]] = defaultdict(set)
        for identity in by_number.values():
            for selector in identity.selectors:
                taken[selector].add(identity.number)
        of = {(end.name, end.address): i.number for i in by_number.values() for end in i.members}
        return Identities(of, by_number, {selector: frozenset(ids) for selector, ids in taken.items()})

    def _identity(self, number: int, members: tuple[Endpoint, ...]) -> Identity:
        selectors = (
            self._roles[Role.SUBJECT].memberships.get(subject_of(number), frozenset())
            | self._roles[Role.PEER].memberships[peer_of(number)]
        )
        return Identity(number, selectors, members, frozenset(end.address.version for end in members))


Declared = tuple[str, Location]
"""The name a VM is declared under, and where."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The class of an endpoint in one role, and what it is counted under there."""

    number: int
    declared: Declared


class _RoleClasses:
    """The classes of one role."""

    def __init__(self, role: Role, groups: Mapping[str, tuple[IPNetwork, ...]]) -> None:
        self._role, self._groups = role, groups
        self._used = Counter[Selector]()
        self._prefixes = _Prefixes()
        self._numbers: dict[Membership, int] = {}
        self._is_salted = False
        self.of: dict[EndpointKey, _Place] = {}
        self.memberships: dict[int, Membership] = {}
        self.members: dict[int, Counter[Declared]] = {}
        """By number, how many endpoints of each declared VM."""
        self.taken: dict[Selector, set[int]] = defaultdict(set)

    def use(self, policy: Policy, times: int) -> set[Selector]:
        changed = set()
        for selector in used_selectors(policy, self._role):
            before = self._used[selector]
            self._used[selector] = before + times
            if bool(before) != bool(before + times):
                changed.add(selector)
                for network in networks_of(self._groups, selector):
                    self._prefixes.change(network, selector, is_used=not before)
        return changed

    @property
    def networks(self) -> frozenset[IPNetwork]:
        """The CIDRs of all selectors in use."""
        return frozenset(self._prefixes.used())

    def place(self, ends: tuple[Endpoint, ...], afresh: bool) -> Moved:
        found = [(end, self._membership(end)) for end in ends]
        moved = Moved()
        for membership in sorted({each for _, each in found} - self._numbers.keys(), key=text):
            self._begin(membership, afresh, moved)
        for end, membership in found:
            self._put(end, _Place(self._numbers[membership], (end.vm.spec, end.vm.at)), moved)
        self._end_empty(moved)
        return moved

    def forget(self, ends: tuple[Endpoint, ...]) -> Moved:
        moved = Moved()
        for end in ends:
            self._take_out(end, moved)
        self._end_empty(moved)
        return moved

    def _membership(self, end: Endpoint) -> Membership:
        used = self._used
        found = [selector for selector in names_of(end) if used.get(selector)]
        block = end.block
        taking = (
            self._prefixes.taking(end.address) if block is None else self._prefixes.taking_all(block.prefix)
        )
        return frozenset((*found, *taking))

    def _begin(self, membership: Membership, afresh: bool, moved: Moved) -> None:
        number = digest(text(membership), self.memberships.keys())
        is_salted = number != digest(text(membership), ())
        if self._is_salted or is_salted:
            if not afresh:
                raise Collision
            self._is_salted = True
        self._numbers[membership] = number
        self.memberships[number] = membership
        self.members[number] = Counter()
        moved.numbers.add(number)
        moved.selectors |= membership
        for selector in membership:
            self.taken[selector].add(number)

    def _put(self, end: Endpoint, place: _Place, moved: Moved) -> None:
        if self.of.get((end.name, end.address)) == place:
            return
        self._take_out(end, moved)
        self.of[end.name, end.address] = place
        self.members[place.number][place.declared] += 1
        moved.numbers.add(place.number)

    def _take_out(self, end: Endpoint, moved: Moved) -> None:
        place = self.of.pop((end.name, end.address), None)
        if place is None:
            return
        members = self.members[place.number]
        members[place.declared] -= 1
        if not members[place.declared]:
            del members[place.declared]
        moved.numbers.add(place.number)

    def _end_empty(self, moved: Moved) -> None:
        for number in [each for each in moved.numbers if not self.members[each]]:
            if self._is_salted:
                raise Collision
            membership = self.memberships.pop(number)
            del self.members[number], self._numbers[membership]
            moved.selectors |= membership
            for selector in membership:
                self.taken[selector].discard(number)


def text(selectors: frozenset[Selector]) -> str:
    """What a number is a digest of."""
    return "\n".join(sorted(selectors))


def digest(name: str, used: Collection[int]) -> int:
    """A 32-bit number above OUTSIDE for `name` that is not in `used`; the first try unless they collide."""
    attempt = 0
    while True:
        salted = name if not attempt else f"{name}\n#{attempt}"
        number = int.from_bytes(blake2b(salted.encode(), digest_size=4).digest(), "big")
        if number > OUTSIDE and number not in used:
            return number
        attempt += 1


def names_of(end: Endpoint) -> Iterator[Selector]:
    """The selectors that take an endpoint for what it is called, each once; CIDRs left out."""
    yield ANYONE
    if end.is_outside:
        yield selector(PeerKind(end.vm.spec), end.vm.spec)
        return
    yield selector(PeerKind.VM, end.vm.spec)
    if end.vm.name != end.vm.spec:
        yield selector(PeerKind.VM, end.vm.name)
    yield selector(PeerKind.NETWORK, end.nic.network)
    for group in end.vm.groups:
        yield selector(PeerKind.GROUP, group)


def networks_of(groups: Mapping[str, tuple[IPNetwork, ...]], of: Selector) -> tuple[IPNetwork, ...]:
    """The CIDRs that a selector stands for."""
    kind, _, value = of.partition(":")
    if kind == PeerKind.CIDR.value:
        return (ip_network(value, strict=False),)
    return groups.get(value, ()) if kind == PeerKind.GROUP.value else ()


class _Prefixes:
    """Selectors with CIDRs, indexed so that an address finds its own without trying each."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], dict[int, set[Selector]]] = defaultdict(lambda: defaultdict(set))
        """By (IP version, host bits), then by network bits."""

    def change(self, network: IPNetwork, selector: Selector, is_used: bool) -> None:
        bits = network.max_prefixlen - network.prefixlen
        row = self._rows[network.version, bits][int(network.network_address) >> bits]
        if is_used:
            row.add(selector)
        else:
            row.discard(selector)

    def used(self) -> Iterator[IPNetwork]:
        """All CIDRs that some selector stands for."""
        for (version, bits), row in self._rows.items():
            address = IPv4Address if version == 4 else IPv6Address
            for number, selectors in row.items():
                if selectors:
                    yield ip_network((address(number << bits), address(0).max_prefixlen - bits))

    def taking(self, address: IPAddress, least_bits: int = 0) -> Iterator[Selector]:
        """Those that take an address, by CIDRs with at least so many host bits."""
        number, version = int(address), address.version
        for (family, bits), row in self._rows.items():
            if family == version and bits >= least_bits:
                yield from row.get(number >> bits, ())

    def taking_all(self, network: IPNetwork) -> Iterator[Selector]:
        """Those that take all of a network's addresses."""
        return self.taking(network.network_address, network.max_prefixlen - network.prefixlen)
