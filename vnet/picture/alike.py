"""VMs that nothing tells apart, and what they may open to each other: what graph and heat map are drawn
from.

Two VMs are alike when they are on the same networks, there with the same identities, in the same groups,
and the same ports of theirs are published. So what one of them may open, all may, exactly, and one
question answers for all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vnet.policy.compile import Compiled
from vnet.policy.decisions import Asked
from vnet.policy.endpoint import Endpoint, Roads, endpoints
from vnet.policy.matrix import EVERY, Spans, joined
from vnet.policy.reach import told
from vnet.topology.inventory import Inventory, Vm
from vnet.topology.model import Topology

MANY = 30
"""Above so many VMs those that are alike are drawn as one."""


Places = tuple[tuple[str, bool, int, int], ...]
"""Network, whether isolated there, IP version and identity, each once."""


@dataclass(frozen=True, slots=True)
class Kin:
    """One VM, or several that are alike; `ends` are one endpoint for each of `places`."""

    name: str
    vms: tuple[Vm, ...]
    ends: tuple[Endpoint, ...]
    places: Places

    @property
    def count(self) -> int:
        return len(self.vms)


@dataclass(frozen=True, slots=True)
class Opening:
    """What one may open to another.

    `ports` are words, of each network where networks differ; `-` for nothing. `is_apart`: they share no
    network, or no address family there, or are isolated from each other, so no policy could open anything.
    """

    ports: str
    is_all: bool = False
    is_apart: bool = False

    @property
    def is_open(self) -> bool:
        return self.ports != "-"


_APART = Opening("-", is_apart=True)


def kins(topology: Topology, inventory: Inventory, compiled: Compiled, merge: bool) -> tuple[Kin, ...]:
    """All VMs in file order, those alike together if `merge`."""
    of = compiled.identities.of
    by_vm: dict[str, dict[tuple[str, bool, int, int], Endpoint]] = defaultdict(dict)
    for end in endpoints(topology, inventory):
        if end.is_given:
            place = end.nic.network, end.nic.is_isolated, end.address.version, of[end.name, end.address]
            by_vm[end.vm.name].setdefault(place, end)
    let_in = {name: (spec.ports, spec.floating) for name, spec in topology.vms.items()}
    classes: dict[object, list[Vm]] = defaultdict(list)
    for vm in inventory.vms:
        networks, published = tuple(nic.network for nic in vm.nics), let_in.get(vm.spec)
        alike = frozenset(by_vm[vm.name]), networks, vm.groups, published
        classes[alike if merge else vm.name].append(vm)
    replicas = {spec: sum(vm.spec == spec for vm in inventory.vms) for spec in topology.vms}
    return tuple(_kin(_name(vms, replicas), vms, by_vm[vms[0].name]) for vms in classes.values())


def _kin(name: str, vms: Sequence[Vm], ends: Mapping[tuple[str, bool, int, int], Endpoint]) -> Kin:
    return Kin(name, tuple(vms), tuple(ends.values()), tuple(ends))


def _name(vms: Sequence[Vm], replicas: Mapping[str, int]) -> str:
    """`db`; `web` for all its replicas; else the first and the last."""
    if len(vms) == 1:
        return vms[0].name
    spec = vms[0].spec
    if all(vm.spec == spec for vm in vms) and replicas.get(spec) == len(vms):
        return spec
    return f"{vms[0].name} … {vms[-1].name}"


class Openings:
    """What kins may open to each other, read from the flows as `policy matrix` reads them."""

    def __init__(self, topology: Topology, inventory: Inventory, compiled: Compiled) -> None:
        self._asked = Asked(compiled)
        self._roads = Roads(topology, endpoints(topology, inventory))
        self._known: dict[tuple[Places, Places], Opening] = {}

    def between(self, source: Kin, target: Kin) -> Opening:
        """The opening from one kin to another, or among the members of one."""
        if source is target and source.count == 1:
            return _APART
        key = source.places, target.places
        if key not in self._known:
            self._known[key] = self._read(source, target)
        return self._known[key]

    def _read(self, source: Kin, target: Kin) -> Opening:
        found: dict[str, dict[int, Spans]] = defaultdict(dict)
        for one, other in self._meeting(source.ends, target.ends):
            family, version = found[self._roads.between(one, other)], one.address.version
            family[version] = joined((*family.get(version, ()), *self._asked.open(one, other)))
        if not found:
            return _APART
        words = {network: told(by_family) for network, by_family in found.items()}
        is_all = all(spans == EVERY for by_family in found.values() for spans in by_family.values())
        return Opening(_joined(words), is_all)

    def _meeting(
        self, ones: Iterable[Endpoint], others: Sequence[Endpoint]
    ) -> Iterable[tuple[Endpoint, Endpoint]]:
        for one in ones:
            for other in others:
                here = one.nic.network == other.nic.network
                apart = here and one.nic.is_isolated and other.nic.is_isolated
                if not apart and self._roads.can_meet(one, other):
                    yield one, other


def _joined(words: Mapping[str, str]) -> str:
    """One answer where all networks have the same, else each with its network; closed ones are left out."""
    if len(set(words.values())) == 1:
        return next(iter(words.values()))
    return "; ".join(f"{network}: {text}" for network, text in words.items() if text != "-")
