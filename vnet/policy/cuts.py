"""Which live connections a change of flows cuts: those that pass before it and would not pass after it.

A connection that was let in before may go on although no new one may be opened: the flows say so themselves
(`established` in the language).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from vnet.openflow.conntrack import Direction
from vnet.openflow.fields import ETH_IPV6, ICMP
from vnet.policy.endpoint import Endpoint
from vnet.policy.matrix import NOTHING, Matrix, Spans
from vnet.policy.reach_changes import Side
from vnet.policy.semantics import REQUEST_TYPE, WITH_PORTS
from vnet.policy.spans import packed
from vnet.topology.inventory import router_of_exit
from vnet.topology.routing import Routing, zone_of

_Ends = Mapping[tuple[int, int, int], Endpoint]
"""By VLAN, IP version and address."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Live connections of one VM to a service of another, and how many they are."""

    source: str
    target: str
    service: int
    """As the service register has it."""
    count: int


def cuts(
    before: Side, after: Side, connections: Iterable[Direction], ended: Set[str] = frozenset()
) -> tuple[Cut, ...]:
    """What is cut, by client, server and service.

    Args:
        connections: those that the switch tracks; the zone is the VLAN, or that of a router.
        ended: VMs that end, or are made again, and take their connections along.
    """
    was, becomes = _Fabric(before), _Fabric(after)
    found = Counter[tuple[str, str, int]]()
    for one in connections:
        ends = was.ends_of(one)
        service = _service(one)
        if ends is None or not was.passes(ends, service):
            continue
        client, server = ends
        names = client.vm.name, server.vm.name
        if not ended.isdisjoint(names) or becomes.ends_of(one) != ends or not becomes.passes(ends, service):
            found[*names, service] += 1
    return tuple(Cut(*key, count) for key, count in sorted(found.items()))


def _service(one: Direction) -> int:
    if one.protocol in REQUEST_TYPE:
        return packed(ICMP, REQUEST_TYPE[one.protocol])
    return packed(one.protocol, one.target.port) if one.protocol in WITH_PORTS else 0


class _Fabric:
    """One generation, asked about connections that were let in before."""

    def __init__(self, side: Side) -> None:
        self._identities = side.identities
        self._ends, self._beyond = _by_address(side), _by_zone(side)
        self._allowed = cache(Matrix(side.flows, admitted=True).allowed)

    def ends_of(self, one: Direction) -> tuple[Endpoint, Endpoint] | None:
        """Client and server; None if one of them is not there."""
        version = 6 if one.family == ETH_IPV6 else 4
        client, server = (self._end(one.zone, version, end.address) for end in (one.source, one.target))
        return (client, server) if client and server else None

    def _end(self, zone: int, version: int, number: int) -> Endpoint | None:
        """Whose address it is; of one outside, the address itself."""
        own = self._ends.get((zone, version, number))
        if own is not None:
            return own
        address = IPv4Address(number) if version == 4 else IPv6Address(number)
        blocks = (end for end in self._beyond.get(zone, ()) if end.block and address in end.block)
        return next((replace(end, address=address) for end in blocks), None)

    def passes(self, ends: tuple[Endpoint, Endpoint], service: int) -> bool:
        """Whether packets of the connection go on."""
        return any(low <= service <= high for low, high in self._spans(*ends))

    def _spans(self, client: Endpoint, server: Endpoint) -> Spans:
        here = client.nic.network == server.nic.network
        if here and client.nic.is_isolated and server.nic.is_isolated:
            return NOTHING
        one, other = (self._identities.number(end) for end in (client, server))
        return self._allowed(one, other)


def _by_address(side: Side) -> _Ends:
    """Of an address that several NICs may have, the first of them by name: no connection tells who it was."""
    members = (end for identity in side.identities.by_number.values() for end in identity.members)
    ends = [end for end in members if not end.is_outside]
    ends.sort(key=lambda end: end.name, reverse=True)
    routing = Routing(side.topology)
    return {
        (zone, end.address.version, int(end.address)): end
        for end in ends
        for zone in routing.zones(end.nic.network, end.nic.vlan)
    }


def _by_zone(side: Side) -> Mapping[int, Sequence[Endpoint]]:
    """The blocks outside, by the zone of the connections that cross their edge."""
    found: dict[int, list[Endpoint]] = defaultdict(list)
    for end in side.identities.outside:
        if end.nic.network:
            found[end.nic.vlan].append(end)
        else:
            router = side.topology.routers[router_of_exit(end.name)]
            found[zone_of(router, side.topology.networks)].append(end)
    return found
