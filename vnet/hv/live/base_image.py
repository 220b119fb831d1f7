"""Bases: what is on a disk of a VM that stands still, made an image of the store, for others to be made of.

The disk itself stays as it is. Its base is found again as long as nobody has written to the disk since, by a
mark beside it; the same contents are the same image in any case. A base goes with the last disk that is the
difference to it. Who makes disks of bases holds `making()` from before the base is there until the disk is.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.disk import Disk, DiskFormat
from vnet.hv.live import base_note, export, host_files, image_import, locations
from vnet.hv.live import image_store as store
from vnet.hv.live.disk import path_of
from vnet.hv.live.image_import import Own
from vnet.hv.live.locations import staging
from vnet.hv.live.lock import exclusive, exclusive_at_once
from vnet.hv.stored import Stamp, Stored

_MARK = ".frozen.json"


@dataclass(frozen=True, slots=True)
class _Mark:
    """The base that was made of a disk, when it was as the stamp says."""

    id: str
    size_bytes: int
    changed_ns: int


def making() -> AbstractContextManager[None]:
    """One at a time; waits."""
    return exclusive(staging())


def can_be_linked(disk: Disk) -> bool:
    """Whether a copy of it can be the difference to a base: others are copied as they are."""
    return disk.format == DiskFormat.QCOW2.value and not disk.encrypt and not disk.is_full


async def template(fabric: str, vm: str, name: str, told: Callable[[str], None]) -> Stored:
    """What is on a disk as an image of the store, to be given a name."""
    path = export.source(fabric, vm, name).path
    made_of = base_note.image_of(path)
    own = Own(f"{fabric}/{vm}:{name}", made_of is not None and made_of.cloud_init)
    return await _put(fabric, vm, name, own, told)


async def base(fabric: str, vm: str, disk: Disk, told: Callable[[str], None]) -> Stored:
    """What is on a disk as an image of the store; no new one while nobody has written to the disk."""
    path = path_of(fabric, vm, disk)
    found = await asyncio.to_thread(_marked, path)
    if found is not None:
        return found
    made_of = await asyncio.to_thread(base_note.image_of, path)
    stamp = store.stamp_of(path)
    own = Own(f"{fabric}/{vm}:{disk.name}", made_of is not None and made_of.cloud_init, is_base=True)
    image = await _put(fabric, vm, disk.name, own, told)
    _mark(path, image, stamp)
    return image


async def _put(fabric: str, vm: str, name: str, own: Own, told: Callable[[str], None]) -> Stored:
    source = await asyncio.to_thread(export.source, fabric, vm, name)

    async def make(target: Path) -> None:
        await export.flatten(source, target, told)

    return await image_import.put_own(own, make)


def _marked(path: Path) -> Stored | None:
    """The base that was made of a disk, if both are as they were then."""
    with contextlib.suppress(OSError, ValueError, TypeError, HostError):
        mark = _Mark(**json.loads(_mark_of(path).read_text()))
        image = store.by_id(mark.id)
        if image is not None and store.stamp_of(path) == Stamp(mark.size_bytes, mark.changed_ns):
            return store.sound(image)
    return None


def _mark(path: Path, image: Stored, stamp: Stamp) -> None:
    mark = _Mark(image.id, stamp.size_bytes, stamp.changed_ns)
    host_files.replace_file(_mark_of(path), json.dumps(asdict(mark)) + "\n")


def _mark_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_MARK}")


def collect() -> tuple[Stored, ...]:
    """Removes bases of which no disk is made any more; not while somebody may be making one, or a location
    with disks is missing."""
    gone = []
    with exclusive_at_once(staging()) as is_alone:
        for each in store.listed() if is_alone and not locations.missing() else ():
            if each.image.is_base and not each.names and not base_note.users(each.image):
                store.remove(each.image)
                gone.append(each.image)
    return tuple(gone)
