"""A user number for each QEMU, qemu-img and dnsmasq, so that one guest's QEMU can do nothing to another's."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, InputError

_FIRST_VARIABLE = "VNET_QEMU_UID_FIRST"
_FIRST = 60600
"""Of 60578-61183, which neither Debian nor systemd assigns. Source: systemd, docs/UIDS-GIDS.md."""
_COUNT = 580


def _first() -> int:
    text = os.environ.get(_FIRST_VARIABLE, str(_FIRST))
    if not text.isdigit() or int(text) < 1000:
        raise InputError(f"{_FIRST_VARIABLE}={text} is not a user number of 1000 or more")
    return int(text)


def images_group() -> int:
    """The group that may reopen the files of disks and images by their descriptors: qemu-img is in it."""
    return _first() + _COUNT


def claim_dir(folder: Path) -> int:
    """Makes a guest's folder, owned by a user number no other guest has, and returns the number.

    The folders' owners are the record of what is taken; nothing else has to be kept. A folder that is
    there already keeps its owner.
    """
    with _alone():  # else two could find the same number free
        try:
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError:
            owner = folder.stat().st_uid
            if owner in _range():
                return owner
        user = _free()
        os.chown(folder, user, user)
        _let_through(folder.parent)
    return user


def release(folder: Path) -> None:
    """Removes a folder that was claimed for a while, and the one around it if it is the last."""
    with _alone():
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):
            folder.parent.rmdir()


@contextmanager
def _alone() -> Iterator[None]:
    """By a lock on the folder itself, so that nothing is left of it."""
    paths.run_dir().mkdir(parents=True, exist_ok=True)
    descriptor = os.open(paths.run_dir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _let_through(folder: Path) -> None:
    """Lets QEMU's user reach its folder, whatever the umask was when those above it were made."""
    while folder.is_relative_to(paths.run_dir()) or folder.is_relative_to(paths.state_dir()):
        mode = folder.stat().st_mode
        if not mode & 0o001:
            folder.chmod(mode | 0o001)
        folder = folder.parent


def _range() -> range:
    return range(_first(), _first() + _COUNT)


def _free() -> int:
    taken = {folder.stat().st_uid for folder in _all_dirs()}
    for user in _range():
        if user not in taken:
            return user
    raise HostError(f"all {_COUNT} user numbers for guests from {_first()} on are taken")


def _all_dirs() -> list[Path]:
    run = paths.run_dir()
    found = [*run.glob("fabrics/*/vms/*/"), *run.glob("templates/*/"), *run.glob("workers/*/")]
    found += paths.state_dir().glob("services/*/*/")
    return [folder for folder in found if folder.is_dir()]
