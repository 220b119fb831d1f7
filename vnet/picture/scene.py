"""What a picture of a fabric shows, as values, before anything has a place: networks, VMs, what is open,
states.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from vnet.picture import copies
from vnet.picture.alike import MANY, Kin, Openings, kins
from vnet.picture.beyond import Kind, Lead, Place, leads, places
from vnet.picture.views import GroupBy, View
from vnet.policy.compile import Compiled
from vnet.topology.inventory import Inventory, Nic
from vnet.topology.model import Network, Topology


class State(StrEnum):
    """How a VM is, in the order in which the worst of several is told."""

    CRASHED = "crashed"
    NOT_ENFORCED = "not enforced"
    DROPPING = "dropping"
    STARTING = "starting"
    STOPPING = "stopping"
    STOPPED = "stopped"
    RUNNING = "running"
    READY = "ready"


MANY_BANDS = 16
"""Above so many networks and sets of them, networks have no lines that join their bands."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """How to draw. `expand` draws each VM; else those alike are drawn as one if there are many."""

    view: View = View.BOTH
    group_by: GroupBy | None = None
    """None: what suits the view."""
    expand: bool = False

    def grouping(self, bands: int) -> GroupBy:
        """By network where these are shown, unless openings would lead across too many of them."""
        if self.group_by is not None:
            return self.group_by
        too_many = self.view is View.BOTH and bands > MANY_BANDS
        return GroupBy.NONE if self.view is View.POLICY or too_many else GroupBy.NETWORK


@dataclass(frozen=True, slots=True)
class Sign:
    """A network: its name, its place in the file, then VLAN, subnets and what is special."""

    name: str
    number: int
    lines: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Line:
    """One NIC of a box: its name, its network, its addresses in words."""

    nic: str
    network: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Box:
    """One VM, or `count` that are alike; a router; a way to the outside.

    `states` says how many are in which state, empty for a mere file.
    """

    key: str
    name: str
    count: int
    lines: tuple[Line, ...]
    groups: tuple[str, ...]
    networks: tuple[str, ...]
    members: tuple[str, ...]
    copies: tuple[str, ...] = ()
    """What mirrors do with its NICs."""
    states: Mapping[State, int] = field(default_factory=dict)
    kind: Kind = Kind.VM
    about: tuple[str, ...] = ()
    """Of what is no VM: what it is."""

    @property
    def state(self) -> State | None:
        """The worst there is."""
        return next((state for state in State if self.states.get(state)), None)


@dataclass(frozen=True, slots=True)
class Gate:
    """An opening that several share: each source may open `ports` to each target, but not to itself.

    Sources and targets are keys of boxes; some may be both.
    """

    key: str
    ports: str
    is_all: bool
    sources: tuple[str, ...]
    targets: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Scene:
    """All that is shown."""

    title: str
    subtitle: str
    signs: tuple[Sign, ...]
    boxes: tuple[Box, ...]
    gates: tuple[Gate, ...]
    view: View
    grouping: GroupBy
    is_live: bool = False


def scene(
    topology: Topology,
    inventory: Inventory,
    compiled: Compiled,
    wanted: Wanted,
    states: Mapping[str, State] | None = None,
) -> Scene:
    """The scene of a fabric.

    Args:
        states: of each VM by name, None for a mere file.
    """
    merge = not wanted.expand and len(inventory.vms) > MANY
    found = kins(topology, inventory, compiled, merge)
    boxes = tuple(_box(topology, kin, f"v{number}", states or {}) for number, kin in enumerate(found, 1))
    gates = (
        () if wanted.view is View.NETWORKS else tuple(_gates(found, Openings(topology, inventory, compiled)))
    )
    signs = tuple(_sign(topology, net, number) for number, net in enumerate(topology.networks.values()))
    subtitle = _subtitle(topology, inventory, boxes, wanted, gates)
    boxes, gates = _with_the_world(topology, boxes, gates, _keys(found), wanted.view)
    return Scene(
        topology.name,
        subtitle,
        () if wanted.view is View.POLICY else signs,
        boxes,
        gates,
        wanted.view,
        wanted.grouping(bands(topology.networks, boxes)),
        states is not None,
    )


def bands(networks: Collection[object], boxes: Iterable[Box]) -> int:
    """How many bands there would be: one for each network, and for each set of networks that VMs are on."""
    return len(networks) + len({frozenset(box.networks) for box in boxes if len(set(box.networks)) > 1})


def _subtitle(
    topology: Topology, inventory: Inventory, boxes: Sequence[Box], wanted: Wanted, gates: Sequence[Gate]
) -> str:
    """What there is, and what the picture leaves out."""
    told = [_counted(len(topology.networks), "network"), _counted(len(inventory.vms), "VM")]
    if len(boxes) < len(inventory.vms):
        told[-1] += " (those alike drawn as one)"
    if topology.routers:
        told.append(_counted(len(topology.routers), "router"))
    if wanted.view is not View.NETWORKS:
        told.append("an arrow: may open connections" if gates else "nothing is open between any two")
    return " · ".join(told)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


def _sign(topology: Topology, network: Network, number: int) -> Sign:
    special = [
        word for word, told in (("isolated", network.is_isolated), ("internal", network.is_internal)) if told
    ]
    lines = f"VLAN {network.vlan}", *map(str, network.subnets), *special
    return Sign(network.name, number, (*lines, *copies.of_network(topology, network.name)))


def _box(topology: Topology, kin: Kin, key: str, states: Mapping[str, State]) -> Box:
    first = kin.vms[0]
    nics = zip(*(vm.nics for vm in kin.vms), strict=False)
    return Box(
        key,
        kin.name,
        kin.count,
        tuple(map(_line, nics)),
        tuple(sorted(first.groups)),
        tuple(dict.fromkeys(nic.network for nic in first.nics)),
        tuple(vm.name for vm in kin.vms),
        copies.of_vms(topology, kin.vms),
        _counted_states(states[vm.name] for vm in kin.vms if vm.name in states),
    )


def _counted_states(states: Iterable[State]) -> Mapping[State, int]:
    """How many are in each, the worst first."""
    counts = Counter(states)
    return {state: counts[state] for state in State if counts[state]}


def _line(nics: tuple[Nic, ...]) -> Line:
    """A NIC, or the same NIC of several VMs: their first and last address."""
    first, last = nics[0], nics[-1]
    if len(nics) == 1:
        return Line(first.interface, first.network, tuple(str(address.ip) for address in first.addresses))
    ends = zip(first.addresses, last.addresses, strict=False)
    return Line(first.interface, first.network, tuple(f"{one.ip} … {other.ip}" for one, other in ends))


# ---- routers, and what is outside ------------------------------------------------------------

Keys = dict[tuple[Kind, str], tuple[str, ...]]
"""The boxes of what has a name in the file."""


def _keys(found: Sequence[Kin]) -> Keys:
    """Those of VMs: replicas may have one box or several."""
    keys: dict[tuple[Kind, str], list[str]] = defaultdict(list)
    for number, kin in enumerate(found):
        for spec in dict.fromkeys(vm.spec for vm in kin.vms):
            keys[Kind.VM, spec].append(_key(number))
    return {name: tuple(those) for name, those in keys.items()}


def _with_the_world(
    topology: Topology, boxes: tuple[Box, ...], gates: tuple[Gate, ...], keys: Keys, view: View
) -> tuple[tuple[Box, ...], tuple[Gate, ...]]:
    """The same with routers and the outside. Where no networks are shown, only with what is let in."""
    shown = [
        lead
        for lead in leads(topology)
        if view is View.BOTH or (lead.target[0] is Kind.VM) == (view is View.POLICY)
    ]
    met = {end for lead in shown for end in (lead.source, lead.target)}
    there = list(boxes)
    for place in places(topology):
        if view is not View.POLICY or (place.kind, place.name) in met:
            there.append(_place_box(topology, place, f"v{len(there) + 1}"))
            keys[place.kind, place.name] = (there[-1].key,)
    first = len(gates) + 1
    led = (_lead_gate(f"g{number}", lead, keys) for number, lead in enumerate(shown, first))
    return tuple(there), (*gates, *led)


def _place_box(topology: Topology, place: Place, key: str) -> Box:
    lines = tuple(
        Line("", name, tuple(str(gateway) for gateway in _gateways(topology.networks[name])))
        for name in place.networks
        if place.kind is Kind.ROUTER
    )
    return Box(
        key, place.name, 1, lines, (), place.networks, (place.name,), kind=place.kind, about=place.about
    )


def _gateways(network: Network) -> Iterator[object]:
    return filter(None, (network.gateway(subnet) for subnet in network.subnets))


def _lead_gate(key: str, lead: Lead, keys: Keys) -> Gate:
    sources, targets = keys[lead.source], keys[lead.target]
    both = (*sources, *targets) if lead.both else ()
    return Gate(key, lead.words, False, both or sources, both or targets)


# ---- what is open, said in few gates ---------------------------------------------------------

Pair = tuple[int, int]


def _gates(found: Sequence[Kin], openings: Openings) -> Iterator[Gate]:
    by_ports: dict[tuple[str, bool], set[Pair]] = defaultdict(set)
    for one, source in enumerate(found):
        for other, target in enumerate(found):
            opening = openings.between(source, target)
            if opening.is_open:
                by_ports[opening.ports, opening.is_all].add((one, other))
    singles = {number for number, kin in enumerate(found) if kin.count == 1}
    shared = (
        (sources, targets, ports)
        for ports, pairs in by_ports.items()
        for sources, targets in gathered(pairs, singles)
    )
    for number, (sources, targets, (ports, is_all)) in enumerate(sorted(shared), 1):
        yield Gate(f"g{number}", ports, is_all, tuple(map(_key, sources)), tuple(map(_key, targets)))


def _key(number: int) -> str:
    return f"v{number + 1}"


Shared = list[tuple[tuple[int, ...], tuple[int, ...]]]
"""Sources and targets: every one of the first may reach every one of the second."""


def gathered(pairs: Iterable[Pair], singles: Iterable[int]) -> Shared:
    """Pairs as few sets of sources and targets: of four ways to do it the one with the fewest lines.

    Nobody opens connections to himself, so for `singles` it does not matter whether such a pair is among
    them: that lets "each to all others" be one set.
    """
    pairs = set(pairs)
    met = {one for pair in pairs for one in pair}
    with_selves = pairs | {(one, one) for one in singles if one in met}
    ways = [
        _without_idle(way, pairs)
        for way in (_by_source(pairs), _by_target(pairs), _by_source(with_selves), _by_target(with_selves))
    ]
    return min(ways, key=lambda way: sum(len(sources) + len(targets) + 1 for sources, targets in way))


def _by_source(pairs: set[Pair]) -> Shared:
    targets: dict[int, list[int]] = defaultdict(list)
    for source, target in sorted(pairs):
        targets[source].append(target)
    together: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for source, those in targets.items():
        together[tuple(those)].append(source)
    return [(tuple(sources), those) for those, sources in together.items()]


def _by_target(pairs: set[Pair]) -> Shared:
    turned = _by_source({(target, source) for source, target in pairs})
    return [(sources, targets) for targets, sources in turned]


def _without_idle(way: Shared, pairs: set[Pair]) -> Shared:
    """Without ends that stand for nobody but themselves."""
    found = []
    for sources, targets in way:
        out = tuple(one for one in sources if any((one, other) in pairs for other in targets))
        into = tuple(other for other in targets if any((one, other) in pairs for one in sources))
        if out and into:
            found.append((out, into))
    return found
