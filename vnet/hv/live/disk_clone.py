"""The disks of one VM copied for another: all of them, or none.

They are made in a folder elsewhere, which becomes the new VM's in one step: a daemon that is killed leaves
nothing but that folder, and the next one removes it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import base_image, base_note, image_store, root_disk
from vnet.hv.live.base_image import making, staging
from vnet.hv.live.disk import path_of
from vnet.hv.stored import Stored

Tell = Callable[[str], None]
"""Told how far the copy of a disk is."""

_TOLD_EVERY_S = 1.0


def sweep() -> None:
    """Removes what a daemon left that was killed while it copied."""
    if staging().exists():
        with making():
            _remove_halves()
        base_image.collect()


def _remove_halves() -> None:
    for folder in staging().glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)


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
        HostError: the new VM has disks already, or there is no room. Then nothing has been made.
    """
    there = [disk for disk in disks if path_of(order.fabric, order.vm, disk.file).exists()]
    linked = {disk.name for disk in there if order.linked and base_image.can_be_linked(disk)}
    refuse_taken(order.fabric, order.new)
    try:
        with contextlib.ExitStack() as stack:
            await asyncio.to_thread(stack.enter_context, making())
            await asyncio.to_thread(_remove_halves)
            folder = staging() / f"{order.fabric}.{order.new}"
            folder.mkdir(mode=0o700)
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            for disk in there:
                copy = _link if disk.name in linked else _copy
                await copy(order, disk, folder, tell)
            if there:
                await asyncio.to_thread(_put, folder, path_of(order.fabric, order.new, "").parent / order.new)
    except BaseException:
        base_image.collect()
        raise
    names = tuple(disk.name for disk in there)
    return names, tuple(name for name in names if name in linked)


def refuse_taken(fabric: str, vm: str) -> None:
    """Raises HostError if there are disks of a VM of that name."""
    found = sorted(each.name for each in (paths.disks_dir() / fabric / vm).glob("[!.]*"))
    if found:
        raise HostError(
            f"{vm} of {fabric} has disks already, which are kept: {', '.join(found)}. Take another name, or"
            f" remove them: `vnet disk ls`, `vnet disk rm {vm} DISK`"
        )


def _put(folder: Path, target: Path) -> None:
    """In one step; an empty folder in the way, with a lock in it, is of a VM that was."""
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


async def _link(order: Order, disk: Disk, folder: Path, tell: Tell) -> None:
    """A root disk stays one of the image that is declared, in name; what lies behind it is the base."""
    source = path_of(order.fabric, order.vm, disk.file)
    size_bytes = await asyncio.to_thread(root_disk.virtual_size_bytes, source)
    image = await base_image.base(order.fabric, order.vm, disk, tell)
    made_of, target = base_note.base_of(source), folder / source.name
    declared = base_note.Base(image.id, image.origin, image.sha256)
    note = declared if made_of is None else replace(made_of, id=image.id)
    base_note.write(target, note)
    await asyncio.to_thread(_overlay, target, image, size_bytes)


def _overlay(target: Path, image: Stored, size_bytes: int) -> None:
    image_store.run(qemu_img.overlay(target, image_store.path_of(image), size_bytes), path=target)
    target.chmod(0o600)


async def _copy(order: Order, disk: Disk, folder: Path, tell: Tell) -> None:
    source = path_of(order.fabric, order.vm, disk.file)
    target, base, options = folder / source.name, None, qemu_img.alone(source, disk.format)
    image = base_note.image_of(source)
    if image is not None:
        base = image_store.path_of(image)
        options = qemu_img.above(source, base)
        shutil.copyfile(base_note.note_of(source), base_note.note_of(target))
    await _run(
        qemu_img.copy(options, disk.format, target, base),
        target,
        lambda done: tell(f"disk {disk.name}: {done:.0f} %"),
    )
    target.chmod(0o600)


async def _run(command: tuple[str, ...], target: Path, percent: Callable[[float], None]) -> None:
    """Broken off it is killed."""
    pipe = asyncio.subprocess.PIPE
    try:
        child = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe)
    except OSError as error:
        raise HostError(f"`{' '.join(command)}` failed: {error}; install qemu-utils") from error
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        _, errors = await asyncio.gather(_follow(child.stdout, percent), child.stderr.read())
        code = await child.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())
        raise
    if code:
        raise qemu_img.explained(" ".join(command[:2]), code, errors.decode(errors="replace"), path=target)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        await asyncio.to_thread(os.fsync, descriptor)
    finally:
        os.close(descriptor)


async def _follow(stream: asyncio.StreamReader, percent: Callable[[float], None]) -> None:
    told_s = time.monotonic()
    while data := await stream.read(1 << 12):
        done = qemu_img.percent(data)
        if done is not None and time.monotonic() - told_s > _TOLD_EVERY_S:
            told_s = time.monotonic()
            percent(done)
