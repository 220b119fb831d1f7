"""Keys of encrypted disks: made at random, kept where the disks are not, given to QEMU by descriptor.

Who has a disk's file and not its key has nothing; without its key a disk is as good as erased.
"""

from __future__ import annotations

import os
import secrets
from base64 import b64encode
from contextlib import suppress
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv.secret import MAX_BYTES, RANDOM_BYTES


def make_key() -> bytes:
    """A new one, as text."""
    return b64encode(secrets.token_bytes(RANDOM_BYTES))


def write_new(path: Path, key: bytes) -> None:
    """Write a key to a file that only its owner reads; one that is there is never replaced.

    Raises: FileExistsError, OSError.
    """
    with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())


def path_of(fabric: str, vm: str, disk: str) -> Path:
    """Where the key of a disk is."""
    return paths.keys_dir() / fabric / vm / disk


def is_there(fabric: str, vm: str, disk: str) -> bool:
    """Whether there is one, also of a disk that is not there yet."""
    return path_of(fabric, vm, disk).exists()


def ensure(fabric: str, vm: str, disk: str) -> bytes:
    """The key of a disk that is to be made."""
    path = path_of(fabric, vm, disk)
    if is_there(fabric, vm, disk):
        return read(fabric, vm, disk)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_new(path, make_key())
    except OSError as error:
        raise HostError(f"cannot keep the key of {disk} in {path}: {error.strerror}") from error
    return read(fabric, vm, disk)


def read(fabric: str, vm: str, disk: str) -> bytes:
    """The key of a disk that is there. Raises HostError if it is missing, or others may read it."""
    path = path_of(fabric, vm, disk)
    try:
        with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
            refuse_open(path, os.fstat(file.fileno()).st_mode)
            return file.read(MAX_BYTES)
    except OSError as error:
        raise HostError(
            f"the key of the disk {disk} of {vm} cannot be read from {path} ({error.strerror}): put it back. "
            f"Without it nobody reads that disk again: `vnet disk rm {vm} {disk}` makes room for a new one"
        ) from error


def refuse_open(path: Path, mode: int) -> None:
    """Raise HostError for a key that not only its owner can read."""
    if mode & 0o077:
        raise HostError(f"{path} can be read by others ({mode & 0o777:o}): `chmod 600 {path}`")


def read_key(descriptor: int | None) -> bytes | None:
    """What is in a descriptor of `luks.secret_fd`, wherever it was read up to; None without one."""
    return None if descriptor is None else os.pread(descriptor, MAX_BYTES, 0)


def remove(fabric: str, vm: str, disk: str) -> None:
    """Remove the key of a disk for good, and folders that are empty then; one that is gone is no error."""
    path = path_of(fabric, vm, disk)
    with suppress(FileNotFoundError):
        path.unlink()
    for folder in (path.parent, path.parent.parent):
        with suppress(OSError):
            folder.rmdir()
