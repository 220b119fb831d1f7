"""What a guest that is not vnet's own boots: found, and checked before anything is made.

Kernels and initrds are read once, and what was read is handed over in memory: what was checked is what boots.
A medium is opened where it lies. A disk's image is in the host's store, put there first if need be.
`opening` opens all of it for QEMU.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vnet.base.boot import Boot, Firmware, ImageFile, ImageFormat, ImageSource
from vnet.base.errors import HostError, InputError, VnetError
from vnet.hv import image_file, stored
from vnet.hv.disk import Disk, refuse_to_shrink
from vnet.hv.firmware import BUILDS, PACKAGE, Flash
from vnet.hv.live import base_note, image_import, root_disk
from vnet.hv.live import image_store as store
from vnet.hv.live.disk import path_of, refuse_damaged, refuse_elsewhere
from vnet.hv.live.host_files import sha256_of
from vnet.hv.spec import GuestSpec
from vnet.hv.stored import Stamp, Stored

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a guest boots: the image of its root disk, if it has one, its medium, and its disks with sizes."""

    boot: Boot
    disks: tuple[Disk, ...]
    root: Stored | None = None
    iso: Path | None = None


# ---- looking -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a guest cannot be started: which key of the topology is not to be had, and why.

    That of a disk is `disks.NAME`.
    """

    key: str
    text: str


def obstacles(fabric: str, vm: str, boot: Boot, disks: tuple[Disk, ...]) -> tuple[Obstacle, ...]:
    """All that keeps a guest from being started, as far as it shows before anything is made."""
    return tuple(_obstacles(fabric, vm, boot, disks))


def misplaced(fabric: str, vm: str, disks: tuple[Disk, ...]) -> tuple[Obstacle, ...]:
    """Disks whose location is not to be had, or that lie at another one."""
    looks = ((f"disks.{each.name}", partial(_look_at_place, fabric, vm, each)) for each in disks)
    return tuple(_met(looks))


def _obstacles(fabric: str, vm: str, boot: Boot, disks: tuple[Disk, ...]) -> Iterator[Obstacle]:
    elsewhere = misplaced(fabric, vm, disks)
    yield from elsewhere
    unusable = {each.key for each in elsewhere}
    root = next((each for each in disks if each.is_root), None)
    based = (each for each in disks if each is not root and f"disks.{each.name}" not in unusable)
    looks: list[tuple[str, Callable[[], object]]] = [
        (f"disks.{each.name}", partial(_look_at_base, fabric, vm, each)) for each in based
    ]
    if boot.root is not None and root is not None:
        source = boot.root
        looks.append(("image", lambda: _look_at_root(fabric, vm, root, source)))
    if boot.loaded is not None:
        loaded = boot.loaded
        looks.append(("image" if loaded is boot.image else "boot.kernel", lambda: kernel_of(loaded)))
    if boot.iso is not None:
        iso = boot.iso
        looks.append(("boot.iso", lambda: _iso(iso)))
    if boot.firmware == Firmware.UEFI.value:
        looks.append(("boot.firmware", flash))
    yield from _met(looks)


def _met(looks: Iterable[tuple[str, Callable[[], object]]]) -> Iterator[Obstacle]:
    for key, look in looks:
        try:
            look()
        except VnetError as error:
            yield Obstacle(key, str(error))


def _look_at_place(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises VnetError if there is no such location for a disk, or the disk lies at another one."""
    path_of(fabric, vm, wanted)
    refuse_elsewhere(fabric, vm, wanted)


