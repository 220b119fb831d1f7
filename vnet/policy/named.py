"""Names for sets: selectors that take exactly some VMs, services and ports that are exactly some ports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from ipaddress import ip_network

from vnet.base.protocols import ICMP, PORT_PROTOCOLS
from vnet.base.source import Location
from vnet.policy.endpoint import Endpoint, endpoints
from vnet.policy.semantics import selects_any
from vnet.policy.wanted import ECHO, Port
from vnet.topology.inventory import Inventory
from vnet.topology.model import Peer, PeerKind, Service, Topology
from vnet.topology.selectors import BUILT_IN_SERVICES, ICMP_SERVICE

Who = str
"""Someone a rule can speak of: a VM by its name, or one address of a VM as a CIDR (`10.10.20.11/32`)."""
SUGGESTED = Location("(suggested)")
_EXPANDED_MAX = 1024
"""A service of more ports than these is not looked for among those that were seen."""
RANGE_MIN = 3
"""Fewer ports that follow each other are listed one by one."""


def address_of(end: Endpoint) -> Who:
    """The address of an endpoint as a selector."""
    return f"{end.address}/{end.address.max_prefixlen}"


class People:
    """The VMs of a fabric and the selectors that take them."""

    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        self._topology = topology
        self.ends: dict[Who, tuple[Endpoint, ...]] = {}
        self._alone: dict[Who, tuple[Endpoint, ...]] = {}
        found: dict[str, list[Endpoint]] = defaultdict(list)
        alone: dict[Who, list[Endpoint]] = defaultdict(list)
        for end in endpoints(topology, inventory):
            found[end.vm.name].append(end)
            alone[address_of(end)].append(end)
        self.ends = {name: tuple(ends) for name, ends in found.items()}
        self._alone = {name: tuple(ends) for name, ends in alone.items()}
        self.specs = {vm.name: vm.spec for vm in inventory.vms}
        self.groups = self._groups(inventory)
        """The groups that take whole VMs, and these."""
        self.replicas: dict[str, frozenset[Who]] = {
            spec: frozenset(vm.name for vm in inventory.vms if vm.spec == spec)
            for spec in {vm.spec for vm in inventory.vms if vm.spec != vm.name}
        }
        self._sets = self._selectors()

    def of(self, who: Who) -> tuple[Endpoint, ...]:
        """The endpoints of a VM or of an address."""
        return self.ends[who] if who in self.ends else self._alone[who]

    def _groups(self, inventory: Inventory) -> Mapping[str, frozenset[Who]]:
        names = dict.fromkeys(
            [*self._topology.groups, *(g for vm in inventory.vms for g in sorted(vm.groups))]
        )
        found = {}
        for name in names:
            members = self.taken((_peer(PeerKind.GROUP, name),))
            if members and all(each in self.ends for each in members):
                found[name] = members
        return found

    def taken(self, peers: tuple[Peer, ...]) -> frozenset[Who]:
        """Whom selectors take: VMs of which they take all endpoints, and single addresses."""
        found: set[Who] = set()
        for name, ends in self.ends.items():
            taken = [end for end in ends if selects_any(self._topology, peers, end)]
            found |= {name} if len(taken) == len(ends) and taken else set(map(address_of, taken))
        return frozenset(found)

    def _selectors(self) -> Sequence[tuple[Peer, frozenset[Who]]]:
        """All that may be named, the ones with more members first, of equals groups before VMs."""
        groups = ((_peer(PeerKind.GROUP, name), members) for name, members in self.groups.items())
        specs = ((_peer(PeerKind.VM, name), members) for name, members in self.replicas.items())
        vms = ((_peer(PeerKind.VM, name), frozenset({name})) for name in self.ends)
        return sorted([*groups, *specs, *vms], key=lambda each: -len(each[1]))

    def named(self, who: Iterable[Who]) -> tuple[Peer, ...]:
        """Selectors that take these and nobody else: as few as taking the largest first gives."""
        left = set(who)
        whole = frozenset(left)
        found = []
        for peer, members in self._sets:
            if members <= whole and members & left:
                found.append(peer)
                left -= members
        return (*found, *(_peer(PeerKind.CIDR, str(ip_network(each))) for each in sorted(left)))


def _peer(kind: PeerKind, value: str) -> Peer:
    return Peer(kind, value, SUGGESTED)


@dataclass(frozen=True, slots=True)
class Ports:
    """What a rule's `ports` says: its words, and the services that they mean."""

    words: tuple[str, ...]
    services: tuple[Service, ...]


def told(ports: Collection[Port], known: Mapping[str, tuple[Service, ...]], ranges: bool) -> Ports:
    """These ports as a rule lists them, by the names of services where they have one.

    Args:
        known: the services that the file declares.
        ranges: write ports that follow each other as one range.
    """
    left, words = set(ports), dict[str, tuple[Service, ...]]()
    named = {**BUILT_IN_SERVICES, **known}
    for name, those in _known(named):
        if those <= left:
            words[name] = named[name]
            left -= those
    for service in _plain(sorted(left), ranges):
        words[service.text] = (service,)
    return Ports(tuple(words), tuple(each for several in words.values() for each in several))


def _plain(ports: Sequence[Port], ranges: bool) -> Iterator[Service]:
    if ECHO in ports:
        yield ICMP_SERVICE
    spans: list[tuple[int, int, int]] = []
    for protocol, port in ports:
        if spans and spans[-1][0] == protocol and spans[-1][2] == port - 1:
            spans[-1] = (protocol, spans[-1][1], port)
        elif (protocol, port) != ECHO:
            spans.append((protocol, port, port))
    for protocol, first, last in spans:
        name = PORT_PROTOCOLS[protocol]
        if ranges and last - first + 1 >= RANGE_MIN:
            yield Service(protocol, (first, last), f"{first}-{last}/{name}")
        else:
            yield from (Service(protocol, (each, each), f"{each}/{name}") for each in range(first, last + 1))


def _known(named: Mapping[str, tuple[Service, ...]]) -> Iterator[tuple[str, Set[Port]]]:
    """Each service with its ports, those of more ports first; those that mean more are left out."""
    sets = {name: _ports(parts) for name, parts in named.items() if name != "icmp"}
    yield from sorted(
        ((name, those) for name, those in sets.items() if those), key=lambda each: (-len(each[1]), each[0])
    )


def _ports(parts: tuple[Service, ...]) -> frozenset[Port]:
    found: set[Port] = set()
    for part in parts:
        protocol, ports = part.protocol, part.ports
        if part == ICMP_SERVICE or (protocol == ICMP and ports is None):
            found.add(ECHO)
        elif protocol in (None, ICMP) or ports is None or ports[1] - ports[0] >= _EXPANDED_MAX:
            return frozenset()
        else:
            found |= {(protocol, port) for port in range(ports[0], ports[1] + 1)}
    return frozenset(found)
