"""Moves the file of a disk to another file system: copied beside its new place, put there, then removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live import half_done, host_files

Told = Callable[[str], None]
"""Told how far it is; what it raises breaks off."""
_PIECE_BYTES = 1 << 20
_ROOM_LEFT_BYTES = 64 << 20


def move(source: Path, target: Path, location: str, told: Told) -> None:
    """For who is alone in both folders. `location` is that of the target.

    Raises:
        HostError: it cannot be, and everything is as it was.
    """
    _refuse_no_room(source, target)
    part = host_files.part_of(target)
    try:
        half_done.begin_move(source, location)
        try:
            _copy(source, part, told)
            told("100 %")  # from here on it is carried out
            for note in half_done.notes(source):
                _copy(note, target.with_name(note.name), lambda text: None)
            part.rename(target)
            host_files.flush(target.parent)
        finally:
            half_done.end_move(source, target)
    except OSError as error:
        raise HostError(f"cannot move {source} to {target}: {error.strerror or error}") from error


def _refuse_no_room(source: Path, target: Path) -> None:
    needed, free = source.stat().st_blocks * 512, shutil.disk_usage(target.parent).free
    if needed + _ROOM_LEFT_BYTES > free:
        raise HostError(
            f"no room for {source.name} in {target.parent}: it takes {needed >> 20} MiB, and of {free >> 20}"
            f" MiB that are free {_ROOM_LEFT_BYTES >> 20} MiB are left to others"
        )


def _copy(source: Path, target: Path, told: Told) -> None:
    """With its holes, its time, and all of its room if it has all: the copy is on the host's disk then."""
    with source.open("rb") as given, target.open("wb") as made:
        os.fchmod(made.fileno(), 0o600)
        found = os.fstat(given.fileno())
        if found.st_blocks * 512 >= found.st_size > 0:
            os.posix_fallocate(made.fileno(), 0, found.st_size)
        for offset, data in host_files.pieces(given.fileno(), _PIECE_BYTES):
            made.seek(offset)
            made.write(data)
            told(f"{100 * offset // found.st_size} %")
        made.truncate(found.st_size)
        os.utime(made.fileno(), ns=(found.st_atime_ns, found.st_mtime_ns))
        os.fsync(made.fileno())
