"""Root disks: the difference to an image of the store, kept like other disks, with a note of which image.

The note lies beside the disk and is root's. The disk's own header is not believed: the VM's QEMU writes it.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import disk as disks
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import image_store as store
from vnet.hv.live.disk import made_beside, path_of, swept
from vnet.hv.stored import Stored

_NOTE = ".base.json"


@dataclass(frozen=True, slots=True)
class Base:
    """Which image a root disk is made of; `name` is what the topology called it then."""

    id: str
    name: str
    sha256: str


def base_of(path: Path) -> Base | None:
    """What a root disk is made of; None of a disk that is made of nothing.

    Raises:
        HostError: its note is damaged.
    """
    note = note_of(path)
    try:
        return Base(**json.loads(note.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise HostError(f"{note} is damaged ({error}): it says what image the disk is made of") from error


def existing(fabric: str, vm: str, wanted: Disk) -> Base | None:
    """What the VM's root disk is made of, if there is one."""
    path = path_of(fabric, vm, wanted.file)
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
    path, base = path_of(fabric, vm, wanted.file), store.path_of(image)
    wanted_bytes = size_bytes(wanted, image)
    with swept(path.parent):
        if not path.exists():
            with made_beside(path) as part:
                make(part, path, wanted_bytes, image, name)
            return path
        has_bytes = virtual_size_bytes(path)
        disks.refuse_to_shrink(wanted, str(path), has_bytes)
        if has_bytes < wanted_bytes:
            store.run(qemu_img.resize(path, base, wanted_bytes), path=path)
    return path


def make(part: Path, path: Path, wanted_bytes: int, image: Stored, name: str) -> None:
    """Makes a root disk that is to be found under another path later."""
    made = Base(image.id, name, image.sha256)
    _write(note_of(path), made)  # first: a disk without one would be taken for another kind of disk
    store.run(qemu_img.overlay(part, store.path_of(image), wanted_bytes), path=path)


def open_pair(path: Path, image: Stored, stack: ExitStack) -> tuple[int, int]:
    """Descriptors of the disk and, to be read only, of its image; they are closed with the stack."""
    opened = []
    for each, flags in ((path, os.O_RDWR), (store.path_of(image), os.O_RDONLY)):
        descriptor = os.open(each, flags | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        opened.append(descriptor)
    return opened[0], opened[1]


def virtual_size_bytes(path: Path) -> int:
    """What the guest sees of a disk, as its header says."""
    return int(json.loads(store.run(qemu_img.info(path, path.suffix[1:]), path=path))["virtual-size"])


def users(image: Stored) -> tuple[str, ...]:
    """The disks that are made of an image, as FABRIC/VM/DISK."""
    found = []
    for note in sorted(paths.disks_dir().glob(f"*/*/*{_NOTE}")):
        path = note.with_name(note.name.removesuffix(_NOTE))
        base = base_of(path) if path.exists() else None
        if base and base.id == image.id:
            found.append("/".join((*path.parts[-3:-1], path.stem)))
    return tuple(found)


def note_of(path: Path) -> Path:
    return path.with_name(f"{path.name}{_NOTE}")


def _write(note: Path, base: Base) -> None:
    beside = note.with_name(f"{note.name}.part")
    beside.write_text(json.dumps(asdict(base)) + "\n")
    beside.chmod(0o600)
    beside.rename(note)
