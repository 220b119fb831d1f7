"""What a disk is the difference to: an image of the store, by a note that lies beside the disk.

The note is root's. The disk's own header is not believed: the VM's QEMU writes it. Who uses an image is found
by looking at these notes; nothing is counted.
"""

from __future__ import annotations

import json
import os
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live import host_files, locations
from vnet.hv.live import image_store as store
from vnet.hv.stored import Stored

_NOTE = ".base.json"


@dataclass(frozen=True, slots=True)
class Base:
    """Which image a disk is made of; `name` is what the topology called it then."""

    id: str
    name: str
    sha256: str


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
            f"{path} is the difference to the image {base.name} ({base.id}), which is gone: import it again"
        )
    return store.sound(image)


def open_base(path: Path, stack: ExitStack) -> int | None:
    """A descriptor, to be read only, of the image that a disk is made of; it is closed with the stack."""
    image = image_of(path)
    if image is None:
        return None
    return stack.enter_context(host_files.opened(store.path_of(image), os.O_RDONLY | os.O_NOFOLLOW))


def users(image: Stored) -> tuple[str, ...]:
    """The disks that are made of an image, as FABRIC/VM/DISK."""
    found = []
    for note in sorted(locations.files(f"*{_NOTE}"), key=lambda note: note.parts[-3:]):
        path = note.with_name(note.name.removesuffix(_NOTE))
        base = base_of(path) if path.exists() else None
        if base and base.id == image.id:
            found.append("/".join((*path.parts[-3:-1], path.stem)))
    return tuple(found)


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
