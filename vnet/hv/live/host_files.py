"""Files of this host: opened, replaced as a whole, put on the disk, summed up."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_PART = ".part"
_PARTS = ".importing"
PARTS = (f".*{_PART}", f".*{_PARTS}")
"""The patterns of what is half-made."""


@contextmanager
def opened(path: Path, how: int = os.O_RDONLY) -> Iterator[int]:
    """A descriptor of a file that is there, or with `O_CREAT` of one that only its owner reads."""
    descriptor = os.open(path, how | os.O_CLOEXEC, 0o600)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


# ---- made elsewhere first ----------------------------------------------------------------------


def part_of(path: Path) -> Path:
    """Where a file is made before it is there: half a file has a name that no whole one has."""
    return path.with_name(f".{path.name}{_PART}")


def parts_of(path: Path) -> Path:
    """The same of one that takes a folder to be made in."""
    return path.with_name(f".{path.name}{_PARTS}")


def remove_parts(folder: Path) -> None:
    """Removes what a daemon that was killed has left half-made in a folder where nobody else is at work."""
    for part in (each for pattern in PARTS for each in folder.glob(pattern)):
        if part.is_dir():
            shutil.rmtree(part)
        else:
            part.unlink()


def replace_file(path: Path, content: str | bytes) -> None:
    """Writes a file that only its owner reads: after a crash it is the old one or the new one, and whole."""
    part = part_of(path)
    with opened(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW) as descriptor:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(content.encode() if isinstance(content, str) else content)
        os.fsync(descriptor)
    part.rename(path)
    flush(path.parent)


def flush(path: Path) -> None:
    """What is in a file, or the names in a folder, outlive a power cut from here on."""
    with opened(path) as descriptor:
        os.fsync(descriptor)


def sha256_of(path: Path) -> str:
    """Of all of a file, in hexadecimal."""
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        return hashlib.file_digest(file, "sha256").hexdigest()


def pieces(descriptor: int, most_bytes: int) -> Iterator[tuple[int, bytes]]:
    """What is in a file: the parts that are not holes, in order, with where they begin."""
    offset, end = 0, os.fstat(descriptor).st_size
    while offset < end:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole is left
                return
            raise
        until = os.lseek(descriptor, offset, os.SEEK_HOLE)
        while offset < until:
            data = os.pread(descriptor, min(most_bytes, until - offset), offset)
            if not data:
                return
            yield offset, data
            offset += len(data)
