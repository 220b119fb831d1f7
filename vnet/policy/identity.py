"""Identities: numbers for those who are the same to every policy.

Two endpoints share an identity when every selector used by the policies takes both or neither. The
number is a digest of the selectors that take them, so it does not depend on who else is in the
fabric, on addresses that no selector tells apart, or on the order of the file.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from ipaddress import ip_network

from vnet.policy.endpoint import Endpoint, IPAddress, endpoints
from vnet.topology.inventory import Inventory
from vnet.topology.model import IPNetwork, Peer, PeerKind, Topology

Selector = tuple[PeerKind, str]
EndpointKey = tuple[str, IPAddress]


@dataclass(frozen=True, slots=True)
class Identity:
    """A class of endpoints; `families` are the IP versions (4, 6) among their addresses."""

    number: int
    selectors: frozenset[Selector]
    members: tuple[Endpoint, ...]
    families: frozenset[int]

    @property
    def label(self) -> str:
        """Whose traffic this is, in words: `web`, `web, app`, `web, app and 7 more`."""
        return label(self.members)


def label(members: Iterable[Endpoint]) -> str:
    """Whose endpoints these are, in words."""
    names = tuple(dict.fromkeys(end.vm.spec for end in members))
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")


@dataclass(frozen=True, slots=True)
class Identities:
    """The identities of a fabric: by endpoint, by number, and which numbers a selector takes."""

    of: Mapping[EndpointKey, int]
    by_number: Mapping[int, Identity]
    taken: Mapping[Selector, frozenset[int]]

    def select(self, peers: Iterable[Peer]) -> frozenset[int]:
        """The numbers of all identities that the selectors take together."""
        return frozenset().union(*(self.taken.get(selector_of(peer), ()) for peer in peers))


def selector_of(peer: Peer) -> Selector:
    """The selector without the line it was written on."""
    return peer.kind, "any" if peer.kind is PeerKind.ANY else peer.value


def used_selectors(topology: Topology) -> frozenset[Selector]:
    """The selectors that policies use; `any` tells nobody apart but is kept for look-up."""

    def peers() -> Iterator[Peer]:
        for policy in topology.policies:
            yield from policy.applied_to
            for rule in (*(policy.ingress or ()), *(policy.egress or ())):
                yield from rule.peers

    return frozenset(map(selector_of, peers()))


def identify(topology: Topology, inventory: Inventory) -> Identities:
    """Sort every endpoint of the fabric into its class and number the classes."""
    memberships = _Memberships.build(topology)
    classes: dict[frozenset[Selector], list[Endpoint]] = defaultdict(list)
    for end in endpoints(topology, inventory):
        classes[memberships.of(end)].append(end)
    identities = {
        number: Identity(number, selectors, tuple(members), frozenset(end.address.version for end in members))
        for (selectors, members), number in _numbered(classes)
    }
    taken: dict[Selector, set[int]] = defaultdict(set)
    for identity in identities.values():
        for selector in identity.selectors:
            taken[selector].add(identity.number)
    of = {(end.name, end.address): i.number for i in identities.values() for end in i.members}
    return Identities(of, identities, {selector: frozenset(ids) for selector, ids in taken.items()})


def _numbered(
    classes: Mapping[frozenset[Selector], list[Endpoint]],
) -> Iterator[tuple[tuple[frozenset[Selector], list[Endpoint]], int]]:
    """Number the classes in the order of their texts, so that collisions fall out the same every time."""
    used: set[int] = set()
    for selectors in sorted(classes, key=text):
        number = digest(text(selectors), used)
        used.add(number)
        yield (selectors, classes[selectors]), number


def text(selectors: frozenset[Selector]) -> str:
    """What an identity's number is a digest of."""
    return "\n".join(sorted(f"{kind.value}:{value}" for kind, value in selectors))


def digest(name: str, used: set[int]) -> int:
    """A non-zero 32-bit number for `name` that is not in `used`; the first try unless they collide."""
    attempt = 0
    while True:
        salted = name if not attempt else f"{name}\n#{attempt}"
        number = int.from_bytes(blake2b(salted.encode(), digest_size=4).digest(), "big")
        if number and number not in used:
            return number
        attempt += 1


@dataclass(frozen=True, slots=True)
class _Memberships:
    """The used selectors, indexed so that an endpoint's are found without trying each."""

    used: frozenset[Selector]
    by_prefix: Mapping[tuple[int, int], Mapping[int, tuple[Selector, ...]]]
    """By (IP version, prefix length), then by network bits: the selectors with that CIDR."""

    @classmethod
    def build(cls, topology: Topology) -> _Memberships:
        used = used_selectors(topology)
        by_prefix: dict[tuple[int, int], dict[int, tuple[Selector, ...]]] = defaultdict(dict)
        for selector in sorted(used, key=lambda s: (s[0].value, s[1])):
            for network in _networks(topology, selector):
                bits = network.max_prefixlen - network.prefixlen
                row = by_prefix[network.version, bits]
                key = int(network.network_address) >> bits
                row[key] = (*row.get(key, ()), selector)
        return cls(used, by_prefix)

    def of(self, end: Endpoint) -> frozenset[Selector]:
        wanted: set[Selector] = {
            (PeerKind.ANY, "any"),
            (PeerKind.VM, end.vm.spec),
            (PeerKind.VM, end.vm.name),
            (PeerKind.NETWORK, end.nic.network),
            *((PeerKind.GROUP, group) for group in end.vm.groups),
        }
        address, version = int(end.address), end.address.version
        found = wanted & self.used
        for (family, bits), row in self.by_prefix.items():
            if family == version:
                found.update(row.get(address >> bits, ()))
        return frozenset(found)


def _networks(topology: Topology, selector: Selector) -> tuple[IPNetwork, ...]:
    kind, value = selector
    if kind is PeerKind.CIDR:
        return (ip_network(value, strict=False),)
    return topology.groups.get(value, ()) if kind is PeerKind.GROUP else ()
