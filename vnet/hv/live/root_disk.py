"""Root disks: the difference to an image of the store, kept like other disks, with a note of which image."""

from __future__ import annotations

from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv import disk as disks
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import image_store as store
from vnet.hv.live import image_tool
from vnet.hv.live.base_note import Base, base_of, write
from vnet.hv.live.disk import made_beside, path_of, refuse_damaged, refuse_elsewhere, swept
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stored


def existing(fabric: str, vm: str, wanted: Disk) -> Base | None:
    """What the VM's root disk is made of, if there is one."""
    path = path_of(fabric, vm, wanted)
    if not path.exists():
        return None
    found = base_of(path)
    if found is None:
        raise HostError(
            f"the disk {path} is not made of an image; the VM's is to be: rename it in the topology, "
            f"or remove it: `vnet disk rm {vm} {wanted.name}`"
        )
    return found


def size_bytes(wanted: Disk, image: Stored) -> int:
    """What the guest sees of it. Raises HostError for one that is smaller than its image."""
    if 0 < wanted.size_bytes < image.size_bytes:
        raise HostError(
            f"the disk {wanted.name} is declared with {wanted.size_bytes >> 20}M, and its image has "
            f"{-(-image.size_bytes >> 20)}M: give it as much or more, or leave the size out"
        )
    return wanted.size_bytes or image.size_bytes


def ensure(fabric: str, vm: str, wanted: Disk, image: Stored, name: str) -> Path:
    """The root disk, made of the image if it is not there, grown if it is too small; contents stay."""
    path, base = path_of(fabric, vm, wanted), store.path_of(image)
    wanted_bytes = size_bytes(wanted, image)
    refuse_elsewhere(fabric, vm, wanted)
    with swept(path.parent):
        refuse_damaged(path)
        if not path.exists():
            with made_beside(path) as part:
                make(part, path, wanted_bytes, image, name)
            return path
        has_bytes = virtual_size_bytes(path)
        disks.refuse_to_shrink(wanted, str(path), has_bytes)
        if has_bytes < wanted_bytes:
            image_tool.run(qemu_img.resize(Image(path, base=base), wanted_bytes))
    return path


def make(part: Path, path: Path, wanted_bytes: int, image: Stored, name: str) -> None:
    """Makes a root disk that is to be found under another path later."""
    made = Base(image.id, name, image.sha256)
    write(path, made)  # first: a disk without one would be taken for another kind of disk
    image_tool.run(qemu_img.overlay(part, store.path_of(image), wanted_bytes))


def virtual_size_bytes(path: Path) -> int:
    """What the guest sees of a disk, as its header says."""
    return image_tool.head(path).size_bytes
