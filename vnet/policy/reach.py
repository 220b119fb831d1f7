"""Which connections VMs may open to one another: the matrix of identities, read for VMs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from itertools import product

from vnet.policy.compile import Compiled
from vnet.policy.decisions import Asked
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.matrix import Spans, joined, words
from vnet.policy.outside import of_fabric
from vnet.topology.inventory import Inventory
from vnet.topology.model import Topology


@dataclass(frozen=True, slots=True)
class Pair:
    """What one VM may open to another on a network; `ports` in words, `-` for nothing.

    Of what a router carries `network` is `front -> back`.
    """

    source: str
    target: str
    network: str
    ports: str


def reach(topology: Topology, inventory: Inventory, compiled: Compiled) -> Iterator[Pair]:
    """Every pair of VMs that share a network or are joined by a router, in file order; replicas one by one.

    Families with different answers are told apart. Addresses that the guests were not given are left out. Who
    is outside is there as `internet`, `host` and the CIDRs that rules name, each without what is named apart.
    """
    asked, roads = Asked(compiled), Roads(topology, endpoints(topology, inventory))
    by_network: dict[str, list[Endpoint]] = {}
    for end in (*endpoints(topology, inventory), *of_fabric(topology, inventory).ends()):
        if end.is_given:
            by_network.setdefault(end.nic.network, []).append(end)
    for here, there in product(by_network, repeat=2):
        if here and there and not roads.routing.are_joined(here, there):
            continue
        network = here if here == there else f"{here or 'outside'} -> {there or 'outside'}"
        answers: dict[tuple[str, str], dict[int, Spans]] = defaultdict(dict)
        for source in by_network[here]:
            for target in by_network[there]:
                if source.vm.name != target.vm.name and roads.can_meet(source, target):
                    pair = answers[_name(source), _name(target)]
                    version = source.address.version
                    pair[version] = joined((*pair.get(version, ()), *asked.open(source, target)))
        for (one, other), by_family in answers.items():
            yield Pair(one, other, network, told(by_family))


def beyond(
    topology: Topology, inventory: Inventory, compiled: Compiled, vms: Container[str]
) -> Mapping[tuple[str, str], str]:
    """What is open between some VMs and who is outside, both ways, in words; of those that can meet."""
    strangers = tuple(of_fabric(topology, inventory).ends())
    if not strangers:
        return {}
    asked, roads = Asked(compiled), Roads(topology, endpoints(topology, inventory))
    found: dict[tuple[str, str], dict[int, Spans]] = defaultdict(dict)
    own = [end for end in endpoints(topology, inventory) if end.is_given and end.vm.name in vms]
    for end, stranger in product(own, strangers):
        for source, target in ((end, stranger), (stranger, end)):
            if roads.can_meet(source, target):
                pair, version = found[_name(source), _name(target)], source.address.version
                pair[version] = joined((*pair.get(version, ()), *asked.open(source, target)))
    return {names: told(by_family) for names, by_family in found.items()}


def _name(end: Endpoint) -> str:
    return end.who if end.is_outside else end.vm.name


def told(by_family: Mapping[int, Spans]) -> str:
    """What is open in words, by IP version where versions have different answers."""
    texts = {version: words(spans) for version, spans in by_family.items()}
    if len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return "; ".join(f"IPv{version}: {text}" for version, text in sorted(texts.items()))
