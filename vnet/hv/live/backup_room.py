"""Whether a store's file system holds what a backup copies, before anything of it is made."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from vnet.hv import backup
from vnet.hv import backup_commands as commands
from vnet.hv.admission import DISK_RESERVE_BYTES, admit_backup
from vnet.hv.backup import Bitmap, Manifest
from vnet.hv.live import disk, locations
from vnet.hv.live.blocks import Blocks


def refuse_without_room(
    path: Path, blocks: Blocks, nodes: object, bitmaps: Mapping[str, Sequence[Bitmap]], manifest: Manifest
) -> None:
    """Raises AdmissionError with the sum. `nodes` is what QEMU says of them, `path` the store's folder."""
    taken = commands.taken(nodes)
    held = {name: taken.get(node, 0) + taken.get(f"{node}-base", 0) for name, node in blocks.nodes.items()}
    admit_backup(backup.needs(manifest, bitmaps, held), shutil.disk_usage(path).free, _kept(path), str(path))


def _kept(path: Path) -> int:
    """What is left free beside disks that grow; nothing where there are none."""
    file_systems = {disk.room(location).file_system for location in locations.roots()}
    return DISK_RESERVE_BYTES if path.stat().st_dev in file_systems else 0
