"""Locations: folders of this host, on other file systems as a rule, where disks of VMs may lie.

The host's administrator names them; topologies know the names only. A location is a symbolic link in the
state directory to a folder of vnet's own in the one that was named. That is made when the location is added
and never again: where it is missing, the file system that it is on is not mounted.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import HostError, InputError

OWN = "vnet-disks"
"""The folder that vnet makes in one that is named: what else lies there is none of its business."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class DiskLocation:
    """One of them. `folder` is the one that was named; `trouble` says why no disk can be used there now."""

    name: str
    folder: Path
    trouble: str = ""

    @property
    def free_bytes(self) -> int:
        """What is free there, or will be where no disk was made yet; 0 if it is missing."""
        near = next(each for each in (self.folder, *self.folder.parents) if each.exists())
        return 0 if self.trouble else shutil.disk_usage(near).free


# ---- finding -------------------------------------------------------------------------------------


def root(name: str) -> Path:
    """The folder of the disks at a location.

    Raises:
        HostError: nobody added it, its folder is missing, or others than root may write to it.
    """
    if name == DEFAULT_LOCATION:
        return paths.disks_dir()
    link = paths.disks_dir(name) if _NAME.fullmatch(name) else None
    if link is None or not link.is_symlink():
        known = ", ".join(each.name for each in listed())
        raise HostError(
            f"this host has no location {name} for disks, only {known}: its administrator adds one with"
            f" `vnet disk location add {name} FOLDER`"
        )
    trouble = _trouble(link.readlink())
    if trouble:
        raise HostError(f"the location {name} cannot be used: {trouble}")
    return link


def is_known(name: str) -> bool:
    """Whether there is one of that name, missing or not."""
    return any(each.name == name for each in listed())


def listed() -> tuple[DiskLocation, ...]:
    """All of them, the default first."""
    with suppress(FileNotFoundError):
        links = sorted(each for each in paths.locations_dir().iterdir() if each.is_symlink())
        return (_default(), *map(_added, links))
    return (_default(),)


def _default() -> DiskLocation:
    return DiskLocation(DEFAULT_LOCATION, paths.disks_dir())


def _added(link: Path) -> DiskLocation:
    own = link.readlink()
    return DiskLocation(link.name, own.parent, _trouble(own))


def roots() -> dict[str, Path]:
    """The folders of disks at the locations that can be used now, by name."""
    return {each.name: paths.disks_dir(each.name) for each in listed() if not each.trouble}


def files(pattern: str) -> Iterator[Path]:
    """What VMs have in their folders of disks that is called so, at all locations that can be used now."""
    for folder in roots().values():
        yield from sorted(folder.glob(f"[!.]*/*/{pattern}"))


def places(fabric: str, vm: str, file: str) -> dict[str, Path]:
    """Where a file of a VM's disks is, by location."""
    found = {name: folder / fabric / vm / file for name, folder in roots().items()}
    return {name: path for name, path in found.items() if path.exists()}


def of(path: Path) -> str:
    """The location of a file of disks."""
    folder = path.parent.parent.parent
    return DEFAULT_LOCATION if folder == paths.disks_dir() else folder.name


def missing() -> tuple[DiskLocation, ...]:
    """Those that cannot be used now: what lies there is not known."""
    return tuple(each for each in listed() if each.trouble)


def unseen() -> str:
    """What is to be added where it is said that there is no such disk: the locations nobody can look into."""
    lost = [f"; or it lies at the location {each.name}: {each.trouble}" for each in missing()]
    return "".join(lost)


def staging(location: str = DEFAULT_LOCATION) -> Path:
    """Where disks are made for other VMs, beside those of a location, in the same file system."""
    return paths.cloning_dir() if location == DEFAULT_LOCATION else root(location) / ".cloning"


def make_folder(folder: Path) -> None:
    """Makes the folder of a VM's disks, never the location's own. Raises HostError if the host refuses."""
    location = folder.parent.parent
    try:
        if location == paths.disks_dir():
            location.mkdir(parents=True, exist_ok=True)
        for each in (folder.parent, folder):
            each.mkdir(exist_ok=True, mode=0o700)
    except OSError as error:
        raise HostError(f"cannot make {folder}: {error.strerror or error}") from error


_IN_MEMORY = {"tmpfs", "ramfs"}


