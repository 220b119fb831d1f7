"""Whether a store holds what is to be copied: asked of QEMU and of the file system."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.hv.test_backup import manifest
from vnet.base.errors import AdmissionError
from vnet.hv.admission import DISK_RESERVE_BYTES
from vnet.hv.live import backup_room
from vnet.hv.live.blocks import Blocks

KIB = 1 << 10


def node(name: str, taken_kib: int) -> dict[str, Any]:
    return {"node-name": name, "image": {"virtual-size": 1 << 20, "actual-size": taken_kib * KIB}}


NODES = [node("disk0", 300), node("disk0-base", 200), node("disk1", 100)]
NAMES = cast(Blocks, SimpleNamespace(nodes={"a": "disk0", "b": "disk1"}))


def asks(store: Path) -> None:
    backup_room.refuse_without_room(store, NAMES, NODES, {"a": (), "b": ()}, manifest("db-1"))


@pytest.mark.parametrize("beside_disks", [True, False])
def test_what_is_behind_a_disk_is_copied_too_and_disks_keep_room_to_grow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beside_disks: bool
) -> None:
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path if beside_disks else "/proc"))
    enough = 600 * KIB + DISK_RESERVE_BYTES * beside_disks
    free = SimpleNamespace(free=enough)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    asks(tmp_path)
    free.free = enough - 1
    with pytest.raises(AdmissionError, match="not enough room for a backup of a, b"):
        asks(tmp_path)
