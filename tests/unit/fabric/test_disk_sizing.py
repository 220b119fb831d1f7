"""Disks that are too small for what is to be on them, or almost full."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.test_doctor import HEALTHY, SEEN
from tests.unit.fabric.test_engine import SMALL, source
from vnet.base.boot import Boot, ImageFile, ImageSource
from vnet.fabric.disk_sizing import DiskSeen, advice
from vnet.fabric.doctor import diagnose
from vnet.fabric.live import disk_sizes
from vnet.fabric.state import Guest
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import disk, disk_snapshots, image_import, image_store, image_tool
from vnet.hv.live.image_import import Wanted
from vnet.hv.qemu_img import Image
from vnet.hv.snapshot import SavedDisk

MIB, GIB = 1 << 20, 1 << 30


def told(seen: DiskSeen) -> list[str]:
    return [each.text for each in advice([seen])]


@pytest.mark.parametrize(
    "seen",
    [
        DiskSeen("web", "data", GIB),
        DiskSeen("web", "root", 3 * GIB, image_bytes=2 * GIB),
        DiskSeen("web", "root", 2 * GIB, medium_bytes=600 * MIB),
        DiskSeen("web", "data", GIB, written_bytes=900 * MIB),
        DiskSeen("web", "data", 0),
    ],
)
def test_of_a_disk_that_does_nothing_is_said(seen: DiskSeen) -> None:
    assert told(seen) == []


def test_an_image_needs_half_as_much_again_for_what_is_to_come() -> None:
    assert told(DiskSeen("web", "root", 2200 * MIB, image_bytes=1600 * MIB)) == [
        "its disk root of 2,200 MiB is small for the 1,600 MiB of its image with logs and updates:"
        " declare `size: 3G`"
    ]


def test_a_small_image_is_small_beside_a_small_disk_only() -> None:
    assert told(DiskSeen("web", "root", 112 * MIB, image_bytes=40 * MIB)) == []
    (text,) = told(DiskSeen("web", "root", 200 * MIB, image_bytes=150 * MIB))
    assert text.endswith("declare `size: 256M`")


def test_what_a_medium_installs_takes_more_than_the_medium() -> None:
    (small,) = told(DiskSeen("web", "disk", GIB, medium_bytes=50 * MIB))
    assert small.endswith("what is installed from its medium of 50 MiB: declare `size: 2G`")
    (large,) = told(DiskSeen("web", "disk", 8 * GIB, medium_bytes=5 * GIB))
    assert large.endswith("declare `size: 10G`")


def test_a_disk_that_is_almost_full_is_told_with_a_larger_size() -> None:
    assert told(DiskSeen("web", "data", 10 * GIB, written_bytes=19 * GIB // 2)) == [
        "its disk data of 10,240 MiB has been written to 95 %: it is almost full, unless `fstrim` in it"
        " gives back what is free; declare `size: 15G`"
    ]


def test_what_describes_a_full_disk_makes_it_no_fuller() -> None:
    (text,) = told(DiskSeen("web", "data", GIB, written_bytes=GIB + MIB))
    assert "written to 100 %" in text


def test_the_doctor_warns_of_it() -> None:
    full = replace(HEALTHY, disks=(DiskSeen("a", "data", GIB, written_bytes=GIB),))
    (found,) = (each for each in diagnose(replace(SEEN, fabrics=(full,))) if each.check == "size")
    assert (found.subject, found.level.value) == ("a", "warning")
    assert "is almost full" in found.text


def test_a_plan_says_it_of_those_it_starts(tmp_path: Path) -> None:
    engine = make_engine(World(), tmp_path)
    engine.host = replace(
        engine.host, disks=lambda fabric, guest: (DiskSeen(guest.name, fabric, GIB, image_bytes=GIB),)
    )
    planned = asyncio.run(engine.plan(source(SMALL)))
    assert [each.vm for each in planned.advice] == ["a", "b"]
    assert "its disk small of 1,024 MiB is small" in planned.advice[0].text
    asyncio.run(engine.close())


# ---- what is seen on a host --------------------------------------------------------------------

ROOT = Disk("root", 0, is_root=True)
DATA = Disk("data", 64 * MIB)


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


def test_what_a_disk_has_taken_is_seen_unless_that_tells_nothing(state: Path) -> None:
    full = Disk("full", 8 * MIB, is_full=True)
    guest = Guest("web", "micro", 1, 96 * MIB, (), (DATA, full))
    assert [each.written_bytes for each in disk_sizes.look("shop", guest)] == [0, 0]
    for each in guest.disks:
        disk.ensure("shop", "web", each)
    written, nothing_known = disk_sizes.look("shop", guest)
    assert 0 < written.written_bytes < MIB
    assert (written.size_bytes, nothing_known.written_bytes) == (64 * MIB, 0)


def test_a_disk_that_keeps_snapshots_may_have_taken_any_amount(state: Path) -> None:
    guest = Guest("web", "micro", 1, 96 * MIB, (), (DATA,))
    disk.ensure("shop", "web", DATA)
    kept = SavedDisk(DATA.name, DATA.format, DATA.size_bytes)
    disk_snapshots.keep("shop", "web", [kept], "s1")
    assert disk_sizes.look("shop", guest)[0].written_bytes == 0
    disk_snapshots.drop("shop", "web", [kept], "s1")
    assert disk_sizes.look("shop", guest)[0].written_bytes > 0


def test_an_image_that_is_packed_is_counted_unpacked(state: Path) -> None:
    plain = state / "plain.raw"
    plain.write_bytes(b"vnet" * (10 * MIB // 4))
    packed = state / "packed.qcow2"
    call = qemu_img.convert(Image(plain, "raw"), packed)
    image_tool.run(replace(call, words=("-c", *call.words)))
    assert packed.stat().st_size < MIB
    image = asyncio.run(image_import.put(Wanted(packed), lambda told: None))
    image_store.name_it(image, "debian")
    guest = Guest("web", "debian", 1, 96 * MIB, (), (ROOT,), Boot(ImageSource("debian")))
    (seen,) = disk_sizes.look("shop", guest)
    assert (seen.size_bytes, seen.written_bytes) == (10 * MIB, 0)
    assert 10 * MIB <= seen.image_bytes < 11 * MIB


def test_the_first_disk_is_what_a_medium_installs_into(state: Path) -> None:
    medium = state / "medium.iso"
    medium.write_bytes(bytes(MIB))
    boot = Boot(None, iso=ImageSource("", ImageFile(str(medium))))
    guest = Guest("web", "", 1, 96 * MIB, (), (DATA, Disk("more", MIB)), boot)
    assert [each.medium_bytes for each in disk_sizes.look("shop", guest)] == [MIB, 0]


def test_an_image_that_is_missing_is_for_others_to_tell(state: Path) -> None:
    guest = Guest("web", "none", 1, 96 * MIB, (), (ROOT,), Boot(ImageSource("none")))
    assert disk_sizes.look("shop", guest) == ()
