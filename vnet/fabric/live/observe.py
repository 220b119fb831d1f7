"""What is there now, as a `State`: asked of the kernel, the switch and the guests, never of memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.cable import LinkState
from vnet.fabric.live.parts import Parts
from vnet.fabric.state import (
    HOSTS_OWN,
    Attached,
    Cable,
    Guest,
    Port,
    State,
    cable_remnant,
    endpoint_remnant,
    gateway_remnant,
    ifname,
    remnant,
)
from vnet.fabric.store import Record, Store
from vnet.hv.spec import GuestState
from vnet.topology.endpoints import NIC

TAP_KIND = "tun"
ALIVE = {GuestState.STARTING, GuestState.RUNNING, GuestState.PAUSED, GuestState.STOPPING}


async def observe(parts: Parts, record: Record | None, store: Store, name: str) -> State:
    """The fabric as it is.

    `record` is None for a fabric that this host does not know: then nothing of that name may exist.

    Raises: HostError for things of another owner that stand in the way.
    """
    there = await parts.network.exists()
    if record is None:
        if there:
            raise HostError(_foreign_namespace(name))
        return State()
    switch = there and await parts.switch.exists()
    if switch:
        await parts.switch.open()
    interfaces = dict(await parts.network.interfaces()) if there else {}
    cables, links = await parts.cables.observed(), await parts.cables.links()
    missing = {cable.port.number: cable for cable in cables if links.get(cable.uplink) is LinkState.MISSING}
    attached = _as_put(await parts.switch.ports(), cables, missing) if switch else frozenset()
    flows = await parts.switch.flows() if switch else frozenset()
    ports = _known_ports(record, attached, interfaces)
    mirrors = await parts.switch.mirrors() if switch else frozenset()
    return State(
        namespace=there,
        switch=switch,
        ports=ports,
        attached=attached,
        flows=flows,
        guests=await running(parts, store, name),
        mirrors=mirrors,
        services=await parts.services.observed(),
        gateways=await parts.gateways.observed(),
        cables=cables,
        endpoints=await parts.endpoints.observed(),
    )


def _as_put(
    attached: frozenset[Attached], cables: frozenset[Cable], missing: Mapping[int, Cable]
) -> frozenset[Attached]:
    """What is in the switch; the MTU of a cable is not the fabric's, and the port of an interface that is
    missing waits for it under its own name."""
    numbers = {cable.port.number for cable in cables}
    ours = (replace(each, mtu_bytes=HOSTS_OWN) if each.port.number in numbers else each for each in attached)
    return frozenset(
        replace(each, port=missing[each.port.number].port) if each.port.number in missing else each
        for each in ours
    )


def _known_ports(
    record: Record, attached: frozenset[Attached], interfaces: Mapping[str, str]
) -> frozenset[Port]:
    """The TAPs that are there, each with the port number it has or was assigned.

    A TAP nobody can give a number to gets 0: it is nobody's port, so a plan removes it.
    """
    assigned = {ifname(nic): given.port for nic, given in record.assignments.items()}
    plugged = {each.port.ifname: each.port.number for each in attached}
    taps = (name for name, kind in interfaces.items() if kind == TAP_KIND)
    return frozenset(Port(plugged.get(name) or assigned.get(name, 0), name) for name in taps)


async def remains(parts: Parts, store: Store, name: str) -> State:
    """What is there to be removed; unlike `observe` it does not need a switch that can be read."""
    there, switch = await parts.network.exists(), await parts.switch.exists()
    interfaces = await parts.network.interfaces() if there else {}
    taps = frozenset(Port(0, ifname) for ifname, kind in interfaces.items() if kind == TAP_KIND)
    services = frozenset(remnant(network) for network in await parts.services.networks())
    gateways = frozenset(gateway_remnant(router) for router in await parts.gateways.routers())
    cables = frozenset(map(cable_remnant, await parts.cables.uplinks()))
    endpoints = frozenset(map(endpoint_remnant, await parts.endpoints.names()))
    return State(
        there,
        switch,
        taps,
        guests=await running(parts, store, name),
        services=services,
        gateways=gateways,
        cables=cables,
        endpoints=endpoints,
    )


async def running(parts: Parts, store: Store, name: str) -> frozenset[Guest]:
    """The guests whose process lives, as they were started and have been changed since."""
    found = [(guest, await parts.guests.status(guest.name)) for guest in store.guests(name)]
    return frozenset(replace(guest, built=how.built) for guest, how in found if how.state in ALIVE)


async def suspended(parts: Parts, store: Store, name: str) -> frozenset[str]:
    """The names of the guests whose memory is kept."""
    found = {guest.name: await parts.guests.status(guest.name) for guest in store.guests(name)}
    return frozenset(name for name, how in found.items() if how.state is GuestState.SUSPENDED)


def foreign(now: State, wanted: State, interfaces: Mapping[str, str]) -> tuple[str, ...]:
    """Interfaces that are not TAPs of ours but have a name that a wanted port needs.

    Those of endpoints make room for VMs that have their names.
    """
    leaving = {ifname(f"{endpoint.name}.{NIC}") for endpoint in now.endpoints}
    names = {port.ifname for port in wanted.ports} - leaving
    return tuple(sorted(name for name, kind in interfaces.items() if name in names and kind != TAP_KIND))


def _foreign_namespace(name: str) -> str:
    netns = paths.netns(name)
    return (
        f"a network namespace {netns} is already there and was not made for a fabric of this host's vnet; "
        f"give the fabric another name, or, if nobody needs it, remove it with `ip netns delete {netns}`"
    )
