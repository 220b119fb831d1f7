"""Work on disks at several locations that a daemon was killed in: begun again from nothing, or ended.

What is done at one location is there in one step, a rename. Where there are two, marks say how far it came.
They count even if a location is missing when the daemon comes back, and is there again later.

    FABRIC/VM/DISK.FORMAT.moving   beside a disk that is being moved: where to. If it is there, this goes
    FABRIC/VM/.copy                in a folder that was copied for a VM: the number of the copy
    FABRIC/VM/.keys                in one that is being copied: the disks whose keys were made for it
    located/FABRIC/VM/DISK.FORMAT  in the state directory: where a disk lies, a link like that of `.moving`
    cloning/NUMBER.copy            in the state directory: the copy is not complete, all of it goes

Where to is what a symbolic link leads to, which takes no block: a disk is moved because there is no room.
"""

from __future__ import annotations

import logging
import secrets
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vnet.base import paths
from vnet.base.boot import DEFAULT_LOCATION
from vnet.hv.live import keys, locations
from vnet.hv.live.host_files import flush, part_of
from vnet.hv.live.lock import exclusive

log = logging.getLogger(__name__)

_MOVING = ".moving"
_COPY = ".copy"
_KEYS = ".keys"
MARKS = (f"*{_MOVING}", _COPY)
"""What they are called in VMs' folders of disks."""


def settle(folder: Path) -> None:
    """Ends what was begun, for who is alone in a VM's folder of disks.

    Raises:
        HostError: a location that it takes is missing.
    """
    _settle_copy(folder)
    for mark in sorted(folder.glob(MARKS[0])):
        _settle_move(mark)


# ---- moved ---------------------------------------------------------------------------------------


def begin_move(path: Path, location: str) -> None:
    """From here on a disk is on its way, until `finish_move` or `undo_move`."""
    _mark(path).symlink_to(location)
    flush(path.parent)


def finish_move(path: Path) -> None:
    """Removes a disk that was on its way, if it has arrived elsewhere."""
    mark = _mark(path)
    if mark.is_symlink():
        with exclusive(path.parent):
            _settle_move(mark)


def notes(path: Path) -> list[Path]:
    """What lies beside a disk that is about it, and would be moved with it."""
    return [each for each in sorted(path.parent.glob(f"{path.name}.*")) if each != _mark(path)]


def end_move(path: Path, target: Path) -> None:
    """Removes the one of both that is not complete. Doing it again does no harm."""
    if target.exists():
        note_place(target)
        path.unlink(missing_ok=True)
        for note in notes(path):
            note.unlink()
        flush(path.parent)
    else:
        note_place(path)
        part_of(target).unlink(missing_ok=True)
        for note in notes(target):
            note.unlink()
    _mark(path).unlink(missing_ok=True)


def _settle_move(mark: Path) -> None:
    path = mark.with_name(mark.name.removesuffix(_MOVING))
    with suppress(FileNotFoundError):
        location = str(mark.readlink())
        if not locations.is_known(location):  # given up, with whatever had arrived there
            mark.unlink()
            return
        end_move(path, locations.root(location).joinpath(*path.parts[-3:]))


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}{_MOVING}")


# ---- where they are ------------------------------------------------------------------------------


def note_place(path: Path) -> None:
    """Remembers at which location a disk lies, for when that is missing; of the ordinary one nothing is."""
    forget_place(path)
    if (location := locations.of(path)) != DEFAULT_LOCATION:
        note = _place(path)
        note.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        note.symlink_to(location)


def note_places(paths_: Collection[Path]) -> None:
    """Of all of them, or none. Raises OSError."""
    try:
        for path in paths_:
            note_place(path)
    except OSError:
        for path in paths_:
            forget_place(path)
        raise


def noted_folder(fabric: str, vm: str) -> Path:
    """Where there is a link for each disk of a VM that lies elsewhere than ordinary ones."""
    return paths.located_dir() / fabric / vm


def forget_place(path: Path) -> None:
    """There is no such disk any more, wherever it was."""
    note = _place(path)
    note.unlink(missing_ok=True)
    with suppress(OSError):  # unless there are others
        note.parent.rmdir()
        note.parent.parent.rmdir()


def noted_place(path: Path) -> str:
    """The location where a disk was last, if it was not the ordinary one."""
    note = _place(path)
    return str(note.readlink()) if note.is_symlink() else ""


def _place(path: Path) -> Path:
    return paths.located_dir().joinpath(*path.parts[-3:])


# ---- copied --------------------------------------------------------------------------------------


@contextmanager
def copying(folders: Collection[Path]) -> Iterator[Callable[[Path, Path], None]]:
    """Gives what puts folders into their places, all of them or none, for who holds `cloning`.

    Raises: OSError, and nothing was put.
    """
    number = secrets.token_hex(8)
    journal = locations.staging() / f"{number}{_COPY}"
    done: list[Path] = []

    def put(folder: Path, target: Path) -> None:
        folder.rename(target)
        done.append(target)

    try:
        for folder in folders:
            (folder / _COPY).write_text(number)
        journal.touch()
        yield put
    except BaseException:
        for folder in done:
            _give_up(folder)
            shutil.rmtree(folder)
        journal.unlink(missing_ok=True)
        raise
    journal.unlink()
    for folder in done:
        (folder / _KEYS).unlink(missing_ok=True)
        (folder / _COPY).unlink()


def _give_up(folder: Path) -> None:
    """Removes copies that are in their place, what is noted of it, and the keys that were made for them."""
    for each in folder.glob("[!.]*"):
        forget_place(each)
        each.unlink()
    remove_keys(folder, folder.parent.name, folder.name)


def note_key(folder: Path, disk: str) -> None:
    """A key is about to be made for a copy in that folder, and goes with it if it is not completed."""
    with (folder / _KEYS).open("a") as noted:
        noted.write(f"{disk}\n")


def remove_keys(folder: Path, fabric: str, vm: str) -> None:
    """Those that were made for copies that will not be completed; others may be needed by disks unseen."""
    noted = folder / _KEYS
    for disk in noted.read_text().split() if noted.exists() else ():
        keys.remove(fabric, vm, disk)


def settle_copies() -> None:
    """Removes copies that are not complete, for who holds `cloning`."""
    is_settled = not locations.missing()
    for mark in list(locations.files(_COPY)):
        try:
            _settle_copy(mark.parent)
        except OSError as error:
            log.warning("a copy that is not complete stays in %s: %s", mark.parent, error)
            is_settled = False
    if is_settled:
        for journal in locations.staging().glob(f"*{_COPY}"):
            journal.unlink()


def _settle_copy(folder: Path) -> None:
    mark = folder / _COPY
    if not mark.exists():
        return
    number = mark.read_text()
    if number and (locations.staging() / f"{number}{_COPY}").exists():
        _give_up(folder)
    (folder / _KEYS).unlink(missing_ok=True)
    mark.unlink()
