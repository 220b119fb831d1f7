"""What QEMU tells of disks that fail, and what is made of it."""

from __future__ import annotations

import asyncio
import json
import subprocess
from dataclasses import replace

import pytest

from vnet.base.boot import ImageSource
from vnet.base.errors import HostError
from vnet.hv import faults
from vnet.hv.disk import Disk, plugged
from vnet.hv.faults import DiskFault
from vnet.hv.live import base_note, boot, disk
from vnet.hv.live.faults import Faults
from vnet.hv.monitor import parse_event

FULL = DiskFault("disk0", "write: No space left on device", halts=True, no_room=True)
FAILED = DiskFault("disk1", "read: Input/output error")


def io_error(**data):
    usual = {"device": "", "node-name": "disk0", "operation": "write", "reason": "No space left on device"}
    return {"event": "BLOCK_IO_ERROR", "data": {**usual, **data}}


def test_errors_of_disks_are_told_apart_by_what_qemu_does_about_them():
    assert parse_event(io_error(action="stop", nospace=True)) == FULL
    report = io_error(action="report", operation="read", reason="Input/output error")
    assert parse_event({**report, "data": {**report["data"], "node-name": "disk1"}}) == FAILED
    assert parse_event(io_error(action="ignore")) is None


def test_damage_is_told_of_the_disk_also_if_it_is_in_what_the_disk_is_made_of():
    message = {
        "event": "BLOCK_IMAGE_CORRUPTED",
        "data": {"node-name": "disk1-base", "msg": "L2", "fatal": True},
    }
    assert parse_event(message) == DiskFault("disk1", "L2", damaged=True)


def test_a_new_manager_reads_why_a_guest_stands_still():
    well = {"io-status": "ok", "inserted": {"node-name": "disk0"}}
    ill = {"io-status": "nospace", "inserted": {"node-name": "disk1"}}
    assert faults.found([well, {}, ill]) == DiskFault("disk1", "I/O status nospace", halts=True, no_room=True)
    assert faults.found([well]) is None


def test_words_say_which_disk_what_happened_and_what_to_do():
    disks = plugged((Disk("data", 1 << 30),), 1)
    assert faults.disk_name(FULL, disks) == "data"
    assert faults.disk_name(FAILED, disks) == "disk1"
    assert "no space left in /d" in faults.in_words(FULL, "db", "data", "/d")
    assert "vnet resume db" in faults.in_words(FULL, "db", "data", "/d")
    assert "qemu-img check /d/data.qcow2" in faults.in_words(
        DiskFault("disk0", "L2", damaged=True), "db", "data", "/d"
    )


def test_one_whose_disk_is_being_copied_is_told_of_the_backup():
    copying = DiskFault("#block4883", "write: No space left on device", halts=True, no_room=True)
    text = faults.in_words(
        copying, "db", faults.disk_name(copying, plugged((Disk("data", 1 << 30),), 1)), "/d"
    )
    assert "backup" in text and "#block" not in text


def test_what_cannot_be_written_lets_it_stand_still_and_says_for_how_long():
    away = DiskFault("disk0", "write: Stale file handle", halts=True)
    assert "nothing is lost; `vnet resume db` tries again" in faults.in_words(away, "db", "data", "/d")
    copying = DiskFault("#block4883", "write: Input/output error", halts=True)
    assert "once the backup has been given up" in faults.in_words(copying, "db", "#block4883", "/d")
    assert [each.passes for each in (away, copying, FULL, FAILED)] == [False, True, True, False]


def test_one_that_stands_still_for_a_damaged_disk_says_that_also_after_another_try():
    async def test():
        met, damaged = Faults(), DiskFault("disk0", "L2", damaged=True)
        for _ in range(2):
            met.meet(damaged)
            met.meet(DiskFault("disk0", "write: Input/output error", halts=True))
            assert met.is_halted and met.latest == replace(damaged, halts=True) and not met.awaits_room
            met.go_on()
            assert met.latest == damaged and not met.is_halted

    asyncio.run(test())


def test_a_disk_that_fails_again_and_again_is_news_once():
    async def test():
        met = Faults()
        assert [met.meet(FAILED), met.meet(FAILED)] == [True, False]
        assert not met.is_halted and met.latest == FAILED

    asyncio.run(test())


def test_one_that_stands_still_is_not_hidden_by_another_fault_and_waits_unless_a_user_says_otherwise():
    async def test():
        met = Faults()
        met.meet(FULL)
        met.meet(FAILED)
        assert met.latest == FULL and met.awaits_room and met.halted.is_set()
        met.stays = True
        assert met.is_halted and not met.awaits_room
        met.go_on()
        assert met.latest is None and not met.halted.is_set() and not met.stays

    asyncio.run(test())


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    folder = tmp_path / "disks" / "lab" / "db"
    folder.mkdir(parents=True)
    return folder


def make(path):
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)


def test_a_disk_that_qemu_has_marked_as_corrupt_or_cannot_read_is_refused_and_can_be_removed(place):
    path, wanted = place / "data.qcow2", Disk("data", 1 << 20)
    make(path)
    disk.ensure("lab", "db", wanted)
    with path.open("r+b") as file:  # "incompatible_features", bit 1. Source: QEMU, docs/interop/qcow2
        file.seek(72)
        file.write((2).to_bytes(8, "big"))
    with pytest.raises(HostError, match="marked it as corrupt.*qemu-img check.*vnet backup restore"):
        disk.ensure("lab", "db", wanted)
    path.write_bytes(b"nothing of the kind")
    with pytest.raises(HostError, match=r"is damaged: .*not in qcow2 format"):
        disk.ensure("lab", "db", wanted)
    (kept,) = disk.kept("lab")
    assert (kept.size_bytes, kept.damage != "") == (0, True)
    disk.remove(kept)
    assert disk.kept("lab") == ()


def test_a_root_disk_whose_image_is_missing_is_refused_before_it_is_started(place):
    path, wanted = place / "root.qcow2", Disk("root", 0, is_root=True)
    make(path)
    note = {"id": "0123456789ab", "name": "debian-12", "sha256": "f" * 64}
    base_note.note_of(path).write_text(json.dumps(note))
    with pytest.raises(HostError, match="the image debian-12 .* is missing: .*`vnet image import`"):
        boot._look_at_root("lab", "db", wanted, ImageSource("debian-12"))
