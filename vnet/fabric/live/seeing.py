"""Questions about what fabrics do now: who talks to whom, which address is where."""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from vnet.base.errors import HostError, InputError
from vnet.fabric import fdb
from vnet.fabric import leases as leasing
from vnet.fabric.declared import Declared
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.tracked import Best, Wanted
from vnet.fabric.who import Directory
from vnet.topology.inventory import Nic

Json = Mapping[str, Any]
UPLINK_PREFIX = "uplink:"


def declared_of(fabric: Fabric) -> Declared:
    """What the fabric declares. Raises HostError when that could not be read again."""
    if fabric.declared is None:
        raise HostError(f"the topology of {fabric.record.name} could not be read again: {fabric.trouble}")
    return fabric.declared


def is_known(declared: Declared, name: str) -> bool:
    """Whether a VM or a NIC has a name."""
    inventory = declared.inventory
    return name in {vm.name for vm in inventory.vms} | {nic.name for nic in inventory.nics}


def refuse_unknown(declared: Declared, *wanted: str | None) -> None:
    """Raises InputError for a name that neither a VM nor a NIC has."""
    for name in wanted:
        if name is not None and not is_known(declared, name):
            vms = ", ".join(sorted(vm.name for vm in declared.inventory.vms))
            raise InputError(f"there is no VM or NIC {name}; VMs: {vms}")


def nics_of(declared: Declared, names: tuple[str, ...]) -> tuple[Nic, ...]:
    """The NICs named `VM` or `VM.INTERFACE`; all of the fabric when none is named. Raises InputError."""
    nics = declared.inventory.nics
    meant = {name: [nic for nic in nics if name.replace(":", ".") in (nic.name, nic.vm)] for name in names}
    for name, found in meant.items():
        if not found:
            known = ", ".join(nic.name for nic in nics)
            raise InputError(
                f"there is no VM or NIC {name} in fabric {declared.topology.name}; its NICs: {known}"
            )
    wanted = {nic.port for found in meant.values() for nic in found}
    return tuple(nic for nic in nics if nic.port in wanted) if names else nics


def uplink_ports(declared: Declared, names: tuple[str, ...]) -> frozenset[int]:
    """The ports by which packets leave, of the uplinks named `uplink:NAME`; all if none is named.

    `uplink:host` are those of all routers whose way out is the host. Raises InputError.
    """
    ports: dict[str, set[int]] = defaultdict(set)
    inventory = declared.inventory
    pairs = [(each.uplink, each.port) for each in inventory.uplinks]
    pairs += [(each.uplink, each.port) for each in inventory.exits]
    for uplink, port in pairs:
        ports[f"{UPLINK_PREFIX}{uplink}"].add(port)
    if not ports:
        raise InputError(f"the fabric {declared.topology.name} has no uplink: `uplinks` declares one")
    for name in names:
        if name not in ports:
            raise InputError(
                f"there is no uplink {name.removeprefix(UPLINK_PREFIX)} in fabric {declared.topology.name}; "
                f"its uplinks: {', '.join(sorted(ports))}"
            )
    return frozenset(port for name in names or ports for port in ports[name])


def refuse_unknown_network(declared: Declared, network: str | None) -> None:
    """Raises InputError for a network that is not declared."""
    known = declared.topology.networks
    if network is not None and network not in known:
        raise InputError(
            f"there is no network {network} in fabric {declared.topology.name}; its networks: "
            f"{', '.join(sorted(known))}"
        )


async def connections(registry: Registry, name: str, wanted: Wanted) -> Json:
    """The connections that the switch tracks, read by parts: a full table holds nobody up."""
    fabric = registry.fabric(name)
    declared = declared_of(fabric)
    refuse_unknown(declared, wanted.who, wanted.to)
    directory = await asyncio.to_thread(Directory, declared)
    best = Best(wanted, directory, time.monotonic_ns())
    async for first, values in fabric.parts.switch.slots():
        await asyncio.to_thread(best.take, first, values)
    return await asyncio.to_thread(best.plain)


async def addresses(registry: Registry, name: str, network: str | None) -> list[Json]:
    """The MAC table. Raises InputError for an unknown network."""
    fabric = registry.fabric(name)
    declared = declared_of(fabric)
    refuse_unknown_network(declared, network)
    learnt = await fabric.parts.switch.learnt()
    directory = await asyncio.to_thread(Directory, declared)
    return fdb.rows(declared, directory, learnt, network, time.monotonic_ns())


async def leases(registry: Registry, name: str, network: str | None) -> list[Json]:
    """Whose each IP address is. Raises InputError for an unknown network."""
    fabric = registry.fabric(name)
    declared = declared_of(fabric)
    refuse_unknown_network(declared, network)
    return leasing.rows(declared, network, await fabric.parts.services.leases())
