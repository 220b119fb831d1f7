"""Whether what VMs are to boot is there, sound and the right one: asked before anything is made."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from vnet.base.errors import Fault, InputError
from vnet.base.source import Location
from vnet.fabric.declared import Declared
from vnet.fabric.state import Guest
from vnet.hv.live.boot import Obstacle

Look = Callable[[str, Guest], tuple[Obstacle, ...]]
"""What keeps a guest of a fabric from booting."""


async def refuse_what_cannot_boot(look: Look, declared: Declared, guests: Iterable[Guest]) -> None:
    """Raises InputError with all that keeps VMs from being started, each where it is declared."""
    asked = sorted(guest for guest in guests if guest.disks or not guest.boot.is_micro)
    found = await asyncio.to_thread(lambda: tuple(_faults(look, declared, asked))) if asked else ()
    if found:
        raise InputError(tuple(dict.fromkeys(found)))


def _faults(look: Look, declared: Declared, guests: Iterable[Guest]) -> Iterator[Fault]:
    fabric = declared.topology.name
    for guest in guests:
        for each in look(fabric, guest):
            yield Fault(*_place(declared, guest, each.key), each.text)


def _place(declared: Declared, guest: Guest, key: str) -> tuple[Location, str]:
    """Where to look: at the image if the file declares it, at the disk, else at the VM."""
    name = guest.boot.image.name if guest.boot.image else ""
    image = declared.topology.images.get(name)
    if key == "image" and image is not None:
        return image.at, f"images.{name}"
    vm = next(vm for vm in declared.inventory.vms if vm.name == guest.name)
    key, _, name = key.partition(".") if key.startswith("disks.") else (key, "", "")
    at = next((disk.at for disk in vm.disks if disk.name == name), vm.at)
    return at, f"vms.{vm.spec}.{key}"
