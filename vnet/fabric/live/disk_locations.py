"""The locations of this host where disks of VMs may lie, as answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vnet.hv.live import disk, locations
from vnet.hv.live.locations import DiskLocation

Json = Mapping[str, Any]


def listed() -> list[Json]:
    """All of them, with how many disks lie there as far as they are there."""
    counted = Counter(each.location for each in disk.kept())
    return [_plain(each, counted[each.name]) for each in locations.listed()]


def add(name: str, folder: str) -> Json:
    """Name a folder of this host."""
    added = locations.add(name, Path(folder))
    disks = sum(each.location == name for each in disk.kept())
    return {**_plain(added, disks), "in_memory": locations.is_in_memory(added.folder)}


def remove(name: str, *, is_lost: bool) -> Json:
    """Forget one at which no disks lie."""
    return _plain(locations.remove(name, is_lost=is_lost), 0)


def _plain(one: DiskLocation, disks: int) -> Json:
    return {
        "location": one.name,
        "folder": str(one.folder),
        "free_bytes": one.free_bytes,
        "disks": disks,
        "trouble": one.trouble,
    }
