"""Lets VMs go on that stand still because the host's file system was full, once there is room again."""

from __future__ import annotations

import asyncio
import logging

from vnet.base.errors import HostError, VnetError
from vnet.fabric.events import Kind
from vnet.fabric.live.registry import Fabric, Registry
from vnet.fabric.state import Guest
from vnet.hv.live import disk

log = logging.getLogger(__name__)

LOOK_S = 2.0
ROOM_BYTES = 64 << 20
"""With less, a VM that writes would soon stand still again."""


async def look_for_room(registry: Registry) -> None:
    """For ever."""
    while True:
        await asyncio.sleep(LOOK_S)
        for fabric in tuple(registry.fabrics.values()):
            try:
                await turn(registry, fabric)
            except Exception:  # a bug met in one fabric must not leave the VMs of the others standing
                log.exception("cannot let the VMs of %s go on", fabric.record.name)


async def turn(registry: Registry, fabric: Fabric) -> None:
    """Look once at one fabric. One that stands still again at once is left so until the next look."""
    guests, name = fabric.parts.guests, fabric.record.name
    for guest in registry.store.guests(name):
        if (await guests.status(guest.name)).awaits_room and has_room(guest):
            try:
                await guests.resume(guest.name)
            except VnetError as error:
                log.info("%s of %s: %s", guest.name, name, error)
                continue
            text = f"{guest.name} goes on: there is room for its disks again"
            registry.events.tell(Kind.VM_RESUMED, text, name, guest.name, {"why": "room"})


def has_room(guest: Guest) -> bool:
    """Whether its disks can grow, wherever they lie; a location that is missing has none."""
    try:
        return all(disk.room(each.location).free_bytes >= ROOM_BYTES for each in guest.disks)
    except HostError:
        return False
