"""The disks of one VM copied for another: all of them, or none.

They are made in a folder elsewhere, at each location that the VM has disks at, which becomes the new VM's in
one step: a daemon that is killed leaves nothing but those, and the next one removes them (`half_done`).
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import (
    base_image,
    base_note,
    half_done,
    host_files,
    image_store,
    image_tool,
    keys,
    locations,
    root_disk,
)
from vnet.hv.live.base_image import making
from vnet.hv.live.disk import path_of, refuse_elsewhere, refuse_unusable
from vnet.hv.live.locations import staging
from vnet.hv.live.tasks import uninterrupted
from vnet.hv.qemu_img import Image

Tell = Callable[[str], None]
"""Told how far the copy of a disk is."""


def sweep() -> None:
    """Removes what a daemon left that was killed while it copied."""
    if staging().exists():
        with making():
            for location in locations.roots():
                for folder in staging(location).glob("*/"):
                    half_done.remove_keys(folder, *folder.name.split(".", 1))
                    shutil.rmtree(folder, ignore_errors=True)
            half_done.settle_copies()
        base_image.collect()


@dataclass(frozen=True, slots=True)
class Order:
    """Whose disks are copied for whom; `linked`: as differences to a base that they share, where possible."""

    fabric: str
    vm: str
    new: str
    linked: bool = False


async def clone(order: Order, disks: Sequence[Disk], tell: Tell) -> tuple[tuple[str, ...], ...]:
    """Copies the disks that a VM has by now; nobody may write to them meanwhile.

    Returns:
        The names of all copies, and of those that are linked; disks that were never made are left to the new
        VM's first start.

    Raises:
        HostError: the new VM has disks already, or there is no room, or one lies elsewhere than is declared,
            or is encrypted and is not declared to be. Then nothing has been made.
    """
    for each in disks:
        refuse_elsewhere(order.fabric, order.vm, each)
    there = [disk for disk in disks if path_of(order.fabric, order.vm, disk).exists()]
    for each in there:
        refuse_unusable(order.fabric, order.vm, each)
    linked = {disk.name for disk in there if order.linked and base_image.can_be_linked(disk)}
    refuse_taken(order.fabric, order.new)
    try:
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, making())
            folders = {each: _made(each, order, stack) for each in sorted({disk.location for disk in there})}
            for disk in there:
                copy = _link if disk.name in linked else _copy
                await copy(order, disk, folders[disk.location], tell)
            await uninterrupted(asyncio.to_thread(_put, order, folders, there))
    except BaseException:
        base_image.collect()
        raise
    names = tuple(disk.name for disk in there)
    return names, tuple(name for name in names if name in linked)


def refuse_taken(fabric: str, vm: str) -> None:
    """Raises HostError if there are disks of a VM of that name."""
    folders = [root / fabric / vm for root in locations.roots().values()]
    folders.append(half_done.noted_folder(fabric, vm))  # also those at locations that are missing
    found = sorted({each.name for folder in folders for each in folder.glob("[!.]*")})
    if found:
        raise HostError(
            f"{vm} of {fabric} has disks already, which are kept: {', '.join(found)}. Take another name, or"
            f" remove them: `vnet disk ls`, `vnet disk rm {vm} DISK`"
        )


def _made(location: str, order: Order, stack: contextlib.ExitStack) -> Path:
    """A folder for copies at a location, which goes with the stack unless it was put in its place."""
    folder = staging(location) / f"{order.fabric}.{order.new}"
    shutil.rmtree(folder, ignore_errors=True)  # of a daemon that was killed while the location was missing
    folder.mkdir(parents=True, mode=0o700)
    stack.callback(_drop, order, folder)
    return folder


def _drop(order: Order, folder: Path) -> None:
    half_done.remove_keys(folder, order.fabric, order.new)
    shutil.rmtree(folder, ignore_errors=True)


def _put(order: Order, folders: Mapping[str, Path], there: Sequence[Disk]) -> None:
    """In one step, of all locations; an empty folder in the way, with a lock in it, is of a VM that was."""
    places = [path_of(order.fabric, order.new, disk) for disk in there]
    try:
        with half_done.copying(folders.values()) as put:
            for location, folder in folders.items():
                target = locations.root(location) / order.fabric / order.new
                locations.make_folder(target)
                shutil.rmtree(target)
                put(folder, target)
            half_done.note_places(places)
    except OSError as error:
        raise HostError(f"cannot put the disks of {order.new} in their place: {error.strerror}") from error


async def _link(order: Order, disk: Disk, folder: Path, tell: Tell) -> None:
    """A root disk stays one of the image that is declared, in name; what lies behind it is the base."""
    source = path_of(order.fabric, order.vm, disk)
    size_bytes = await asyncio.to_thread(root_disk.virtual_size_bytes, source)
    image = await base_image.base(order.fabric, order.vm, disk, tell)
    made_of, target = base_note.base_of(source), folder / source.name
    declared = made_of or base_note.Base(image.id, image.origin, image.sha256)
    note = replace(declared, id=image.id, is_own=True)
    base_note.write(target, note)
    await image_tool.execute(qemu_img.overlay(target, image_store.path_of(image), size_bytes))
    target.chmod(0o600)


async def _copy(order: Order, disk: Disk, folder: Path, tell: Tell) -> None:
    source = path_of(order.fabric, order.vm, disk)
    target, image = folder / source.name, base_note.image_of(source)
    if disk.encrypt:
        key = keys.read(order.fabric, order.vm, disk.name)
        if not keys.is_there(order.fabric, order.new, disk.name):
            half_done.note_key(folder, disk.name)
        own = keys.ensure(order.fabric, order.new, disk.name)
        call = qemu_img.convert_encrypted(Image(source, is_encrypted=True), target, key, own)
    elif image is None:
        call = qemu_img.convert(Image(source, disk.format), target, disk.format, shared=True)
    else:
        base = image_store.path_of(image)
        size_bytes = await asyncio.to_thread(root_disk.virtual_size_bytes, source)
        await image_tool.execute(qemu_img.overlay(target, base, size_bytes))
        call = qemu_img.copy_difference(Image(source, base=base), target)
        shutil.copyfile(base_note.note_of(source), base_note.note_of(target))
    await image_tool.execute(call, lambda done: tell(f"disk {disk.name}: {done:.0f} %"))
    target.chmod(0o600)
    await asyncio.to_thread(host_files.flush, target)
