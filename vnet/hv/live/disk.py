"""Disks on this host: made, grown, listed, removed. Their folders are root's; QEMU gets descriptors."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import disk as disks
from vnet.hv.disk import Disk
from vnet.hv.live.lock import exclusive

_TIMEOUT_S = 600.0
_PART = ".part"


def ensure(fabric: str, vm: str, wanted: Disk) -> Path:
    """The disk, made if it is not there, grown if it is too small; contents stay.

    Raises: HostError when it would have to shrink, or the host refuses.
    """
    path = path_of(fabric, vm, wanted.file)
    with swept(path.parent):
        if not path.exists():
            with made_beside(path) as part:
                run(disks.create(wanted, str(part)))
        else:
            size_bytes = _size_bytes(path)
            disks.refuse_to_shrink(wanted, str(path), size_bytes)
            if size_bytes < wanted.size_bytes:
                run(disks.grow(wanted, str(path)))
    return path


@contextmanager
def swept(folder: Path) -> Iterator[None]:
    """Alone in a VM's folder of disks, rid of what a daemon that was killed has left half-made."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with exclusive(folder):
        for half in folder.glob(f"*{_PART}"):
            half.unlink()
        yield


def sweep() -> None:
    """Removes what a daemon that was killed has left half-made, of all VMs."""
    for folder in {half.parent for half in paths.disks_dir().glob(f"*/*/*{_PART}")}:
        with swept(folder):
            pass


@contextmanager
def made_beside(path: Path) -> Iterator[Path]:
    """Where a disk is made before it is there: half a disk has another name."""
    part = path.with_name(f"{path.name}{_PART}")
    try:
        yield part
        part.chmod(0o600)
        part.rename(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def refuse_to_shrink(fabric: str, vm: str, wanted: Disk) -> None:
    """Raises HostError for a disk that is there and larger than it is declared."""
    path = path_of(fabric, vm, wanted.file)
    disks.refuse_to_shrink(wanted, str(path), _size_bytes(path))


def missing_bytes(fabric: str, vm: str, wanted: Disk) -> int:
    """What a disk takes at once when it is made or grown: nothing of one that takes it as the guest writes.

    Raises: HostError for one that is there and cannot be read.
    """
    path = path_of(fabric, vm, wanted.file)
    if not wanted.is_full:
        return 0
    return max(0, wanted.size_bytes - (_size_bytes(path) if path.exists() else 0))


def free_bytes() -> int:
    """What is free where disks are, or will be."""
    folder = paths.disks_dir()
    return shutil.disk_usage(next(each for each in (folder, *folder.parents) if each.exists())).free


def open_all(fabric: str, vm: str, wanted: tuple[Disk, ...], stack: ExitStack) -> list[int]:
    """Descriptors of the disks, made where they are missing; they are closed with the stack."""
    opened = []
    for each in wanted:
        descriptor = os.open(ensure(fabric, vm, each), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        opened.append(descriptor)
    return opened


def open_as_they_are(fabric: str, vm: str, wanted: tuple[Disk, ...], stack: ExitStack) -> list[int]:
    """Descriptors of disks that a saved memory belongs to: they may not change, so not even grow."""
    opened = []
    for each in wanted:
        descriptor = os.open(path_of(fabric, vm, each.file), os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        stack.callback(os.close, descriptor)
        opened.append(descriptor)
    return opened


@dataclass(frozen=True, slots=True)
class Kept:
    """A disk that is on this host. `taken_bytes` is what it takes of the file system."""

    fabric: str
    vm: str
    name: str
    format: str
    path: Path
    size_bytes: int
    taken_bytes: int


def kept(fabric: str | None = None) -> tuple[Kept, ...]:
    """All disks there are, or those of one fabric, sorted."""
    found = sorted(path for path in paths.disks_dir().glob("*/*/*.*") if path.suffix[1:] in _FORMATS)
    return tuple(_kept(path) for path in found if fabric in (None, path.parent.parent.name))


_FORMATS = {each.value for each in disks.DiskFormat}


def _kept(path: Path) -> Kept:
    taken = path.stat().st_blocks * 512
    fabric, vm = path.parent.parent.name, path.parent.name
    return Kept(fabric, vm, path.stem, path.suffix[1:], path, _size_bytes(path), taken)


def remove(one: Kept) -> None:
    """Removes a disk with its contents, for good, and folders that are empty then."""
    with exclusive(one.path.parent):
        one.path.unlink(missing_ok=True)
        for note in one.path.parent.glob(f"{one.path.name}.*"):
            note.unlink()
    with suppress(OSError):
        for lock in one.path.parent.glob(".lock*"):
            lock.unlink()
        one.path.parent.rmdir()
        one.path.parent.parent.rmdir()


def path_of(fabric: str, vm: str, file: str) -> Path:
    """Where the file of a disk is, or would be."""
    return paths.disks_dir() / fabric / vm / file


def _size_bytes(path: Path) -> int:
    told = json.loads(run(("qemu-img", "info", "-U", "--output=json", "-f", path.suffix[1:], str(path))))
    return int(told["virtual-size"])


def run(command: tuple[str, ...]) -> str:
    """What a program printed. Raises HostError with all that it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S)
    except (OSError, subprocess.SubprocessError) as error:
        raise HostError(f"`{' '.join(command)}` failed: {error}; install qemu-utils") from error
    if done.returncode:
        raise HostError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
