"""What joins the networks of a fabric with each other and the world: routers, uplinks, published ports."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from vnet.base.protocols import protocol_name
from vnet.topology.model import HOST_UPLINK, Published, Router, Topology, Uplink, VmSpec


class Kind(StrEnum):
    """What a box stands for."""

    VM = "vm"
    ROUTER = "router"
    OUTSIDE = "outside"


@dataclass(frozen=True, slots=True)
class Place:
    """A router, or a way to the outside. `about` are words on it; `networks` are those it is on."""

    kind: Kind
    name: str
    about: tuple[str, ...]
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Lead:
    """What leads from one place to another, or to the VMs of a name in the file; `both`: and back."""

    source: tuple[Kind, str]
    target: tuple[Kind, str]
    words: str
    both: bool = False


def places(topology: Topology) -> Iterator[Place]:
    """Routers first, then what is outside."""
    for router in topology.routers.values():
        yield Place(Kind.ROUTER, router.name, tuple(_of_router(router)), router.networks)
    if any(router.uplink == HOST_UPLINK for router in topology.routers.values()):
        yield Place(Kind.OUTSIDE, HOST_UPLINK, ("this host, and the internet behind it",))
    for uplink in topology.uplinks.values():
        yield Place(Kind.OUTSIDE, uplink.name, tuple(_of_uplink(uplink)), uplink.networks)


def leads(topology: Topology) -> Iterator[Lead]:
    """What routers send out, and what is let in."""
    for router in topology.routers.values():
        if router.uplink:
            words = "masquerade" if router.masquerades else "routed, no NAT"
            way = (Kind.ROUTER, router.name), (Kind.OUTSIDE, router.uplink)
            yield Lead(*way, words, both=not router.masquerades)
    for vm in topology.vms.values():
        yield from _into(topology, vm)


def _of_router(router: Router) -> Iterator[str]:
    yield "router"
    yield from (f"{route.to} via {route.via}" for route in router.routes)


def _of_uplink(uplink: Uplink) -> Iterator[str]:
    yield f"uplink {uplink.interface}" + (f", {uplink.mode.value}" if uplink.networks else "")
    yield from map(str, uplink.addresses)
    yield from (f"gateway {gateway}" for gateway in uplink.gateways)


def _into(topology: Topology, vm: VmSpec) -> Iterator[Lead]:
    """What is published or floats, from the uplink of the first router that leads to the VM."""
    networks = {interface.network for interface in vm.interfaces}
    routers = (router for router in topology.routers.values() if router.uplink)
    near = next((router for router in routers if networks & set(router.networks)), None)
    if near is None:
        return
    way = (Kind.OUTSIDE, near.uplink), (Kind.VM, vm.name)
    if vm.ports:
        yield Lead(*way, ", ".join(map(_published, vm.ports)))
    if vm.floating:
        yield Lead(*way, f"floating {', '.join(map(str, vm.floating))}", both=True)


def _published(port: Published) -> str:
    listen = f"[{port.listen}]" if port.listen.version == 6 else str(port.listen)
    return f"{listen}:{port.port}→{port.guest_port}/{protocol_name(port.protocol)}"
