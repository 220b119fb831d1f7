"""Whether file systems hold what a backup copies and what a restore writes, before anything of it is made."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv import backup
from vnet.hv import backup_commands as commands
from vnet.hv.admission import DISK_RESERVE_BYTES, Room, admit_backup, admit_restored, by_file_system
from vnet.hv.backup import Bitmap, Manifest, SavedDisk
from vnet.hv.live import disk, image_tool, locations
from vnet.hv.live.blocks import Blocks
from vnet.hv.qemu_img import Image


def refuse_without_room(
    path: Path, blocks: Blocks, nodes: object, bitmaps: Mapping[str, Sequence[Bitmap]], manifest: Manifest
) -> None:
    """Raises AdmissionError with the sum. `nodes` is what QEMU says of them, `path` the store's folder."""
    taken = commands.taken(nodes)
    held = {name: taken.get(node, 0) + taken.get(f"{node}-base", 0) for name, node in blocks.nodes.items()}
    room = Room(path.stat().st_dev, shutil.disk_usage(path).free, str(path))
    admit_backup(backup.needs(manifest, bitmaps, held), room, _kept(path))


def _kept(path: Path) -> int:
    """What is left free beside disks that grow; nothing where there are none."""
    file_systems = {disk.room(location).file_system for location in locations.roots()}
    return DISK_RESERVE_BYTES if path.stat().st_dev in file_systems else 0


def refuse_restore_without_room(
    wanted: Iterable[tuple[SavedDisk, str, Sequence[Path]]], key: bytes | None
) -> None:
    """Raises AdmissionError with the sum of a file system that has too little.

    Args:
        wanted: each disk, the location where it is to be, and the files that are read of it.
        key: that of the files, if they are encrypted.
    """
    written = (
        (disk.room(location), saved.name, _written_bytes(saved, files, key))
        for saved, location, files in wanted
    )
    for room, disks in by_file_system(written):
        admit_restored(disks, room)


def _written_bytes(saved: SavedDisk, files: Sequence[Path], key: bytes | None) -> int:
    """At least: increments may hold the same parts of the disk, so the fullest counts and not their sum."""
    if saved.is_full:
        return saved.size_bytes
    with suppress(HostError):  # of what is damaged, which is told when it has been read
        return max(image_tool.held_bytes(Image(path, is_in_luks=key is not None), key) for path in files)
    return 0
