"""The topology that comes of others' files: networks and VMs as they are found, and what was left out.

Networks get a VLAN and a subnet where their file gives none. Elsewhere who is on a network may talk to all
who are on it, and to nobody on another: that is a policy for each network, in the tier `baseline`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network, ip_network
from typing import Any

from vnet.base.boot import MICRO
from vnet.base.source import Location
from vnet.topology.language import FABRIC_NAME_MAX, VM_NAME_MAX
from vnet.topology.language_networks import VLAN_MAX
from vnet.topology.language_vms import MICRO_MEMORY_MIN
from vnet.topology.model import IPNetwork
from vnet.topology.names import Names
from vnet.topology.values import NAME_MAX

Plain = dict[str, Any]
LEFT_OUT, NOTES = "x-left-out", "x-notes"
NOTHING_LIKE_IT = "there is nothing like it here"
"""Why most that has no counterpart is left out."""
ROUTER = "gateway"
_MICRO_MEMORY_BYTES = 96 << 20
_NETWORK_NAME_MAX = NAME_MAX - len("within-")
_CHOSEN = IPv4Network("10.64.0.0/10")
"""Where subnets lie that no file gives: each has a /24 of it."""


@dataclass(slots=True)
class Network:
    """A network of a file that is read, as far as it is known; `way_out`: it leads out of the host."""

    name: str
    vlan: int | None = None
    subnets: list[Plain] = field(default_factory=list)
    extra: Plain = field(default_factory=dict)
    has_dhcp: bool = False
    way_out: bool = False

    @property
    def cidrs(self) -> tuple[IPNetwork, ...]:
        return tuple(ip_network(each["cidr"]) for each in self.subnets)


@dataclass(slots=True)
class Vm:
    """A VM: its keys as the language has them, but for its image and interfaces."""

    name: str
    at: Location
    keys: Plain
    interfaces: dict[str, Plain] = field(default_factory=dict)
    image: Plain | None = None
    """None for the micro guest."""


class Sheet:
    """Collects what is found. Networks and VMs are asked for by the names that their own files have."""

    def __init__(self) -> None:
        self._network_names = Names(_NETWORK_NAME_MAX)
        self._vm_names = Names(VM_NAME_MAX)
        self._networks: dict[str, Network] = {}
        self._vms: dict[str, Vm] = {}
        self._left_out: dict[str, str] = {}
        self._notes: dict[str, str] = {}
        self.policies: list[Plain] = []

    def network(self, name: str, wanted: str = "") -> Network:
        """The network of that name, begun if it is new; `wanted` is what it is to be called here."""
        if name not in self._networks:
            self._networks[name] = Network(self._network_names.fresh(wanted or name))
        return self._networks[name]

    def vm(self, name: str, at: Location) -> Vm:
        """A new VM; two of one name get two names."""
        called = self._vm_names.fresh(name)
        vm = self._vms[called] = Vm(called, at, {"x-source": str(at)})
        if called != name:
            vm.keys["x-name"] = name
        return vm

    def leave_out(self, what: str, at: Location, why: str) -> None:
        """Says of something that has no counterpart why; the first of equal names stands."""
        self._left_out.setdefault(what, f"{at.file}:{at.line}: {why}")

    def note(self, what: str, at: Location, text: str) -> None:
        """Says of something that was taken over what to look at."""
        self._notes.setdefault(what, f"{at.file}:{at.line}: {text}")

    @property
    def vms(self) -> Mapping[str, Vm]:
        return self._vms

    @property
    def networks(self) -> Sequence[Network]:
        return tuple(self._networks.values())

    def document(self, fabric: str) -> Plain:
        """The topology; empty parts are left out."""
        used = {nic["network"] for vm in self._vms.values() for nic in vm.interfaces.values()}
        networks = [each for each in self._networks.values() if each.name in used]
        self._number(networks)
        self._place(networks)
        images: Plain = {}
        vms = {name: self._vm(vm, images) for name, vm in self._vms.items()}
        out = [each.name for each in networks if each.way_out]
        router = {ROUTER: {"networks": out, "uplink": "host", "nat": "masquerade"}} if out else {}
        document: Plain = {
            "name": Names(FABRIC_NAME_MAX).fresh(fabric),
            "images": images,
            "networks": {each.name: _network(each) for each in networks},
            "routers": router,
            "vms": vms,
            "policies": [*map(_within, networks), *self.policies],
        }
        told: Plain = {NOTES: self._notes, LEFT_OUT: self._left_out}
        return {key: value for key, value in {**_escaped(document), **told}.items() if value}

    # -- VLANs and subnets that no file gives

    def _number(self, networks: Sequence[Network]) -> None:
        taken: set[int] = set()
        for each in networks:
            if each.vlan in taken:
                each.vlan = None  # two bridges may carry the same tag; here a VLAN is one network
            elif each.vlan is not None:
                taken.add(each.vlan)
        free = (vlan for vlan in _vlans() if vlan not in taken)
        for each in networks:
            each.vlan = next(free) if each.vlan is None else each.vlan

    def _place(self, networks: Sequence[Network]) -> None:
        taken = [cidr for each in networks for cidr in each.cidrs]
        for each in networks:
            if not each.subnets:
                cidr = next(c for c in _CHOSEN.subnets(new_prefix=24) if not any(map(c.overlaps, taken)))
                taken.append(cidr)
                each.subnets = [{"cidr": str(cidr), **({"dhcp": True} if each.has_dhcp else {})}]

    # -- VMs

    def _vm(self, vm: Vm, images: Plain) -> Plain:
        keys = dict(vm.keys)
        if vm.image is not None:
            name = next((name for name, each in images.items() if each == vm.image), None)
            if name is None:
                name = Names(NAME_MAX, taken=(MICRO, *images)).fresh(vm.name)
                images[name] = vm.image
            keys["image"] = name
        elif "boot" not in keys:
            self._enough(vm, keys)
        if vm.interfaces:
            keys["interfaces"] = vm.interfaces
        else:
            keys["networks"] = []
        return keys

    def _enough(self, vm: Vm, keys: Plain) -> None:
        given = keys.get("memory")
        if isinstance(given, str) and int(given[:-1]) << 20 < MICRO_MEMORY_MIN:
            keys["memory"] = memory(_MICRO_MEMORY_BYTES)
            self.note(f"{vm.name}.memory", vm.at, f"{given} is too little for the micro guest")


def _within(network: Network) -> Plain:
    who = f"network:{network.name}"
    return {
        "name": f"within-{network.name}",
        "tier": "baseline",
        "applied_to": who,
        "ingress": [{"from": who}],
    }


def _escaped(value: Any) -> Any:
    """The same where a dollar sign begins a variable."""
    match value:
        case str():
            return value.replace("$", "$$")
        case dict():
            return {key: _escaped(each) for key, each in value.items()}
        case list():
            return [_escaped(each) for each in value]
        case _:
            return value


def _network(network: Network) -> Plain:
    subnets = [each["cidr"] if each.keys() == {"cidr"} else each for each in network.subnets]
    return {"vlan": network.vlan, "subnets": subnets[0] if len(subnets) == 1 else subnets, **network.extra}


def _vlans() -> Iterator[int]:
    yield from range(10, VLAN_MAX + 1, 10)
    yield from (vlan for vlan in range(1, VLAN_MAX + 1) if vlan % 10)


def memory(size_bytes: int) -> str:
    """An amount of memory as the language has it, in whole MiB, rounded up."""
    return f"{max(1, -(-size_bytes >> 20))}M"
