"""Whether this host has what a fabric asks of it: room beside guests that run and stay, ways to delay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from vnet.base.errors import AdmissionError
from vnet.base.line import UNIMPAIRED
from vnet.fabric.live.observe import running
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host, Registry
from vnet.fabric.state import Guest, State
from vnet.hv.admission import Commitment, admit, admit_disks, admit_vcpus, by_file_system
from vnet.topology.inventory import Inventory, Nic


async def refuse_what_does_not_fit(
    registry: Registry, name: str, parts: Parts, now: frozenset[Guest], wanted: State
) -> None:
    """Raises AdmissionError when the guests of `wanted` that are not in `now` lack CPUs, memory or disk."""
    asked = sorted(wanted.guests - now)
    if not asked:
        return
    stay = [(parts, guest) for guest in now & wanted.guests]
    others = (other for other in registry.fabrics if other != name)
    stay += [each for other in others for each in await _guests(registry, other)]
    host, running_vcpus = registry.host, sum(guest.cpus for _, guest in stay)
    admit_vcpus([(each.name, each.cpus) for each in asked], running_vcpus, host.cpus(), host.vcpus_per_cpu())
    leave = [await parts.guests.status(guest.name) for guest in now - wanted.guests]
    available = host.available_memory_bytes() + sum(status.resident_bytes for status in leave)
    committed = [await _commitment(*each) for each in stay]
    admit([(guest.name, guest.memory_bytes) for guest in asked], committed, available)
    await asyncio.to_thread(_refuse_disks, host, name, asked)


def _refuse_disks(host: Host, fabric: str, asked: Sequence[Guest]) -> None:
    missing = (
        (disk.location, f"{guest.name}/{disk.name}", host.missing_disk_bytes(fabric, guest.name, disk))
        for guest in asked
        for disk in guest.disks
    )
    taking = ((host.disk_room(location), name, size) for location, name, size in missing if size)
    for room, disks in by_file_system(taking):
        admit_disks(disks, room)


def refuse_lines_without_queues(inventory: Inventory, has_queue: Callable[[str], bool]) -> None:
    """Raises AdmissionError when NICs have rates or impairments that this kernel cannot give them."""
    limited = [nic for nic in inventory.nics if nic.line.inward.bps or nic.line.outward.bps]
    impaired = [nic for nic in inventory.nics if nic.line.impairment != UNIMPAIRED]
    for nics, key, kind in ((limited, "rate", "tbf"), (impaired, "impair", "netem")):
        if nics and not has_queue(kind):
            raise AdmissionError(_lacks(nics, key, kind))


def _lacks(nics: Sequence[Nic], key: str, kind: str) -> str:
    more = f" and {len(nics) - 1} more" if len(nics) > 1 else ""
    return (
        f'{nics[0].at}: {nics[0].name}{more} has "{key}", which this kernel cannot do: it lacks sch_{kind} '
        f"(CONFIG_NET_SCH_{kind.upper()}). Load it with `modprobe sch_{kind}`; if there is no such module, "
        f'boot a kernel that has it, as those of distributions do, or leave "{key}" out'
    )


async def _guests(registry: Registry, name: str) -> list[tuple[Parts, Guest]]:
    """Those of another fabric that run, those included that it is about to start."""
    fabric = registry.fabrics[name]
    guests = await running(fabric.parts, registry.store, name) | fabric.starting
    return [(fabric.parts, guest) for guest in guests]


async def _commitment(parts: Parts, guest: Guest) -> Commitment:
    return Commitment(guest.memory_bytes, (await parts.guests.status(guest.name)).resident_bytes)
