"""Topology and inventory to flows: the pipeline of `vnet.policy.pipeline`, table by table.

Flows are made in *units*: those of one NIC, of one policy for one subject, of one network's announcements.
`Compiler` keeps the units, and after a change makes only those anew whose input is another. `compile` is the
same thing done once, so both give the same flows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from vnet.base.objects import not_the_same
from vnet.openflow.flow import Flow
from vnet.policy import cables, exits, gateway, guard, segment, serve, track
from vnet.policy.difference import Difference, diff
from vnet.policy.endpoint import Block, Endpoint
from vnet.policy.entry import Entry
from vnet.policy.exits import Numbered
from vnet.policy.identity import Classes, Collision, Identities, Moved, Role, Selector
from vnet.policy.judge import Judge, logs_connections, misses, outside, sides
from vnet.policy.nics import Nics
from vnet.policy.origin import Origin
from vnet.policy.outside import Edge, Outside, edges
from vnet.topology.inventory import Inventory, ServicePort
from vnet.topology.model import Policy, Topology
from vnet.topology.routing import Routing, gateway_mac


@dataclass(frozen=True, slots=True)
class Compiled:
    """The flows of a fabric, sorted by table and falling priority, and where each comes from.

    `provenance` maps cookies to origins.
    """

    flows: tuple[Flow, ...]
    provenance: Mapping[int, Origin]
    identities: Identities


def compile(topology: Topology, inventory: Inventory) -> Compiled:
    """The flows that enforce the topology on these VMs; the same input gives the same flows.

    Raises: InputError when more rules apply to one VM than a table has priorities.
    """
    return Compiler(topology, inventory).compiled


Units = dict[Hashable, tuple[Entry, ...]]


class Compiler:
    """The flows of a fabric, kept while its topology and its VMs change.

    What a new topology and inventory share with those before, as the same objects, costs nearly nothing.
    """

    def __init__(self, topology: Topology, inventory: Inventory) -> None:
        """Raises: InputError (see `compile`)."""
        self._start(topology, inventory)

    def _start(self, topology: Topology, inventory: Inventory) -> None:
        self._topology = topology
        self._sides = sides(topology)
        self._classes = Classes(topology.groups)
        self._judges = tuple(map(Judge, self._sides))
        self._edges = edges(topology, inventory)
        self._outside: Mapping[str, Numbered] = {}
        """The blocks beyond each edge and their identities, as the flows have them."""
        self._nics = Nics(topology, self._edges)
        self._logging = 0
        """How many policies want new connections to be told."""
        for policy in topology.policies:
            self._count(policy, 1)
        changed = self._nics.see(inventory.vms)
        self._strangers = self._beyond()
        moved = self._classes.place((*self._nics.ends(changed.seen), *self._strangers), afresh=True)
        self._units: Units = {"everywhere": tuple(self._everywhere())}
        self._served: dict[str, tuple[ServicePort, frozenset[int]]] = {}
        """The servers of networks, and whom they serve, as their flows have it."""
        self._take(
            chain(
                self._nics.units(changed, self._classes, self._logging > 0),
                self._judged(moved),
                self._services(inventory),
                self._ways_out(),
            )
        )

    def update(self, topology: Topology, inventory: Inventory) -> Difference:
        """Make the flows those of another topology and inventory; what that takes of a switch that has the
        flows before.

        Raises: InputError (see `compile`); this compiler is then of no more use.
        """
        before = self._units
        try:
            replaced = self._change(topology, inventory)
        except Collision:  # nothing was replaced so far
            self._start(topology, inventory)
            replaced = {unit: before.get(unit, ()) for unit in before.keys() | self._units.keys()}
        return diff(_flows(replaced.values()), _flows(self._units.get(unit, ()) for unit in replaced))

    def _change(self, topology: Topology, inventory: Inventory) -> Units:
        """Returns the units before that may be others now. Raises Collision when all is to be made afresh."""
        if self._rests_on_more(topology) or edges(topology, inventory) != self._edges:
            raise Collision
        told_apart = self._use(topology)
        self._topology = topology
        changed = self._nics.see(inventory.vms)
        changed.seen |= dict.fromkeys(self._nics.taken_by(told_apart, topology.groups))
        were, self._strangers = self._strangers, self._beyond()
        gone = [end for end in were if end not in self._strangers]
        forgotten = self._classes.forget((*changed.gone_ends, *gone))
        placed = self._classes.place((*self._nics.ends(changed.seen), *self._strangers))
        moved = {role: forgotten[role] | placed[role] for role in Role}
        return self._take(
            chain(
                self._nics.units(changed, self._classes, self._logging > 0),
                self._judged(moved),
                self._services(inventory),
                self._ways_out(),
            )
        )

    def _beyond(self) -> tuple[Endpoint, ...]:
        """Those outside, as the rules tell them apart."""
        return tuple(Outside(self._edges, self._classes.named()).ends()) if self._edges else ()

    def _rests_on_more(self, topology: Topology) -> bool:
        """Whether something differs that all flows may depend on."""
        was = self._topology
        if topology is was:
            return False
        rest = (topology.groups, topology.tiers, topology.networks, topology.routers)
        had = (was.groups, was.tiers, was.networks, was.routers)
        return rest != had or sides(topology) != self._sides

    def _use(self, topology: Topology) -> set[Selector]:
        """Count the selectors of policies that are new, and no longer those of policies that are gone."""
        changed: set[Selector] = set()
        was, becomes = not_the_same(self._topology.policies, topology.policies)
        for policy in becomes:
            changed |= self._count(policy, 1)
        for policy in was:
            changed |= self._count(policy, -1)
        return changed

    def _count(self, policy: Policy, times: int) -> set[Selector]:
        self._logging += times * logs_connections(policy)
        return self._classes.use(policy, times)

    def _judged(self, moved: Mapping[Role, Moved]) -> Iterator[tuple[Hashable, tuple[Entry, ...]]]:
        for judge in self._judges:
            yield from judge.units(self._topology, self._classes, moved)

    def _services(self, inventory: Inventory) -> Iterator[tuple[Hashable, tuple[Entry, ...]]]:
        """The units of servers that are not as they were, () for one that is no more."""
        known = {
            each.network: (each, self._nics.ports((each.network, each.vlan))) for each in inventory.services
        }
        was, self._served = self._served, known
        routing = Routing(self._topology)
        for name in was.keys() - known.keys():
            yield ("service", name), ()
        for name, (server, ports) in known.items():
            if was.get(name) != (server, ports):
                is_routed = routing.router(name) is not None
                network = self._topology.networks[name]
                yield ("service", name), tuple(serve.service(server, network, is_routed, ports))

    def _ways_out(self) -> Iterator[tuple[Hashable, tuple[Entry, ...]]]:
        """The units of edges of which the blocks are not as they were."""
        was, self._outside = self._outside, self._numbered()
        for edge in self._edges:
            numbered = self._outside[edge.name]
            if was.get(edge.name) == numbered:
                continue
            if edge.is_exit:
                yield ("edge", edge.name), tuple(exits.leads_out(edge, numbered, self._topology))
            else:
                yield ("edge", edge.name), tuple(cables.blocks(edge, numbered))

    def _numbered(self) -> Mapping[str, Numbered]:
        found: dict[str, list[tuple[Block, int]]] = defaultdict(list)
        for end in self._strangers:
            assert end.block is not None
            found[end.name].append((end.block, self._classes.of(end)))
        return {name: tuple(ends) for name, ends in found.items()}

    def _take(self, units: Iterable[tuple[Hashable, tuple[Entry, ...]]]) -> Units:
        """Put units in place of others, which are returned."""
        replaced: Units = {}
        for unit, entries in units:
            replaced[unit] = self._units.pop(unit, ())
            if entries:
                self._units[unit] = entries
        return replaced

    def _everywhere(self) -> Iterator[Entry]:
        """What does not depend on who is there."""
        yield guard.admit_miss()
        yield from guard.everywhere()
        yield from segment.neighbour_rest()
        yield from gateway.gateways(self._topology)
        yield from segment.destination_rest()
        yield from track.connection(self._sides.first)
        if any(network.has_services for network in self._topology.networks.values()):
            yield from serve.connection()
        for side in self._sides:
            yield from misses(side)
        if self._edges:
            yield from self._everywhere_outside()

    def _everywhere_outside(self) -> Iterator[Entry]:
        yield track.errors_outside()
        yield from map(outside, self._sides)
        mac, by_port = gateway_mac(self._topology.name), defaultdict[int, list[Edge]](list)
        for edge in self._edges:
            if not edge.is_exit:
                by_port[edge.nic.port].append(edge)
        for networks in by_port.values():
            yield from cables.carries(networks, mac)

    @property
    def compiled(self) -> Compiled:
        """All flows as they are now."""
        entries = [*chain.from_iterable(self._units.values())]
        flows = tuple(sorted((entry.flow for entry in entries), key=_order))
        clashes = [one for one, other in pairwise(flows) if _order(one) == _order(other)]
        assert not clashes, f"two flows have the same table, priority and match: {clashes[0]}"
        provenance = {entry.flow.cookie: entry.origin for entry in entries}
        return Compiled(flows, provenance, self._classes.identities())


def _flows(units: Iterable[Iterable[Entry]]) -> Iterator[Flow]:
    return (entry.flow for entry in chain.from_iterable(units))


def _order(flow: Flow) -> tuple[int, int, tuple[tuple[str, int, int], ...]]:
    return flow.table, -flow.priority, flow.match.entries
