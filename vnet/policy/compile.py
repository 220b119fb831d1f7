"""Topology and inventory to flows: the pipeline of `vnet.policy.pipeline`, table by table.

Flows are made in *units*: those of one NIC, of one policy for one subject, of one network's announcements.
`Compiler` keeps the units, and after a change makes only those anew whose input is another. `compile` is the
same thing done once, so both give the same flows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, pairwise

from vnet.base.objects import not_the_same
from vnet.openflow.flow import Flow
from vnet.policy import gateway, guard, segment, serve, track
from vnet.policy.difference import Difference, diff
from vnet.policy.entry import Entry
from vnet.policy.identity import Classes, Collision, Identities, Moved, Role, Selector
from vnet.policy.judge import Judge, logs_connections, misses, sides
from vnet.policy.nics import Nics
from vnet.policy.origin import Origin
from vnet.topology.inventory import Inventory, ServicePort
from vnet.topology.model import Policy, Topology
from vnet.topology.routing import Routing


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
        self._nics = Nics(topology)
        self._logging = 0
        """How many policies want new connections to be told."""
        for policy in topology.policies:
            self._count(policy, 1)
        changed = self._nics.see(inventory.vms)
        moved = self._classes.place(self._nics.ends(changed.seen), afresh=True)
        self._units: Units = {"everywhere": tuple(self._everywhere())}
        self._served: dict[str, tuple[ServicePort, frozenset[int]]] = {}
        """The servers of networks, and whom they serve, as their flows have it."""
        self._take(
            chain(
                self._nics.units(changed, self._classes, self._logging > 0),
                self._judged(moved),
                self._services(inventory),
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
        if self._rests_on_more(topology):
            raise Collision
        told_apart = self._use(topology)
        self._topology = topology
        changed = self._nics.see(inventory.vms)
        changed.seen |= dict.fromkeys(self._nics.taken_by(told_apart, topology.groups))
        forgotten = self._classes.forget(changed.gone_ends)
        placed = self._classes.place(self._nics.ends(changed.seen))
        moved = {role: forgotten[role] | placed[role] for role in Role}
        return self._take(
            chain(
                self._nics.units(changed, self._classes, self._logging > 0),
                self._judged(moved),
                self._services(inventory),
            )
        )

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
                forwarders = serve.beyond(network, self._topology)
                made = serve.service(server, network, is_routed, ports, forwarders)
                yield ("service", name), tuple(made)

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
