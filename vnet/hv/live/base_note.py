"""What a disk is the difference to: an image of the store, by a note that lies beside the disk.

The note is root's. The disk's own header is not believed: the VM's QEMU writes it. Who uses an image is found
by looking at these notes; nothing is counted.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live import host_files, locations
from vnet.hv.live import image_store as store
from vnet.hv.stored import Stored

_NOTE = ".base.json"


@dataclass(frozen=True, slots=True)
class Base:
    """Which image a disk is made of; `name` is what the topology called it then.

    `is_own`: a base, made for linked clones; of a root disk name and SHA-256 are those of the image that is
    declared.
    """

    id: str
    name: str
    sha256: str
    is_own: bool = False


def base_of(path: Path) -> Base | None:
    """What a disk is made of; None of a disk that is made of nothing.

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


def image_of(path: Path) -> Stored | None:
    """The image that a disk is made of, as it was imported; None of a disk that is made of nothing.

    Raises:
        HostError: it is gone or has changed.
    """
    base = base_of(path)
    if base is None:
        return None
    image = store.by_id(base.id)
    if image is None:
        raise HostError(
            f"{path} is the difference to the image {base.name} ({base.id}), which is gone: {remedy(base)}"
        )
    return store.sound(image)


def remedy(base: Base) -> str:
    """What to do where the image of a disk is gone."""
    if base.is_own:
        return store.BASE_IS_LOST
    return f"import the file with SHA-256 {base.sha256} again (`vnet image import`)"


def open_base(path: Path, stack: ExitStack) -> int | None:
    """A descriptor, to be read only, of the image that a disk is made of; it is closed with the stack."""
    image = image_of(path)
    if image is None:
        return None
    return stack.enter_context(host_files.opened(store.path_of(image), os.O_RDONLY | os.O_NOFOLLOW))


def users(image: Stored) -> tuple[str, ...]:
    """The disks that are made of an image, as FABRIC/VM/DISK."""
    return tuple(_named(path) for path in _noted() if (base := base_of(path)) and base.id == image.id)


@dataclass(frozen=True, slots=True)
class Gone:
    """An image that is not there, and the disks that are made of it, as FABRIC/VM/DISK."""

    base: Base
    users: tuple[str, ...]


def gone() -> tuple[Gone, ...]:
    """The images that disks need and that have no file in the store. A note that is damaged says nothing."""
    found: dict[str, Gone] = {}
    for path in _noted():
        with suppress(HostError):
            base = base_of(path)
            if base and not is_there(base):
                before = found.get(base.id, Gone(base, ()))
                found[base.id] = Gone(before.base, (*before.users, _named(path)))
    return tuple(found.values())


def is_there(base: Base) -> bool:
    """Whether an image has its file in the store; whether that is sound is not looked at."""
    with suppress(HostError):
        image = store.by_id(base.id)
        return image is not None and store.path_of(image).exists()
    return False


def _noted() -> list[Path]:
    """The disks that are there and have a note."""
    notes = sorted(locations.files(f"*{_NOTE}"), key=lambda note: note.parts[-3:])
    disks = (note.with_name(note.name.removesuffix(_NOTE)) for note in notes)
    return [disk for disk in disks if disk.exists()]


def _named(path: Path) -> str:
    return "/".join((*path.parts[-3:-1], path.stem))


def note_of(path: Path) -> Path:
    """Where the note of a disk is, or would be."""
    return path.with_name(f"{path.name}{_NOTE}")


def write(path: Path, base: Base) -> None:
    """Notes what a disk is made of, before there is the disk."""
    host_files.replace_file(note_of(path), json.dumps(asdict(base)) + "\n")


def forget(path: Path) -> None:
    """Removes the note of a disk that is not there: the next one of that name is made of nothing."""
    if not path.exists():
        note_of(path).unlink(missing_ok=True)