def _look_at_base(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises VnetError if what a disk is the difference to is gone, or was written to."""
    path = path_of(fabric, vm, wanted)
    if path.exists():
        base_note.image_of(path)


def _look_at_root(fabric: str, vm: str, wanted: Disk, source: ImageSource) -> None:
    """Raises VnetError if there is no image for a root disk, or not the one that it is made of."""
    base, path = root_disk.existing(fabric, vm, wanted), path_of(fabric, vm, wanted)
    if base is not None:
        image = _base_image(vm, wanted, base, source)
        refuse_damaged(path)
    elif source.file is None:
        image = _named(source)
    else:
        _look_at_file(source.file, source.format)
        return
    root_disk.size_bytes(wanted, image)
    if base is not None:
        refuse_to_shrink(wanted, str(path), root_disk.virtual_size_bytes(path))


def _look_at_file(file: ImageFile, declared: str) -> None:
    """Raises VnetError for a file that will not become an image."""
    path = Path(file.path)
    kind = image_file.recognise(image_import.ends_of(path), file.path, declared)
    if kind is ImageFormat.ISO:
        raise HostError(f"{path} is a medium and not a disk: `boot: {{iso: …}}` is for it")
    if file.sha256:
        stored.refuse_pin(file.path, file.sha256, _sum_of(path))


def _base_image(vm: str, wanted: Disk, base: base_note.Base, source: ImageSource) -> Stored:
    """The image that a root disk is made of, which must be the one that is declared."""
    again = f"To begin with the other one, remove the disk: `vnet disk rm {vm} {wanted.name}`"
    pin = source.file.sha256 if source.file else source.sha256
    if pin and pin != base.sha256:
        raise HostError(
            f"the disk {wanted.name} is made of another image (SHA-256 {base.sha256}) than is declared "
            f"({pin}), and what is on it stays. {again}"
        )
    if base.name != str(source) and _known_id(source) != base.id:
        raise HostError(
            f"the disk {wanted.name} is made of the image {base.name}, and what is on it stays. {again}"
        )
    image = store.by_id(base.id)
    if image is None:
        raise HostError(
            f"the image {base.name} ({base.id}), of which the disk {wanted.name} is made, is missing:"
            f" {base_note.remedy(base)}"
        )
    return store.sound(image)


def _known_id(source: ImageSource) -> str:
    """The ID that an image has, or would have; empty if there is none."""
    with contextlib.suppress(VnetError):
        if source.file is None:
            return _named(source).id
        path = Path(source.file.path)
        kind = image_file.recognise(image_import.ends_of(path), source.file.path, source.format)
        return stored.identify(_sum_of(path), kind)
    return ""


def _named(source: ImageSource, *, iso: bool = False) -> Stored:
    """An image of the store, of the kind that is needed."""
    found = store.find(source.name)
    stored.refuse_pin(f"the image {source.name}", source.sha256, found.sha256)
    if found.is_iso and not iso:
        raise HostError(f"{source.name} is a medium and not a disk: `boot: {{iso: {source.name}}}` is for it")
    if iso and not found.is_iso:
        raise HostError(f"{source.name} is a disk and not a medium: `image: {source.name}` is for it")
    return store.sound(found)


def _iso(source: ImageSource) -> Path:
    """A medium's file."""
    if source.file is None:
        return store.path_of(_named(source, iso=True))
    path = Path(source.file.path)
    kind = image_file.recognise(image_import.ends_of(path), source.file.path)
    if kind is not ImageFormat.ISO:
        raise HostError(f"{path} is no medium (ISO 9660) but {kind.value}")
    if source.file.sha256:
        stored.refuse_pin(source.file.path, source.file.sha256, _sum_of(path))
    return path


def kernel_of(source: ImageSource) -> tuple[bytes, bytes]:
    """A kernel and its initrd, as they were checked."""
    assert source.kernel is not None
    return _read(source.kernel), (_read(source.initrd) if source.initrd else b"")


def _read(file: ImageFile) -> bytes:
    try:
        data = Path(file.path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {file.path}: {error.strerror}") from error
    stored.refuse_pin(file.path, file.sha256, hashlib.sha256(data).hexdigest())
    return data


def flash() -> Flash:
    """The firmware for UEFI that this host has. Raises HostError if it has none."""
    found = next(
        (each for each in BUILDS if Path(each.code).exists() and Path(each.variables).exists()), None
    )
    if found is None:
        raise HostError(f"this host has no UEFI firmware for VMs: install it with `apt install {PACKAGE}`")
    return found


_known_sums: dict[tuple[Path, Stamp], str] = {}


def _sum_of(path: Path) -> str:
    """That of a file; one that nobody has written to since is not read again."""
    key = (path, store.stamp_of(path))
    if key not in _known_sums:
        _known_sums[key] = sha256_of(path)
    return _known_sums[key]


# ---- making ready ------------------------------------------------------------------------------


class Preparer:
    """Finds what guests boot; an image that many need is imported once."""

    def __init__(self) -> None:
        self._locks: dict[str, asyncio.Lock] = {}

    async def prepare(self, spec: GuestSpec, progress: Progress) -> Prepared:
        """What a guest boots, imported if need be."""
        boot, root = spec.boot, spec.root
        iso = await asyncio.to_thread(_iso, boot.iso) if boot.iso else None
        if boot.root is None or root is None:
            return Prepared(boot, spec.disks, iso=iso)
        image = await self._root(spec, root, boot.root, progress)
        sized = replace(root, size_bytes=root_disk.size_bytes(root, image))
        disks = tuple(sized if each is root else each for each in spec.disks)
        return Prepared(boot, disks, image, iso)

    async def _root(self, spec: GuestSpec, wanted: Disk, source: ImageSource, progress: Progress) -> Stored:
        base = await asyncio.to_thread(root_disk.existing, spec.fabric, spec.name, wanted)
        if base is not None:
            return await asyncio.to_thread(_base_image, spec.name, wanted, base, source)
        if source.file is None:
            return await asyncio.to_thread(_named, source)
        async with self._locks.setdefault(source.file.path, asyncio.Lock()):
            known = await asyncio.to_thread(_imported, source)
            if known is not None:
                return known
            progress(f"importing the image {source}")
            file = source.file
            wanted_file = image_import.Wanted(Path(file.path), file.sha256, source.format, source.cloud_init)
            return await image_import.put(wanted_file, progress)


def _imported(source: ImageSource) -> Stored | None:
    """The image of a file that was imported before."""
    found = store.by_id(_known_id(source))
    if found is None or source.file is None:
        return None
    stored.refuse_pin(source.file.path, source.file.sha256, found.sha256)
    with contextlib.suppress(HostError):
        return store.sound(found)
    return None
