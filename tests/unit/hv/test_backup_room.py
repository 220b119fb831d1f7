"""Whether there is room for what is copied and for what is restored: asked of QEMU and of the file system."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.hv.test_backup import manifest
from vnet.base.errors import AdmissionError
from vnet.hv.admission import DISK_RESERVE_BYTES, Room
from vnet.hv.live import backup_room, disk
from vnet.hv.live.backup_room import refuse_restore_without_room
from vnet.hv.live.blocks import Blocks

KIB, MIB = 1 << 10, 1 << 20


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


@pytest.fixture
def fullest(tmp_path: Path) -> tuple[Path, ...]:
    """Three files of one disk of 8 MiB, with 1, 3 and 2 MiB in them, compressed to next to nothing."""
    found = []
    for index, held in enumerate((1, 3, 2)):
        raw, path = tmp_path / f"{index}.raw", tmp_path / f"{index}.qcow2"
        raw.write_bytes(b"x" * (held * MIB))
        raw.open("ab").truncate(8 * MIB)
        subprocess.run(["qemu-img", "convert", "-c", "-f", "raw", "-O", "qcow2", raw, path], check=True)
        assert path.stat().st_size < MIB
        found.append(path)
    return tuple(found)


def test_a_restore_asks_for_what_its_fullest_file_holds_unpacked_or_all_of_a_preallocated_disk(
    fullest: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    thin = replace(manifest("db-1").disks[0], name="thin", size_bytes=8 * MIB)
    whole = replace(thin, name="whole", is_full=True)
    rooms: dict[str, Room] = {}
    monkeypatch.setattr(disk, "room", lambda location: rooms[location])

    def asks(free_mib: int) -> None:
        free_bytes = DISK_RESERVE_BYTES + free_mib * MIB
        rooms.update(near=Room(1, free_bytes, "/near"), beside=Room(1, free_bytes, "/beside"))
        refuse_restore_without_room([(thin, "near", fullest), (whole, "beside", fullest[:1])], None)

    asks(12)
    with pytest.raises(AdmissionError, match="restored of thin, whole: 11 MiB or more are written"):
        asks(10)
    rooms["far"] = Room(2, DISK_RESERVE_BYTES, "/far")
    with pytest.raises(AdmissionError, match="restored of thin: 3 MiB or more are written, .* free in /far"):
        refuse_restore_without_room([(whole, "near", fullest[:1]), (thin, "far", fullest)], None)


def test_of_a_file_that_cannot_be_read_nothing_is_asked_as_its_sum_will_tell(tmp_path: Path) -> None:
    path = tmp_path / "a.qcow2"
    path.write_bytes(b"no disk")
    refuse_restore_without_room([(manifest("db-1").disks[0], "default", [path])], None)
