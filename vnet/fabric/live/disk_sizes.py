"""What this host knows of the sizes of VMs' disks: what they have taken, and what is to be on them."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from vnet.base.boot import ImageSource
from vnet.base.errors import VnetError
from vnet.fabric.disk_sizing import DiskSeen
from vnet.fabric.state import Guest
from vnet.hv.disk import Disk, DiskFormat
from vnet.hv.live import base_note, image_store, image_tool
from vnet.hv.live import disk as disks
from vnet.hv.live.disk import Kept
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stored


def look(fabric: str, guest: Guest) -> tuple[DiskSeen, ...]:
    """Those of one guest; what cannot be read is not told here."""
    with suppress(VnetError, OSError):
        medium_bytes = _medium_bytes(guest)
        return tuple(
            _seen(fabric, guest, disk, 0 if index else medium_bytes) for index, disk in enumerate(guest.disks)
        )
    return ()


def _seen(fabric: str, guest: Guest, disk: Disk, medium_bytes: int) -> DiskSeen:
    there = disks.known(fabric, guest.name, disk)
    image = _image(fabric, guest, disk) if disk.is_root else None
    size_bytes = max(disk.size_bytes, there.size_bytes if there else 0, image.size_bytes if image else 0)
    return DiskSeen(
        guest.name,
        disk.name,
        size_bytes,
        there.taken_bytes if there and not disk.is_full and not _keeps_more(there) else 0,
        _held_bytes(image.id) if image else 0,
        medium_bytes,
    )


def _keeps_more(there: Kept) -> bool:
    """Whether a disk's file keeps snapshots too, which may take any amount."""
    return there.format == DiskFormat.QCOW2.value and image_tool.head(there.path).snapshots > 0


def _image(fabric: str, guest: Guest, disk: Disk) -> Stored | None:
    """The image of a root disk; None of one that is not in the store yet."""
    path, source = disks.path_of(fabric, guest.name, disk), guest.boot.root
    if path.exists():
        return base_note.image_of(path)
    return image_store.find(source.name) if source is not None and source.file is None else None


@lru_cache(maxsize=256)
def _held_bytes(image_id: str) -> int:
    """What an image holds, unpacked: of one in the store nothing changes any more."""
    image = image_store.by_id(image_id)
    if image is None or image.is_iso:
        return 0
    return image_tool.held_bytes(Image(image_store.path_of(image)))


def _medium_bytes(guest: Guest) -> int:
    """The length of the medium of a VM whose system does not come out of an image."""
    boot = guest.boot
    if boot.iso is None or boot.root is not None or boot.loaded is not None:
        return 0
    return _file_of(boot.iso).stat().st_size


def _file_of(source: ImageSource) -> Path:
    if source.file is None:
        return image_store.path_of(image_store.find(source.name))
    return Path(source.file.path)
