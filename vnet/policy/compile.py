"""Topology and inventory to flows: the pipeline of `vnet.policy.pipeline`, table by table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise

from vnet.openflow.flow import Flow
from vnet.policy import guard, segment, track
from vnet.policy.endpoint import endpoints
from vnet.policy.entry import Entry
from vnet.policy.identity import Identities, identify
from vnet.policy.judge import Shadow, judge, sides
from vnet.policy.origin import Origin
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


@dataclass(frozen=True, slots=True)
class Compiled:
    """The flows of a fabric, sorted by table and falling priority, and where each comes from.

    `provenance` maps cookies to origins; `shadowed` are the rules that can never decide.
    """

    flows: tuple[Flow, ...]
    provenance: Mapping[int, Origin]
    shadowed: tuple[Shadow, ...]
    identities: Identities


def compile(topology: Topology, inventory: Inventory) -> Compiled:
    """The flows that enforce the topology on these VMs; the same input gives the same flows.

    Raises: InputError when more rules apply to one VM than a table has priorities.
    """
    identities = identify(topology, inventory)
    both = sides(topology)
    egress, from_egress = judge(topology, identities, both.egress) if both.egress else ([], [])
    ingress, from_ingress = judge(topology, identities, both.ingress)
    entries = [*_ports(topology, inventory, identities), *track.connection(both.first), *egress, *ingress]
    entries += track.deliver(sorted({nic.vlan for nic in inventory.nics}))
    flows = tuple(sorted((entry.flow for entry in entries), key=_order))
    clashes = [one for one, other in pairwise(flows) if _order(one) == _order(other)]
    assert not clashes, f"two flows have the same table, priority and match: {clashes[0]}"
    return Compiled(
        flows,
        {entry.flow.cookie: entry.origin for entry in entries},
        (*from_egress, *from_ingress),
        identities,
    )


def _ports(topology: Topology, inventory: Inventory, identities: Identities) -> Iterator[Entry]:
    """Tables 0 to 3, and the errors of table 4: everything that depends on single NICs."""
    ends = tuple(endpoints(topology, inventory))
    by_nic = segment.by_nic(ends)
    for nic in inventory.nics:
        own = {end.address: identities.of[end.name, end.address] for end in by_nic.get(nic.name, ())}
        yield from guard.admit(nic)
        yield from guard.source_guard(nic, own)
        yield from segment.neighbour(nic, own)
        for end in by_nic.get(nic.name, ()):
            yield segment.destination(end, own[end.address])
    yield guard.admit_miss()
    yield from guard.everywhere()
    yield from segment.announcements(inventory.nics)
    yield from segment.neighbour_rest()
    yield from segment.destination_rest()
    yield from track.errors(end.address for end in ends)


def _order(flow: Flow) -> tuple[int, int, tuple[tuple[str, int, int], ...]]:
    return flow.table, -flow.priority, flow.match.entries
