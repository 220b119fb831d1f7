"""The concrete VMs and NICs of a topology: replicas expanded, MACs, addresses and ports allocated.

`expand(topology, previous)` is pure: what `previous` assigned to a NIC that still exists is kept, so
a NIC never changes its port number, MAC or address because another one came or went.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from vnet.base.source import Location
from vnet.topology.model import IPInterface


@dataclass(frozen=True, slots=True)
class Assignment:
    """What one NIC got: OpenFlow port number (1…), MAC (48-bit integer), addresses."""

    port: int
    mac: int
    addresses: tuple[IPInterface, ...]


@dataclass(frozen=True, slots=True)
class Nic:
    """One NIC of one VM. `name` is `VM.INTERFACE` (`web-1.eth0`), unique in the fabric."""

    name: str
    vm: str
    interface: str
    network: str
    vlan: int
    port: int
    mac: int
    addresses: tuple[IPInterface, ...]
    at: Location


@dataclass(frozen=True, slots=True)
class Vm:
    """One VM to run. `spec` is the name it was declared under (`web` for the replica `web-1`).

    `groups` holds the groups it lists and those whose labels it carries.
    """

    name: str
    spec: str
    image: str
    cpus: int
    memory_bytes: int
    nics: tuple[Nic, ...]
    groups: frozenset[str]
    at: Location


@dataclass(frozen=True, slots=True)
class Inventory:
    """All VMs of a fabric, in file order."""

    fabric: str
    vms: tuple[Vm, ...]
    assignments: Mapping[str, Assignment] = field(default_factory=dict)
    """By NIC name; what to hand to the next `expand` as `previous`."""

    @property
    def nics(self) -> tuple[Nic, ...]:
        """Every NIC of every VM, in file order."""
        return tuple(nic for vm in self.vms for nic in vm.nics)
