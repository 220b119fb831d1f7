"""What a daemon that was killed has left half-made, of every kind, and the one that sweeps it up."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from vnet.base import paths
from vnet.hv.live import sweeping
from vnet.hv.live.backup_store import Store
from vnet.hv.live.disk_clone import staging


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("STATE", "RUN", "BACKUP"):
        monkeypatch.setenv(f"VNET_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path


def test_nothing_that_is_half_made_is_left_and_what_is_whole_stays() -> None:
    disks, store = paths.disks_dir() / "lab" / "db", Store.made(paths.backups_dir())
    halves = (
        disks / ".data.qcow2.part",
        disks / ".root.qcow2.base.json.part",
        disks / ".brought.qcow2.importing" / "source",
        disks.with_name("never-started") / ".brought.qcow2.importing" / "source",
        staging() / "lab.new" / "data.qcow2",
        paths.image_store() / ".gone-0123" / "disk.qcow2",
        paths.image_store() / ".building-x" / "disk.qcow2",
        paths.exports_dir() / "0123" / "db.ova",
        store.path / ".removed-db" / "data.qcow2",
        paths.workers_run_dir() / "0123" / "qmp.sock",
    )
    whole = (disks / "data.qcow2", paths.image_store() / "0123" / "disk.qcow2", store.path / "db" / "a.qcow2")
    for file in (*halves, *whole):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"")
    asyncio.run(sweeping.sweep())
    assert [file for file in halves if file.exists()] == []
    assert [file.parent for file in halves if file.parent != disks and file.parent.exists()] == []
    assert all(file.exists() for file in whole)
    assert [each.name for each in disks.parent.iterdir()] == ["db"], "of whom nothing is left no folder is"


def test_a_host_on_which_nothing_was_ever_made_stays_so(folder: Path) -> None:
    asyncio.run(sweeping.sweep())
    assert list(folder.iterdir()) == []
