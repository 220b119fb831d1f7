"""What disks keep of snapshots inside their own files, while no QEMU has them: kept, taken back, dropped."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv import firmware, qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import image_tool, keys, locations
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.disk import not_there, path_of
from vnet.hv.live.host_files import replace_file
from vnet.hv.qemu_img import Call, Image
from vnet.hv.snapshot import SavedDisk, Snapshot
from vnet.hv.spec import GuestSpec


def file_of(fabric: str, vm: str, disk: SavedDisk) -> Path | None:
    """Where a disk is: it may have been moved since. None if it is gone, or was not made yet.

    Raises: HostError if it may be at a location that is missing.
    """
    found = locations.places(fabric, vm, Disk(disk.name, disk.size_bytes, disk.format).file)
    if not found and locations.missing():
        raise HostError(f"the disk {disk.name} of {vm} is gone{locations.unseen()}")
    return next(iter(found.values()), None)


def keep(fabric: str, vm: str, disks: Iterable[SavedDisk], snapshot: str) -> None:
    """Keeps the contents of disks as they are."""
    for disk in disks:
        file = file_of(fabric, vm, disk)
        if file is None:
            raise not_there(vm, disk.name)
        _snapshot("-c", snapshot, file)


def keep_variables(spec: GuestSpec, folder: Path) -> None:
    """Keeps what a guest's firmware has, which stands still, in the folder of the snapshot."""
    for each in firmware.kept(spec.boot):
        file = path_of(spec.fabric, spec.name, each)
        with files.explained("keep what UEFI has in", folder), suppress(FileNotFoundError):
            replace_file(files.variables(folder, spec.name), file.read_bytes())  # or it was never started


def drop(fabric: str, vm: str, disks: Iterable[SavedDisk], snapshot: str) -> None:
    """Forgets what was kept, as far as it was."""
    for disk in disks:
        file = file_of(fabric, vm, disk)
        if file and snapshot in names(file):
            _snapshot("-d", snapshot, file)


def refuse_missing(snapshot: Snapshot, vm: str) -> None:
    """Raises HostError if one of the disks was made anew since, or removed."""
    for disk in snapshot.of(vm).disks:
        file = file_of(snapshot.fabric, vm, disk)
        if file is None or snapshot.id not in names(file):
            raise HostError(
                f"the disk {disk.name} of {vm} was removed or made anew since, and does not keep the snapshot"
                f" {snapshot.name} any more: nothing was changed. `vnet snapshot rm {vm} {snapshot.name}`"
            )


def take_back(snapshot: Snapshot, vm: str) -> None:
    """Makes disks what they were, also in size, and what firmware keeps. Doing it again does no harm.

    What was noted of their changes, for incremental backups, is no longer true and removed.
    """
    for disk in snapshot.of(vm).disks:
        file = file_of(snapshot.fabric, vm, disk)
        if file is None:
            raise HostError(f"the disk {disk.name} of {vm} is gone, and with it the snapshot {snapshot.name}")
        for bitmap in _bitmaps(_info(file)):
            _forget(bitmap, file)
        _snapshot("-a", snapshot.id, file)
    kept = files.variables(files.folder_of(snapshot), vm)
    if kept.exists():
        replace_file(path_of(snapshot.fabric, vm, firmware.variables_disk(0)), kept.read_bytes())


def _snapshot(how: str, snapshot: str, file: Path) -> None:
    _change(file, lambda image, key: qemu_img.snapshot(image, how, snapshot, key))


def _forget(bitmap: str, file: Path) -> None:
    _change(file, lambda image, key: qemu_img.remove_bitmap(image, bitmap, key))


def _change(file: Path, call: Callable[[Image, bytes | None], Call]) -> None:
    """Have qemu-img change a disk; it gets the key of an encrypted one."""
    is_encrypted, vm = image_tool.head(file).is_encrypted, file.parent
    key = keys.read(vm.parent.name, vm.name, file.stem) if is_encrypted else None
    image_tool.run(call(Image(file, is_encrypted=is_encrypted), key))


def _info(file: Path) -> dict[str, object]:
    return dict(json.loads(image_tool.run(qemu_img.info(Image(file))).output))


def names(file: Path) -> set[str]:
    """The snapshots that a disk keeps."""
    found = _info(file).get("snapshots", [])
    return {str(each["name"]) for each in found} if isinstance(found, list) else set()


def _bitmaps(info: dict[str, object]) -> list[str]:
    with suppress(KeyError, TypeError):
        return [each["name"] for each in info["format-specific"]["data"]["bitmaps"]]  # type: ignore[index]
    return []
