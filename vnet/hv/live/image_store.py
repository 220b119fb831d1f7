"""The host's store of images: found by name or ID, checked, removed. `image_import` puts them in.

Of an image that is in the store nothing changes any more: disks of VMs are differences to it. Its folder has
the image and `manifest.json`, with the checksum of what it was imported from and of what is kept.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, InputError
from vnet.hv import qemu_img, stored
from vnet.hv.live import image_tool
from vnet.hv.live.host_files import replace_file, sha256_of
from vnet.hv.live.lock import exclusive
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stamp, Stored

MANIFEST = "manifest.json"
BASE_IS_LOST = (
    "it is a base, which cannot be imported again. Remove the disks that are made of it (`vnet disk rm`);"
    " `vnet backup restore` then writes anew what is in a backup"
)


@dataclass(frozen=True, slots=True)
class Listed:
    """An image of the store with its names; `taken_bytes` is what it takes of the file system."""

    image: Stored
    names: tuple[str, ...]
    taken_bytes: int


def folder_of(image: Stored) -> Path:
    """Where it lies."""
    return paths.image_store() / image.id


def path_of(image: Stored) -> Path:
    """Its file."""
    return folder_of(image) / image.file


def by_id(image_id: str) -> Stored | None:
    """The image of that ID. Raises HostError if its manifest cannot be read."""
    path = paths.image_store() / image_id / MANIFEST
    try:
        return stored.from_json(path.read_text(), str(path))
    except (FileNotFoundError, NotADirectoryError):
        return None


def is_known(image_id: str) -> bool:
    """Whether the store has what can be read of an image; its file may be gone."""
    with contextlib.suppress(HostError):
        return by_id(image_id) is not None
    return False


def by_name(name: str) -> Stored | None:
    """The image of that name."""
    try:
        image_id = (_names() / name).readlink()
    except OSError:
        return None
    return by_id(image_id.name)


def find(word: str) -> Stored:
    """The image that a name or the begin of an ID means. Raises InputError if none or several."""
    named = by_name(word)
    if named:
        return named
    found = [each.image for each in listed() if len(word) >= 4 and each.image.id.startswith(word)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{word} is the begin of {len(found)} images' IDs: give more of it")
    known = ", ".join(sorted(name for each in listed() for name in each.names)) or "none"
    raise InputError(
        f"there is no image {word} in this host's store (there are: {known}); "
        f"put one in with `vnet image import FILE --name {word}`"
    )


def listed() -> tuple[Listed, ...]:
    """All images, those with names first, also those whose file is gone. One whose manifest is damaged is
    left out."""
    names: dict[str, list[str]] = {}
    for link in sorted(_names().glob("*")):
        with contextlib.suppress(OSError):
            names.setdefault(link.readlink().name, []).append(link.name)
    found = []
    for folder in paths.image_store().glob("*/"):
        with contextlib.suppress(HostError, OSError):
            image = None if folder.name.startswith(".") else by_id(folder.name)
            if image:
                path = path_of(image)
                taken = path.stat().st_blocks * 512 if path.exists() else 0
                found.append(Listed(image, tuple(names.get(image.id, ())), taken))
    return tuple(sorted(found, key=lambda each: (not each.names, each.names, each.image.id)))


def name_it(image: Stored, name: str) -> None:
    """Has a name mean this image from now on; whoever uses the one that it meant before goes on."""
    with exclusive(_names().parent):
        _names().mkdir(exist_ok=True)
        link = _names() / f".{name}"
        link.unlink(missing_ok=True)
        link.symlink_to(f"../{image.id}")
        link.rename(_names() / name)


def remove(image: Stored) -> None:
    """Removes an image and its names."""
    with exclusive(paths.image_store()):
        for link in _names().glob("*"):
            if link.readlink().name == image.id:
                link.unlink()
        gone = folder_of(image).with_name(f".gone-{image.id}")
        folder_of(image).rename(gone)  # at once, for whoever looks
        shutil.rmtree(gone)


def sweep() -> None:
    """Removes what a daemon left that was killed while it removed an image."""
    for gone in paths.image_store().glob(".gone-*/"):
        shutil.rmtree(gone, ignore_errors=True)


def sound(image: Stored) -> Stored:
    """The image, if it is as it was imported: one that somebody has written to is read as a whole.

    Raises:
        HostError: it is gone or has changed.
    """
    path = path_of(image)
    try:
        stamp = stamp_of(path)
    except OSError as error:
        raise HostError(f"the image {path} is gone ({error.strerror}): {_remedy(image)}") from error
    if stamp == image.stamp:
        return image
    if stamp.size_bytes != image.stamp.size_bytes or sha256_of(path) != image.kept_sha256:
        raise HostError(
            f"the image {path} is not as it was imported: somebody has written to it, or the disk is failing."
            f" VMs that are made of it are not started: {_remedy(image)}"
        )
    again = replace(image, stamp=stamp)
    write_manifest(again, folder_of(image))
    return again


def _remedy(image: Stored) -> str:
    return BASE_IS_LOST if image.is_base else f"import it again from {image.origin}"


def verify(image: Stored) -> None:
    """Reads all of an image. Raises HostError if it is not as it was imported."""
    path = path_of(image)
    if not path.exists():
        raise HostError(f"the image {path} is gone: {_remedy(image)}")
    if sha256_of(path) != image.kept_sha256:
        raise HostError(f"the image {path} is not as it was imported: {_remedy(image)}")
    if not image.is_iso:
        check(path)


def check(path: Path) -> None:
    """Raises HostError for a qcow2 file that contradicts itself."""
    image_tool.run(qemu_img.check(Image(path)))


def write_manifest(image: Stored, folder: Path) -> None:
    """Replaces the manifest."""
    replace_file(folder / MANIFEST, stored.to_json(image))


def stamp_of(path: Path) -> Stamp:
    """By what it is seen that nobody has written to a file."""
    found = path.stat()
    return Stamp(found.st_size, found.st_mtime_ns)


def _names() -> Path:
    return paths.image_store() / "names"
