"""Disks on this host: made, grown, listed, removed. Their folders are root's; QEMU gets descriptors."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base.boot import DEFAULT_LOCATION, UEFI_VARIABLES
from vnet.base.errors import HostError
from vnet.hv import disk as disks
from vnet.hv import faults, qemu_img
from vnet.hv.admission import Room
from vnet.hv.argv import DiskArgument
from vnet.hv.disk import Disk, Plugged
from vnet.hv.live import (
    base_note,
    disk_move,
    half_done,
    host_files,
    image_store,
    image_tool,
    keys,
    locations,
    luks,
)
from vnet.hv.live.lock import exclusive
from vnet.hv.qemu_img import Image

log = logging.getLogger(__name__)


def ensure(fabric: str, vm: str, wanted: Disk) -> Path:
    """The disk, made if it is not there, grown if it is too small; contents stay.

    Raises: HostError when it would have to shrink, or the host refuses.
    """
    path = path_of(fabric, vm, wanted)
    refuse_elsewhere(fabric, vm, wanted)
    with swept(path.parent):
        refuse_damaged(path)
        if not path.exists():
            with made_beside(path) as part:
                make(part, path, wanted)
        else:
            size_bytes = refuse_unusable(fabric, vm, wanted)
            disks.refuse_to_shrink(wanted, str(path), size_bytes)
            if size_bytes < wanted.size_bytes:
                _grow(path, wanted)
    return path


def _grow(path: Path, wanted: Disk) -> None:
    image = base_note.image_of(path)
    if image is None:
        image_tool.run(disks.grow(wanted, path, key_of(*_owner(path), wanted)))
    else:
        image_tool.run(qemu_img.resize(Image(path, base=image_store.path_of(image)), wanted.size_bytes))


def refuse_unusable(fabric: str, vm: str, wanted: Disk) -> int:
    """How large a disk is that is there.

    Raises: HostError for one that is encrypted or not, other than is declared, or damaged; or has no key.
    """
    path = path_of(fabric, vm, wanted)
    try:
        size_bytes, is_encrypted = _told(path)
    except HostError as error:
        raise _damaged(path, str(error)) from error
    _refuse_other(wanted, path, is_encrypted)
    key_of(fabric, vm, wanted)
    return size_bytes


def _refuse_other(wanted: Disk, path: Path, is_encrypted: bool) -> None:
    if wanted.encrypt is not is_encrypted:
        has, declared = ("is", "not to be") if is_encrypted else ("is not", "to be")
        raise HostError(
            f"the disk {path} {has} encrypted and is declared {declared}: that cannot be changed. "
            "Copy what is on it to a new one, or remove it: `vnet disk rm`"
        )


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Alone in a VM's folder of disks, rid of what a daemon that was killed has left half-made.

    Raises: HostError if that cannot be, since a location is missing.
    """
    locations.make_folder(folder)
    with exclusive(folder):
        half_done.settle(folder)
        host_files.remove_parts(folder)
        yield


def sweep(fabric: str | None = None) -> None:
    """Removes what a daemon that was killed has left half-made, of all VMs or those of one fabric."""
    halves = (half for each in (*host_files.PARTS, *half_done.MARKS) for half in locations.files(each))
    for folder in {half.parent for half in halves if fabric in (None, half.parent.parent.name)}:
        try:
            with swept(folder):
                pass
            _tidy(folder)
        except (OSError, HostError) as error:  # the next start of the VM tries again, and says so
            log.warning("what was left half-made in %s stays there: %s", folder, error)


@contextmanager
def made_beside(path: Path) -> Iterator[Path]:
    """Where a disk is made before it is there: half a disk has another name."""
    part = host_files.part_of(path)
    base_note.forget(path)
    try:
        yield part
        part.chmod(0o600)
        part.rename(path)
        half_done.note_place(path)
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
    path = path_of(fabric, vm, wanted)
    disks.refuse_to_shrink(wanted, str(path), _size_bytes(path))


def missing_bytes(fabric: str, vm: str, wanted: Disk) -> int:
    """What a disk takes at once when it is made or grown: nothing of one that takes it as the guest writes.

    Raises: HostError for one that is there and cannot be used as it is declared.
    """
    path = path_of(fabric, vm, wanted)
    has_bytes = refuse_unusable(fabric, vm, wanted) if path.exists() else 0
    return max(0, wanted.size_bytes - has_bytes) if wanted.is_full else 0


def room(location: str) -> Room:
    """What is free where the disks of a location are, or will be. Raises HostError if it is missing."""
    folder = locations.root(location)
    near = next(each for each in (folder, *folder.parents) if each.exists())
    return Room(near.stat().st_dev, shutil.disk_usage(near).free, str(folder))


def open_disk(fabric: str, vm: str, place: Plugged, stack: ExitStack) -> DiskArgument:
    """A disk that is there, with its key and what it is the difference to; all is closed with the stack."""
    path = path_of(fabric, vm, place.disk)
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
    location: str = DEFAULT_LOCATION