def is_in_memory(folder: Path) -> bool:
    """Whether what lies in a folder is gone when the host is started anew. Source: proc(5), mountinfo."""
    number = folder.stat().st_dev
    device = f"{os.major(number)}:{os.minor(number)}"
    mounts = (line.partition(" - ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    return any(
        before.split()[2] == device and behind.split()[0] in _IN_MEMORY for before, _, behind in mounts
    )


# ---- adding and removing -------------------------------------------------------------------------


def add(name: str, folder: Path) -> DiskLocation:
    """Names a folder.

    Raises:
        InputError: it is no such name or folder, or is taken.
        HostError: others than root may write there, or the host refuses.
    """
    if not _NAME.fullmatch(name):
        raise InputError(f"{name!r} is no name for a location: lowercase letters, digits and -, at most 63")
    if not folder.is_absolute() or not folder.is_dir():
        raise InputError(f"{folder} is no folder of this host: name one that is there, by its whole path")
    own = folder.resolve() / OWN
    _refuse_taken(name, own)
    trouble = _unsafe(own.parent)
    if trouble:
        raise HostError(f"{folder} is refused: {trouble}")
    try:
        own.mkdir(mode=0o700, exist_ok=True)
        paths.locations_dir().mkdir(parents=True, exist_ok=True, mode=0o700)
        paths.disks_dir(name).symlink_to(own)
    except OSError as error:
        raise HostError(f"cannot make a location of {folder}: {error.strerror or error}") from error
    return _added(paths.disks_dir(name))


def _refuse_taken(name: str, own: Path) -> None:
    if own.is_relative_to(paths.state_dir().resolve()):
        raise InputError(f"{own.parent} is vnet's own: name a folder outside {paths.state_dir()}")
    for each in listed():
        if each.name == name:
            raise InputError(f"there is a location {name} already: {each.folder}")
        if each.folder == own.parent:
            raise InputError(f"{own.parent} is the location {each.name} already")
        there = each.folder / OWN
        if own.is_relative_to(there) or there.is_relative_to(own):
            raise InputError(f"{own} and {there}, of the location {each.name}, would lie in each other")


def remove(name: str, *, is_lost: bool = False) -> DiskLocation:
    """Forgets a location. Its folder stays as it is, without what vnet made there.

    Args:
        is_lost: also one that is missing; whatever lies there is given up.

    Raises:
        InputError: there is none.
        HostError: disks lie there, or it is missing.
    """
    link = paths.disks_dir(name) if _NAME.fullmatch(name) else None
    if name == DEFAULT_LOCATION or link is None or not link.is_symlink():
        raise InputError(f"there is no location {name} that could be removed: `vnet disk location ls`")
    found = _added(link)
    if found.trouble and not is_lost:
        raise HostError(
            f"nobody can tell whether disks lie at {name}: {found.trouble}; or give them up with `--lost`"
        )
    if not found.trouble:
        _refuse_used(name, link)
        _clear(link)
    link.unlink()
    return found


def _refuse_used(name: str, link: Path) -> None:
    found = sorted({"/".join(each.parts[-3:-1]) for each in link.glob("[!.]*/*/[!.]*")})
    if found:
        raise HostError(
            f"disks lie at the location {name}, of {', '.join(found)}: `vnet disk ls -o wide` lists them,"
            " `vnet disk move` moves one elsewhere"
        )


def _clear(link: Path) -> None:
    """Removes empty folders, with the locks in them; anything else that lies there stays."""
    own = link.readlink()
    for lock in own.glob("*/*/.lock"):
        lock.unlink()
    for folder in (*own.glob("*/*/"), *own.glob("*/"), own):
        with suppress(OSError):
            folder.rmdir()


# ---- trust -----------------------------------------------------------------------------------------


def _trouble(own: Path) -> str:
    """Why disks cannot be used in a folder of vnet's own; empty if they can."""
    try:
        if not stat.S_ISDIR(own.lstat().st_mode):
            return f"{own} is no folder"
        return _unsafe(own)
    except FileNotFoundError:
        return f"{own} is missing: mount the file system of {own.parent}, it is not made anew"
    except OSError as error:
        return f"{own}: {error.strerror}"


def _unsafe(folder: Path) -> str:
    """Who but root could put something else in the place of a folder, or into it; empty if nobody."""
    for each in (folder, *folder.parents):
        found = each.lstat()
        is_shared = found.st_mode & 0o022 and not (each != folder and found.st_mode & stat.S_ISVTX)
        if found.st_uid not in (0, os.geteuid()):
            return f"{each} does not belong to root"
        if stat.S_ISLNK(found.st_mode):
            return f"{each} is a symbolic link"
        if is_shared:
            return f"others than root may write to {each}: `chmod go-w {each}`"
    return ""
