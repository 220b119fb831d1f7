"""A user number for each QEMU, qemu-img and dnsmasq, so that one guest's QEMU can do nothing to another's."""

from __future__ import annotations

import os
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


def claim_dir(folder: Path) -> int:
    """Makes a guest's folder, owned by a user number no other guest has, and returns the number.

    The folders' owners are the record of what is taken; nothing else has to be kept. A folder that is
    there already keeps its owner.
    """
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
    found += paths.image_store().glob(".importing-*/")
    return [folder for folder in found if folder.is_dir()]
