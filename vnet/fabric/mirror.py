"""Mirrors as the fabric carries them out: which ports are copied, at which points, and where to."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.capture.record import AT_UPLINKS, Point
from vnet.topology import model
from vnet.topology.inventory import Inventory, mirror_key
from vnet.topology.model import (
    MirrorDirection,
    MirrorNetwork,
    MirrorNic,
    MirrorSource,
    MirrorUplink,
    ToErspan,
    ToFile,
    Topology,
    ToVxlan,
)

Target = MirrorNic | ToFile | ToVxlan | ToErspan
TUNNEL = "+"
"""The interface of a mirror to another machine begins so: no NIC's does."""


@dataclass(frozen=True, slots=True)
class Mirror:
    """One mirror. `to_port` is the port that copies go to, 0 for a file.

    `ports` are those of NICs, or of an uplink: `points` say which.
    """

    name: str
    source: str
    direction: str
    ports: tuple[int, ...]
    points: tuple[Point, ...]
    filter: str
    snaplen_bytes: int
    to: Target
    to_port: int = 0

    def __str__(self) -> str:
        packets = f'"{self.filter}" ' if self.filter else ""
        reaches = "what comes in by " if self.is_of_uplink else "what reaches "
        side = {"in": reaches, "out": "what leaves ", "both": ""}[self.direction]
        return f"{packets}{side}{self.source} to {target_text(self.to)}"

    @property
    def is_of_uplink(self) -> bool:
        """Whether it copies what comes in and leaves by an uplink."""
        return bool({*AT_UPLINKS} & {*self.points})


def target_text(to: Target) -> str:
    """A target as the file has it."""
    return f"{to.vm}:{to.interface}" if isinstance(to, MirrorNic) else str(to)


def mirrors_of(topology: Topology, inventory: Inventory) -> frozenset[Mirror]:
    """The mirrors that a topology declares, with the ports that its NICs have."""
    return frozenset(_mirror(each, inventory) for each in topology.mirrors)


def _mirror(declared: model.Mirror, inventory: Inventory) -> Mirror:
    return Mirror(
        declared.name,
        _source_text(declared.source),
        declared.direction.value,
        tuple(sorted(_ports(declared.source, inventory))),
        _points(declared.direction, declared.source),
        declared.filter,
        declared.snaplen_bytes,
        declared.to,
        _to_port(declared, inventory),
    )


def _source_text(source: MirrorSource) -> str:
    match source:
        case MirrorNetwork(name):
            return f"network:{name}"
        case MirrorUplink(name):
            return f"uplink:{name}"
        case MirrorNic(vm, interface):
            return f"{vm}:{interface}"


def _ports(source: MirrorSource, inventory: Inventory) -> frozenset[int]:
    if isinstance(source, MirrorUplink):
        return frozenset(each.port for each in inventory.uplinks if each.uplink == source.name)
    if isinstance(source, MirrorNetwork):
        return frozenset(nic.port for nic in inventory.nics if nic.network == source.name)
    meant = {vm.name for vm in inventory.vms if source.vm in (vm.name, vm.spec)}
    return frozenset(
        nic.port for nic in inventory.nics if nic.vm in meant and nic.interface == source.interface
    )


def _points(direction: MirrorDirection, source: MirrorSource) -> tuple[Point, ...]:
    """What is handed to a NIC of a network was sent by another of it, so `both` is what they send, once."""
    if isinstance(source, MirrorUplink):
        one_way = {MirrorDirection.IN: AT_UPLINKS[:1], MirrorDirection.OUT: AT_UPLINKS[1:]}
        return one_way.get(direction, AT_UPLINKS)
    if direction is MirrorDirection.IN:
        return (Point.DELIVERED,)
    if direction is MirrorDirection.OUT or isinstance(source, MirrorNetwork):
        return (Point.GUEST,)
    return (Point.GUEST, Point.DELIVERED)


def _to_port(declared: model.Mirror, inventory: Inventory) -> int:
    to = declared.to
    if isinstance(to, ToFile):
        return 0
    if isinstance(to, MirrorNic):
        name = f"{to.vm}.{to.interface}"
        return next(each.port for each in inventory.listeners if each.name == name)
    return inventory.assignments[mirror_key(declared.name)].port
