"""Disks on this host: made, grown, listed, removed. Their folders are root's; QEMU gets descriptors."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import disk as disks
from vnet.hv import faults, qemu_img
from vnet.hv.argv import DiskArgument
from vnet.hv.disk import Disk, Plugged
from vnet.hv.live import base_note, host_files, image_store, image_tool, keys, luks
from vnet.hv.live.lock import exclusive
from vnet.hv.qemu_img import Image


def ensure(fabric: str, vm: str, wanted: Disk) -> Path:
    """The disk, made if it is not there, grown if it is too small; contents stay.

    Raises: HostError when it would have to shrink, or the host refuses.
    """
    path = path_of(fabric, vm, wanted.file)
    with swept(path.parent):
        refuse_damaged(path)
        if not path.exists():
            with made_beside(path) as part:
                make(part, path, wanted)
        else:
            size_bytes, is_encrypted = _told(path)
            disks.refuse_to_shrink(wanted, str(path), size_bytes)
            _refuse_other(wanted, path, is_encrypted)
            if size_bytes < wanted.size_bytes:
                _grow(path, wanted)
    return path


def _grow(path: Path, wanted: Disk) -> None:
    image = base_note.image_of(path)
    if image is None:
        image_tool.run(disks.grow(wanted, path, key_of(*_owner(path), wanted)))
    else:
        image_tool.run(qemu_img.resize(Image(path, base=image_store.path_of(image)), wanted.size_bytes))


def _refuse_other(wanted: Disk, path: Path, is_encrypted: bool) -> None:
    if wanted.encrypt is not is_encrypted:
        has, declared = ("is", "not to be") if is_encrypted else ("is not", "to be")
        raise HostError(
            f"the disk {path} {has} encrypted and is declared {declared}: that cannot be changed. "
            "Copy what is on it to a new one, or remove it: `vnet disk rm`"
        )


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Alone in a VM's folder of disks, rid of what a daemon that was killed has left half-made."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(folder):
        host_files.remove_parts(folder)
        yield


def sweep() -> None:
    """Removes what a daemon that was killed has left half-made, of all VMs."""
    for folder in {part.parent for part in paths.disks_dir().glob(f"*/*/{host_files.PARTS}")}:
        with swept(folder):
            pass


@contextmanager
def made_beside(path: Path) -> Iterator[Path]:
    """Where a disk is made before it is there: half a disk has another name."""
    part = host_files.part_of(path)
    base_note.forget(path)
    try:
        yield part
        part.chmod(0o600)
        part.rename(path)
        host_files.flush(path.parent)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def make(part: Path, path: Path, wanted: Disk) -> None:
    """Makes a disk, with a key if it is to be encrypted, that is to be found under another path later."""
    if wanted.encrypt:
        keys.ensure(*_owner(path), wanted.name)
    image_tool.run(disks.create(wanted, part, key_of(*_owner(path), wanted)))


def _owner(path: Path) -> tuple[str, str]:
    """The fabric and the VM whose disk it is."""
    return path.parent.parent.name, path.parent.name


def key_of(fabric: str, vm: str, wanted: Disk) -> bytes | None:
    """The key of an encrypted disk. Raises HostError if it is missing."""
    return keys.read(fabric, vm, wanted.name) if wanted.encrypt else None


def refuse_to_shrink(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises HostError for a disk that is there and larger than it is declared."""
    path = path_of(fabric, vm, wanted.file)
    disks.refuse_to_shrink(wanted, str(path), _size_bytes(path))


def missing_bytes(fabric: str, vm: str, wanted: Disk) -> int:
    """What a disk takes at once when it is made or grown: nothing of one that takes it as the guest writes.

    Raises: HostError for one that is there and cannot be read.
    """
    path = path_of(fabric, vm, wanted.file)
    if not wanted.is_full:
        return 0
    return max(0, wanted.size_bytes - (_size_bytes(path) if path.exists() else 0))


def free_bytes() -> int:
    """What is free where disks are, or will be."""
    folder = paths.disks_dir()
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def open_disk(fabric: str, vm: str, place: Plugged, stack: ExitStack) -> DiskArgument:
    """A disk that is there, with its key and what it is the difference to; all is closed with the stack."""
    path = path_of(fabric, vm, place.disk.file)
    descriptor = stack.enter_context(host_files.opened(path, os.O_RDWR | os.O_NOFOLLOW))
    key = key_of(fabric, vm, place.disk)
    key_fd = None if key is None else stack.enter_context(luks.secret_fd(key))
    return DiskArgument(place, descriptor, base_note.open_base(path, stack), key_fd=key_fd)


@dataclass(frozen=True, slots=True)
class Kept:
    """A disk that is on this host. `taken_bytes` is what it takes of the file system."""

    fabric: str
    vm: str
    name: str
    format: str
    path: Path
    size_bytes: int
    taken_bytes: int
    is_encrypted: bool = False
    damage: str = ""
    """Why nothing is known of what is in it; its size is 0 then."""


def kept(fabric: str | None = None) -> tuple[Kept, ...]:
    """All disks there are, or those of one fabric, sorted."""
    found = sorted(path for path in paths.disks_dir().glob("*/*/*.*") if path.suffix[1:] in _FORMATS)
    return tuple(_kept(path) for path in found if fabric in (None, path.parent.parent.name))


def known(fabric: str, vm: str, wanted: Disk) -> Kept | None:
    """One of a VM's disks as it is on this host, if it is there."""
    path = path_of(fabric, vm, wanted.file)
    return _kept(path) if path.exists() else None


_FORMATS = {each.value for each in disks.DiskFormat}


def _kept(path: Path) -> Kept:
    taken = path.stat().st_blocks * 512
    fabric, vm = path.parent.parent.name, path.parent.name
    try:
        known: tuple[int, bool, str] = (*_told(path), "")
    except HostError as error:  # it can be removed all the same
        known = 0, False, str(error)
    return Kept(fabric, vm, path.stem, path.suffix[1:], path, known[0], taken, *known[1:])


def remove(one: Kept) -> None:
    """Removes a disk with its contents and its key, for good, and folders that are empty then."""
    with swept(one.path.parent):
        keys.remove(one.fabric, one.vm, one.name)
        one.path.unlink(missing_ok=True)
        for note in one.path.parent.glob(f"{one.path.name}.*"):
            note.unlink()
    with suppress(OSError):
        for lock in one.path.parent.glob(".lock*"):
            lock.unlink()
        one.path.parent.rmdir()
        one.path.parent.parent.rmdir()


def path_of(fabric: str, vm: str, file: str) -> Path:
    """Where the file of a disk is, or would be."""
    return paths.disks_dir() / fabric / vm / file


def _size_bytes(path: Path) -> int:
    return _told(path)[0]


def _told(path: Path) -> tuple[int, bool]:
    """How large a disk is, and whether it is encrypted. Raises HostError for one that is damaged."""
    if path.suffix[1:] == disks.DiskFormat.RAW.value:
        return path.stat().st_size, False
    head = image_tool.head(path)
    return head.size_bytes, head.is_encrypted


def refuse_damaged(path: Path) -> None:
    """Raises HostError, with what to do, for a disk that QEMU would refuse or has found to be damaged."""
    if not path.exists():
        return
    try:
        call = qemu_img.info(Image(path, path.suffix[1:]))
        said = faults.found_damaged(json.loads(image_tool.run(call).output))
    except HostError as error:
        said = str(error)
    if said:
        raise HostError(f"the disk {path} is damaged: {said.rstrip('.')}. {faults.remedy(str(path))}")