def kept(fabric: str | None = None) -> tuple[Kept, ...]:
    """All disks there are, or those of one fabric, sorted."""
    paths = sorted(
        (path for path in locations.files("*.*") if path.suffix[1:] in _FORMATS),
        key=lambda path: path.parts[-3:],
    )
    return tuple(_kept(path) for path in paths if fabric in (None, path.parent.parent.name))


def known(fabric: str, vm: str, wanted: Disk) -> Kept | None:
    """One of a VM's disks as it is on this host, if it is there."""
    path = path_of(fabric, vm, wanted)
    return _kept(path) if path.exists() else None


_FORMATS = {each.value for each in disks.DiskFormat}


def _kept(path: Path) -> Kept:
    taken = path.stat().st_blocks * 512
    fabric, vm = path.parent.parent.name, path.parent.name
    try:
        known: tuple[int, bool, str] = (*_told(path), "")
    except HostError as error:  # it can be removed all the same
        known = 0, False, str(error)
    location = locations.of(path)
    return Kept(fabric, vm, path.stem, path.suffix[1:], path, known[0], taken, *known[1:], location)


def remove(one: Kept) -> None:
    """Removes a disk with its contents, for good, and folders that are empty then; with the last one of that
    name its key."""
    with swept(one.path.parent):
        files = (f"{one.name}.{kind}" for kind in _FORMATS)
        there = {path for file in files for path in locations.places(one.fabric, one.vm, file).values()}
        if there <= {one.path} and not locations.missing():  # there may be another one, which it opens
            keys.remove(one.fabric, one.vm, one.name)
        one.path.unlink(missing_ok=True)
        if half_done.noted_place(one.path) == one.location:
            half_done.forget_place(one.path)
        for note in one.path.parent.glob(f"{one.path.name}.*"):
            note.unlink()
    _tidy(one.path.parent)


def move(one: Kept, location: str, told: disk_move.Told) -> Path:
    """Moves a disk that nobody uses, with its notes, and all that it keeps inside, to another location.

    Killed half-way it leaves the one or the other. Returns where the disk is now.

    Raises: HostError when there is something already, or no room, or for what only looks like a disk. Then it
        is where it was.
    """
    if one.name == UEFI_VARIABLES:
        raise HostError(f"what the firmware of {one.vm} keeps cannot be moved: it is looked for in one place")
    target = path_of(one.fabric, one.vm, Disk(one.name, one.size_bytes, one.format, location=location))
    try:
        with swept(one.path.parent), swept(target.parent):
            if target.exists():
                raise HostError(f"there is a disk at {target} already")
            disk_move.move(one.path, target, location, told)
    finally:
        _tidy(one.path.parent)
        _tidy(target.parent)
    return target


def _tidy(folder: Path) -> None:
    """Removes folders that are empty but for locks: where there is more, others may hold them."""
    with suppress(OSError):
        left = list(folder.iterdir())
        for each in left if all(each.name.startswith(".lock") for each in left) else ():
            each.unlink()
        folder.rmdir()
        folder.parent.rmdir()


def path_of(fabric: str, vm: str, wanted: Disk) -> Path:
    """Where the file of a disk is, or would be. Raises HostError if its location cannot be used."""
    return locations.root(wanted.location) / fabric / vm / wanted.file


def not_there(vm: str, name: str) -> HostError:
    """Of a disk that is declared: nothing was written to it yet, or nobody can see it now."""
    made = f"it is made by the first `vnet start {vm}`{locations.unseen()}"
    return HostError(f"the disk {name} of {vm} is not there: {made}")


def refuse_elsewhere(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises HostError for a disk that lies at another location than is declared: nothing moves it unasked,
    and none is made in its place."""
    for location, path in locations.places(fabric, vm, wanted.file).items():
        if location == wanted.location:
            continue
        half_done.finish_move(path)
        if path.exists():
            raise HostError(
                f"the disk {wanted.name} of {vm} lies at the location {location} ({path}), and is declared at"
                f" {wanted.location}: `vnet stop {vm}` and `vnet disk move {vm} {wanted.name}"
                f" {wanted.location}`, or declare `location: {location}`"
            )
    _refuse_unseen(fabric, vm, wanted)


def _refuse_unseen(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises HostError for a disk that was last at another location, which is missing: it is there still."""
    was = half_done.noted_place(path_of(fabric, vm, wanted))
    for each in locations.missing():
        if each.name == was != wanted.location:
            raise HostError(
                f"the disk {wanted.name} of {vm} lies at the location {was}, declared is {wanted.location}:"
                f" {each.trouble}. Then declare `location: {was}`; or give up what lies there:"
                f" `vnet disk location rm --lost {was}`"
            )


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
        raise _damaged(path, said)


def _damaged(path: Path, said: str) -> HostError:
    return HostError(f"the disk {path} is damaged: {said.rstrip('.')}. {faults.remedy(str(path))}")
