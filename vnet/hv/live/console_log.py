"""What guests print on their serial consoles, kept on the host: of the current start and of the one before.

QEMU writes it itself, by a descriptor, so nothing is missing where no daemon ran, and the files are root's.
The kernel keeps them short: QEMU may write no file beyond a limit, which its disks can need to be high.
So a log begins with a hole that ends `ROOM_BYTES` before the limit. While a daemon runs, it puts what was
written aside before the room is used up; without one, what comes after a MiB is lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

from vnet.base import paths
from vnet.hv.live.host_files import opened, part_of

ROOM_BYTES = 1 << 20
_ASIDE_BYTES = ROOM_BYTES // 2
_LOOK_S = 2.0
_BLOCK_BYTES = 4096
"""Holes end where blocks of the file system do."""
_OLDER = ".older"


class Start(StrEnum):
    """Of which start."""

    CURRENT = "current"
    PREVIOUS = "previous"


@contextlib.contextmanager
def begun(fabric: str, vm: str, limit_bytes: int) -> Iterator[int]:
    """A descriptor for QEMU to append to; what was the current start's becomes the previous one's.

    Args:
        fabric: of the guest.
        vm: its name.
        limit_bytes: how long the process that writes may make a file.
    """
    folder = _folder(fabric, vm)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for suffix in (_OLDER, ""):
        (folder / f"{Start.PREVIOUS}{suffix}").unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            (folder / f"{Start.CURRENT}{suffix}").rename(folder / f"{Start.PREVIOUS}{suffix}")
    how = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND
    with opened(folder / Start.CURRENT, how) as descriptor:
        os.ftruncate(descriptor, _hole_bytes(limit_bytes))
        yield descriptor


def _hole_bytes(limit_bytes: int) -> int:
    return max(0, limit_bytes - ROOM_BYTES) // _BLOCK_BYTES * _BLOCK_BYTES


def remove(fabric: str, vm: str) -> None:
    """Forgets a guest that is no more."""
    shutil.rmtree(_folder(fabric, vm), ignore_errors=True)
    with contextlib.suppress(OSError):  # unless others are in there
        _folder(fabric, vm).parent.rmdir()


async def keep_short(fabric: str, vm: str) -> None:
    """For ever: sees to it that the latest has room."""
    while True:
        await asyncio.sleep(_LOOK_S)
        with contextlib.suppress(OSError):  # a full disk costs old lines, not the guest
            await asyncio.to_thread(put_aside, fabric, vm)


def put_aside(fabric: str, vm: str) -> None:
    """When half of the room is used, moves what was written into a file of its own; what was there goes.

    QEMU appends, so it goes on behind the hole. A line that comes between the last read and the cut is lost.
    """
    path = _folder(fabric, vm) / Start.CURRENT
    with opened(path, os.O_RDWR) as descriptor:
        begin = _begin(descriptor)
        if os.fstat(descriptor).st_size - begin < _ASIDE_BYTES:
            return
        _write_aside(path, _read(descriptor, begin))
        os.ftruncate(descriptor, begin)


def move(fabric: str, vm: str, limit_bytes: int) -> None:
    """Lets the latest begin further behind, since QEMU may make longer files from now on."""
    path = _folder(fabric, vm) / Start.CURRENT
    with opened(path, os.O_RDWR) as descriptor:
        begin, hole = _begin(descriptor), _hole_bytes(limit_bytes)
        if begin >= hole:
            return
        if os.fstat(descriptor).st_size > begin:
            older = path.with_name(f"{path.name}{_OLDER}")
            kept = older.read_bytes() if older.exists() else b""
            _write_aside(path, (kept + _read(descriptor, begin))[-ROOM_BYTES:])
        os.ftruncate(descriptor, begin)
        os.ftruncate(descriptor, hole)


def _write_aside(path: Path, data: bytes) -> None:
    older = path.with_name(f"{path.name}{_OLDER}")
    part = part_of(older)
    part.write_bytes(data)
    part.rename(older)


class Reader:
    """What is kept of a start, then what comes, over new starts and over what is put aside meanwhile."""

    def __init__(self, fabric: str, vm: str, start: Start) -> None:
        self._path = _folder(fabric, vm) / start
        self._file = 0
        self._read_to = 0

    @property
    def exists(self) -> bool:
        """Whether anything is kept, be it nothing that was printed."""
        return self._path.exists()

    def more(self) -> bytes:
        """At first all that is kept, then what has come since."""
        try:
            with opened(self._path, os.O_RDONLY) as descriptor:
                older = b"" if self._file else self._older()
                found = os.fstat(descriptor)
                if found.st_ino != self._file or found.st_size < self._read_to:
                    self._file, self._read_to = found.st_ino, 0
                self._read_to = max(self._read_to, _begin(descriptor))  # the hole may have grown
                data = _read(descriptor, self._read_to)
        except FileNotFoundError:
            return b""
        self._read_to += len(data)
        return older + data

    def _older(self) -> bytes:
        with contextlib.suppress(FileNotFoundError):
            return self._path.with_name(f"{self._path.name}{_OLDER}").read_bytes()
        return b""


def _begin(descriptor: int) -> int:
    """Where the hole ends. A file system without holes says 0: then what is read is bounded by the room."""
    size = os.fstat(descriptor).st_size
    try:
        begin = os.lseek(descriptor, 0, os.SEEK_DATA)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return size  # nothing but a hole
    return max(begin, size - ROOM_BYTES - _BLOCK_BYTES)


def _read(descriptor: int, begin: int) -> bytes:
    """To the end, however often that moves meanwhile."""
    pieces = []
    while piece := os.pread(descriptor, ROOM_BYTES, begin):
        pieces.append(piece)
        begin += len(piece)
    return b"".join(pieces)


def _folder(fabric: str, vm: str) -> Path:
    return paths.console_dir(fabric) / vm
