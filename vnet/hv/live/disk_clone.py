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
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import image_store, root_disk
from vnet.hv.live.disk import path_of
from vnet.hv.live.lock import exclusive

Percent = Callable[[str, float], None]
"""Told how far the copy of a disk is."""

_TOLD_EVERY_S = 1.0


def _staging() -> Path:
    """Beside the disks, in the same file system."""
    return paths.disks_dir().with_name("cloning")


def sweep() -> None:
    """Removes what a daemon left that was killed while it copied."""
    if _staging().exists():
        with exclusive(_staging()):
            _remove_halves()


def _remove_halves() -> None:
    for folder in _staging().glob("*/"):
        shutil.rmtree(folder, ignore_errors=True)


async def clone(fabric: str, vm: str, new: str, disks: Sequence[Disk], percent: Percent) -> tuple[str, ...]:
    """Copies the disks that a VM has by now; nobody may write to them meanwhile.

    Returns:
        Their names; those that were never made are left to the new VM's first start.

    Raises:
        HostError: the new VM has disks already, or there is no room. Then nothing has been made.
    """
    there = [disk for disk in disks if path_of(fabric, vm, disk.file).exists()]
    refuse_taken(fabric, new)
    with contextlib.ExitStack() as stack:
        await asyncio.to_thread(stack.enter_context, exclusive(_staging()))
        await asyncio.to_thread(_remove_halves)
        folder = _staging() / f"{fabric}.{new}"
        folder.mkdir(mode=0o700)
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        for disk in there:
            await _copy(path_of(fabric, vm, disk.file), disk, folder, percent)
        if there:
            await asyncio.to_thread(_put, folder, path_of(fabric, new, "").parent / new)
    return tuple(disk.name for disk in there)


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


async def _copy(source: Path, disk: Disk, folder: Path, percent: Percent) -> None:
    target, base, options = folder / source.name, None, qemu_img.alone(source, disk.format)
    made_of = root_disk.base_of(source)
    if made_of is not None:
        image = image_store.by_id(made_of.id)
        if image is None:
            raise HostError(f"{source} is made of the image {made_of.name}, which is not there any more")
        base = image_store.path_of(image)
        options = qemu_img.above(source, base)
        shutil.copyfile(root_disk.note_of(source), root_disk.note_of(target))
    await _run(
        qemu_img.copy(options, disk.format, target, base), target, lambda done: percent(disk.name, done)
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
