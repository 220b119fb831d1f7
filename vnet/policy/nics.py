"""The flows of tables 0 to 4 and 50 that depend on who is there, NIC by NIC, kept while VMs come and go."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from vnet.base.objects import not_the_same
from vnet.policy import cables, guard, segment, serve, track
from vnet.policy.endpoint import Endpoint, IPAddress, endpoints_of, is_routed_to
from vnet.policy.entry import Entry
from vnet.policy.identity import Classes, Selector, names_of, networks_of
from vnet.policy.outside import Edge
from vnet.policy.pipeline import Stage
from vnet.topology.inventory import Nic, Vm
from vnet.topology.model import IPNetwork, Topology
from vnet.topology.routing import Routing, gateway_mac, zone_of

Segment = tuple[str, int]
"""A network's name and VLAN."""
Reached = tuple[tuple[int, ...], bool]
"""The MACs by which an endpoint is reached, and whether routers send packets to it."""


@dataclass(slots=True)
class Changed:
    """What is not as it was seen last. `seen` (in order) and `gone` are names of NICs."""

    seen: dict[str, None] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    gone_ends: list[Endpoint] = field(default_factory=list)
    segments: set[Segment] = field(default_factory=set)
    addresses: set[IPAddress] = field(default_factory=set)


class Nics:
    """The NICs of a fabric and the units of flows that each of them gives rise to."""

    def __init__(self, topology: Topology, edges: Sequence[Edge] = ()) -> None:
        self._topology, self._edges = topology, edges
        self._cables = {edge.nic.network: edge for edge in edges if not edge.is_exit}
        self._routing = Routing(topology)
        self._gateway = gateway_mac(topology.name)
        self._seen: Sequence[Vm] = ()
        self._nics: dict[str, Nic] = {}
        self._ends: dict[str, tuple[Endpoint, ...]] = {}
        self._named: dict[Selector, set[str]] = defaultdict(set)
        self._members: dict[Segment, dict[str, Nic]] = defaultdict(dict)
        self._users = Counter[IPAddress]()
        self._holders = Counter[tuple[int, int, IPAddress]]()
        """How many NICs of a VLAN may use a MAC with an address."""
        self._made_of: dict[str, tuple[Nic, tuple[int, ...], tuple[Reached, ...]]] = {}
        """What the flows of a NIC depend on: it, the identity of each endpoint, the MACs that reach each."""
        self._sharers = Counter[tuple[int, IPAddress]]()
        """How many NICs of a VLAN may use an address."""
        self._delivered: tuple[tuple[int, ...], bool] | None = None

    # who is there

    def see(self, vms: Sequence[Vm]) -> Changed:
        """Take note of all VMs there are."""
        changed, seen = Changed(), self._seen
        self._seen = vms
        was, becomes = ({vm.name: vm for vm in each} for each in not_the_same(seen, vms))
        for name, vm in becomes.items():
            if was.get(name) != vm:
                self._exchange(was.get(name), vm, changed)
        for name in was.keys() - becomes.keys():
            self._exchange(was[name], None, changed)
        return changed

    def _exchange(self, was: Vm | None, becomes: Vm | None, changed: Changed) -> None:
        old = [end for nic in was.nics for end in self._remove(nic, changed)] if was else []
        new = [end for nic in becomes.nics for end in self._add(nic, becomes, changed)] if becomes else []
        kept = {(end.name, end.address) for end in new}
        changed.gone_ends += [end for end in old if (end.name, end.address) not in kept]
        stays = dict.fromkeys(nic.name for nic in becomes.nics) if becomes else {}
        changed.gone |= {nic.name for nic in was.nics} - stays.keys() if was else set()
        changed.seen |= stays

    def _remove(self, nic: Nic, changed: Changed) -> tuple[Endpoint, ...]:
        ends = self._ends.pop(nic.name)
        self._count(ends, -1, changed)
        for selector in names_of(ends[0]) if ends else ():
            self._named[selector].discard(nic.name)
        del self._nics[nic.name], self._members[nic.network, nic.vlan][nic.name]
        changed.segments.add((nic.network, nic.vlan))
        return ends

    def _add(self, nic: Nic, vm: Vm, changed: Changed) -> tuple[Endpoint, ...]:
        ends = self._ends[nic.name] = tuple(endpoints_of(self._topology, vm, nic))
        self._count(ends, 1, changed)
        for selector in names_of(ends[0]) if ends else ():
            self._named[selector].add(nic.name)
        self._nics[nic.name] = self._members[nic.network, nic.vlan][nic.name] = nic
        changed.segments.add((nic.network, nic.vlan))
        return ends

    def _count(self, ends: Iterable[Endpoint], times: int, changed: Changed) -> None:
        for end in ends:
            self._users[end.address] += times
            self._sharers[end.nic.vlan, end.address] += times
            for mac in end.macs:
                self._holders[end.nic.vlan, mac, end.address] += times
            changed.addresses.add(end.address)

    def ends(self, nics: Iterable[str]) -> Iterator[Endpoint]:
        """The endpoints of NICs."""
        for name in nics:
            yield from self._ends[name]

    def taken_by(
        self, selectors: Iterable[Selector], groups: Mapping[str, tuple[IPNetwork, ...]]
    ) -> set[str]:
        """The NICs of which a selector takes an endpoint."""
        taken: set[str] = set()
        for selector in selectors:
            taken |= self._named.get(selector, set())
            for network in networks_of(groups, selector):
                ends = (end for each in self._ends.values() for end in each)
                taken |= {end.name for end in ends if end.address in network}
        return taken

    def ports(self, where: Segment) -> frozenset[int]:
        """Those of the NICs of a network."""
        return (
            frozenset(nic.port for nic in self._members[where].values())
            if where in self._members
            else frozenset()
        )

    # their flows

    def units(
        self, changed: Changed, classes: Classes, logging: bool
    ) -> Iterator[tuple[Hashable, tuple[Entry, ...]]]:
        """The units that are not what they were, () for one that is no more.

        Args:
            logging: whether some policy wants new connections to be told.
        """
        for name in changed.gone:
            del self._made_of[name]
            yield ("nic", name), ()
        sharing = chain.from_iterable(map(self._sharing, changed.segments))
        for name in dict.fromkeys(chain(changed.seen, sharing)):
            ends = self._ends[name]
            known = self._nics[name], tuple(map(classes.of, ends)), tuple(map(self._reached, ends))
            if self._made_of.get(name) != known:
                self._made_of[name] = known
                yield ("nic", name), tuple(self._of_nic(*known))
        for where in changed.segments:
            yield ("segment", *where), tuple(self._of_segment(where))
        for address in changed.addresses:
            yield ("error", address), tuple(track.errors([address] if self._users[address] else ()))
        vlans = tuple(sorted({number for (_, number), nics in self._members.items() if nics}))
        if (vlans, logging) != self._delivered:
            self._delivered = vlans, logging
            zones = (zone_of(each, self._topology.networks) for each in self._topology.routers.values())
            yield "deliver", tuple(track.deliver(vlans, sorted(zones), logging, self._edges))

    def _of_segment(self, where: Segment) -> Iterator[Entry]:
        members, cable = self._members[where], self._cables.get(where[0])
        yield from segment.announcements(members.values(), cable)
        yield from segment.shared(self.ends(members))
        if cable is not None:
            yield from cables.own(cable, [*members.values()], self.ends(members))

    def _of_nic(self, nic: Nic, identities: tuple[int, ...], reached: tuple[Reached, ...]) -> Iterator[Entry]:
        ends, zone = self._ends[nic.name], self._routing.zone(nic.network)
        own = {end.address: number for end, number in zip(ends, identities, strict=True)}
        yield from guard.admit(nic, zone)
        yield from guard.source_guard(nic, ends, own, Stage.DESTINATION if zone is None else Stage.ROUTE)
        yield from segment.neighbour(nic, [end.address for end in ends if not end.is_allowed])
        network = self._topology.networks[nic.network]
        if network.has_services:
            given = [end.address for end in ends if not end.is_allowed]
            yield from serve.asks(nic, given, network, self._gateway)
        for end, (macs, routed) in zip(ends, reached, strict=True):
            yield from (segment.destination(end, mac, own[end.address]) for mac in macs)
            if zone is not None and routed:
                yield segment.routed(end, end.macs[0], own[end.address], self._gateway, zone)

    def _reached(self, end: Endpoint) -> Reached:
        """See `endpoint.reached_by` and `endpoint.is_routed_to`."""
        macs = tuple(mac for mac in end.macs if self._holders[end.nic.vlan, mac, end.address] == 1)
        return macs, is_routed_to(self._routing, end, self._sharers[end.nic.vlan, end.address])

    def _sharing(self, where: Segment) -> Iterator[str]:
        """The NICs for which it matters who else is there."""
        members = self._members[where].values()
        joined = self._routing.router(where[0]) is not None
        return (
            nic.name for nic in members if any(joined or pair.mac is not None for pair in nic.profile.pairs)
        )
