"""Disks at locations: folders that the administrator named, and what may happen to them."""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from vnet.base import paths
from vnet.base.boot import MICRO_BOOT
from vnet.base.errors import HostError, InputError
from vnet.hv.disk import Disk, plugged
from vnet.hv.firmware import variables_disk
from vnet.hv.live import base_image, boot, disk, disk_clone, disk_snapshots, half_done, keys, locations
from vnet.hv.snapshot import SavedDisk

DATA = Disk("data", 4 << 20, location="fast")
PLAIN = Disk("data", 4 << 20)
RAW = replace(DATA, format="raw")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The one that is called fast; the state directory is `state` beside it."""
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    made = tmp_path / "nvme"
    made.mkdir(mode=0o755)
    locations.add("fast", made)
    return made


def unmounted(folder: Path) -> None:
    """As when the file system is not mounted: the folder is empty."""
    folder.rename(folder.with_name("elsewhere"))
    folder.mkdir()


def mounted(folder: Path) -> None:
    folder.rmdir()
    folder.with_name("elsewhere").rename(folder)


def files(root: Path) -> list[str]:
    return sorted(
        str(each.relative_to(root)) for each in root.rglob("*") if each.is_file() and each.name != ".lock"
    )


def test_what_is_in_memory_is_known_to_be_so():
    assert locations.is_in_memory(Path("/dev/shm"))
    assert not locations.is_in_memory(Path("/proc"))


# ---- naming ----------------------------------------------------------------------------------------


def test_a_disk_lies_in_the_folder_that_its_location_names(folder):
    path = disk.ensure("lab", "db", DATA)
    assert path.resolve() == folder / "vnet-disks" / "lab" / "db" / "data.qcow2"
    assert not paths.disks_dir().exists()
    (kept,) = disk.kept("lab")
    assert (kept.location, kept.name, kept.path) == ("fast", "data", path)
    with ExitStack() as stack:
        assert disk.open_disk("lab", "db", plugged((DATA,), 0)[0], stack).fds


def test_a_location_that_nobody_added_is_refused_with_the_command_that_adds_it(folder):
    with pytest.raises(
        HostError, match=r"no location slow for disks, only default, fast: .*location add slow FOLDER"
    ):
        disk.ensure("lab", "db", replace(DATA, location="slow"))


@pytest.mark.parametrize("name", ["../disks", "/etc", "..", "a/b", "", ".x", "UP", "a" * 64])
def test_no_name_of_a_location_is_a_path(folder, name):
    with pytest.raises(HostError, match="this host has no location"):
        disk.path_of("lab", "db", replace(DATA, location=name))
    with pytest.raises(InputError, match="is no name"):
        locations.add(name, folder)
    with pytest.raises(InputError, match="there is no location"):
        locations.remove(name)


def test_a_location_that_is_not_mounted_is_refused_and_never_made_anew(folder):
    disk.ensure("lab", "db", DATA)
    unmounted(folder)
    for act in (disk.ensure, disk.path_of):
        with pytest.raises(HostError, match=r"fast cannot be used: .*vnet-disks is missing: mount"):
            act("lab", "db", DATA)
    assert list(folder.iterdir()) == [] and disk.kept() == ()
    (_, missing) = locations.listed()
    assert missing.trouble and missing.free_bytes == 0
    mounted(folder)
    assert [each.location for each in disk.kept()] == ["fast"]


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777])
def test_a_folder_that_others_may_write_to_is_refused_when_it_is_added_and_when_it_is_used(folder, mode):
    folder.chmod(mode)
    with pytest.raises(HostError, match="others than root may write"):
        locations.root("fast") if not mode & 0o1000 else locations.add("other", _sub(folder, mode))
    folder.chmod(0o755)
    locations.root("fast")


def _sub(folder: Path, mode: int) -> Path:
    made = folder / "sub"
    made.mkdir()
    made.chmod(mode)
    return made


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_a_folder_of_somebody_else_is_refused(folder):
    os.chown(folder, 12345, 12345)
    with pytest.raises(HostError, match="does not belong to root"):
        disk.ensure("lab", "db", DATA)


def test_a_link_in_place_of_the_folder_is_not_followed(folder, tmp_path):
    own = folder / "vnet-disks"
    own.rename(tmp_path / "real")
    own.symlink_to(tmp_path / "real")
    with pytest.raises(HostError, match="is no folder"):
        locations.root("fast")


def test_a_folder_has_one_name_and_a_name_one_folder(folder, tmp_path):
    with pytest.raises(InputError, match="is the location fast already"):
        locations.add("other", folder)
    with pytest.raises(InputError, match="there is a location fast already"):
        locations.add("fast", tmp_path)
    with pytest.raises(InputError, match="there is a location default already"):
        locations.add("default", tmp_path)
    paths.disks_dir().mkdir()
    with pytest.raises(InputError, match="is vnet's own"):
        locations.add("inside", paths.disks_dir())
    with pytest.raises(InputError, match="by its whole path"):
        locations.add("other", Path("nvme"))
    with pytest.raises(InputError, match="by its whole path"):
        locations.add("other", tmp_path / "not there")


def test_no_location_lies_in_the_disks_of_another(folder, tmp_path):
    """Removing the outer one would take the folder of the inner one for an empty one of its own."""
    with pytest.raises(InputError, match="would lie in each other"):
        locations.add("inner", folder / "vnet-disks")
    outer = tmp_path / "outer"
    (outer / "vnet-disks").mkdir(parents=True, mode=0o755)
    locations.add("inner", outer / "vnet-disks")
    with pytest.raises(InputError, match="would lie in each other"):
        locations.add("outer", outer)


def test_a_location_with_disks_is_not_removed_and_an_empty_one_leaves_nothing(folder):
    disk.ensure("lab", "db", DATA)
    with pytest.raises(HostError, match="disks lie at the location fast, of lab/db"):
        locations.remove("fast")
    disk.remove(disk.kept()[0])
    locations.remove("fast")
    assert list(folder.iterdir()) == []
    assert [each.name for each in locations.listed()] == ["default"]


def test_what_else_lies_in_the_folder_is_none_of_vnets_business(folder):
    for name in ("photos/2024/summer.raw", "photos/2024/.half.part"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    disk.sweep()
    assert disk.kept() == ()
    locations.remove("fast")
    assert files(folder) == ["photos/2024/.half.part", "photos/2024/summer.raw"]


def test_a_missing_location_is_only_removed_when_it_is_given_up(folder):
    disk.ensure("lab", "db", DATA)
    unmounted(folder)
    with pytest.raises(HostError, match="nobody can tell whether disks lie at fast"):
        locations.remove("fast")
    locations.remove("fast", is_lost=True)
    mounted(folder)
    assert disk.kept() == ()
    locations.add("again", folder)
    assert [each.location for each in disk.kept()] == ["again"]


# ---- what disks do -----------------------------------------------------------------------------------


def test_a_disk_that_lies_elsewhere_is_refused_and_none_is_made_in_its_place(folder):
    disk.ensure("lab", "db", PLAIN)
    with pytest.raises(
        HostError, match=r"lies at the location default .* declared at fast: .*disk move db data fast"
    ):
        disk.ensure("lab", "db", DATA)
    found = boot.obstacles("lab", "db", MICRO_BOOT, (DATA, replace(DATA, name="new", location="slow")))
    assert [each.key for each in found] == ["disks.data", "disks.new"]
    assert "no location slow" in found[1].text
    assert boot.obstacles("lab", "db", MICRO_BOOT, (PLAIN, replace(DATA, name="new"))) == ()
    assert [each.location for each in disk.kept()] == ["default"]


def test_a_located_disk_grows_and_halves_of_it_are_swept(folder):
    path = disk.ensure("lab", "db", DATA)
    disk.ensure("lab", "db", replace(DATA, size_bytes=8 << 20))
    assert disk.kept()[0].size_bytes == 8 << 20
    half = path.with_name(".logs.qcow2.part")
    half.write_bytes(b"half")
    disk.sweep()
    assert not half.exists()


def test_what_is_free_is_that_of_its_own_file_system(folder, tmp_path):
    assert disk.room("fast").path == str(paths.disks_dir("fast"))
    if os.access("/dev/shm", os.W_OK):
        assert disk.room("fast").file_system == os.stat(tmp_path).st_dev
    full = replace(RAW, is_full=True)
    assert disk.missing_bytes("lab", "db", full) == 4 << 20


def test_the_key_of_a_disk_stays_as_long_as_one_of_its_name_is_there(folder):
    disk.ensure("lab", "db", replace(DATA, encrypt=True))
    twin = paths.disks_dir() / "lab" / "db"
    twin.mkdir(parents=True)
    shutil.copy(disk.kept()[0].path, twin)
    default, fast = disk.kept()
    unmounted(folder)
    disk.remove(default)
    assert keys.read("lab", "db", "data")
    mounted(folder)
    twin.mkdir(parents=True)
    shutil.copy(fast.path, twin)
    disk.remove(default)
    assert keys.read("lab", "db", "data")
    disk.remove(fast)
    with pytest.raises(HostError, match="key of the disk"):
        keys.read("lab", "db", "data")


def cloned(disks, *, is_linked=False):
    order = disk_clone.Order("lab", "db", "two", linked=is_linked)
    return asyncio.run(disk_clone.clone(order, disks, lambda text: None))


LOGS = Disk("logs", 4 << 20, "raw")
LOCKED = replace(PLAIN, encrypt=True)


def test_a_key_stays_as_long_as_there_is_a_disk_of_that_name_wherever_and_in_whatever_format(folder):
    for each in (replace(PLAIN, format="raw"), replace(LOCKED, location="fast")):
        disk.ensure("lab", "db", each)
    plain, locked = sorted(disk.kept("lab"), key=lambda each: each.is_encrypted)
    disk.remove(plain)
    assert keys.is_there("lab", "db", "data")
    disk.remove(locked)
    assert not keys.is_there("lab", "db", "data")


def test_what_is_encrypted_otherwise_than_is_declared_or_has_no_key_is_not_used(folder):
    wrongs = (
        (LOCKED, PLAIN, "is encrypted and is declared not to be"),
        (PLAIN, LOCKED, "is not encrypted and is declared to be"),
    )
    for there, declared, has in wrongs:
        disk.ensure("lab", "db", there)
        for act in (disk.ensure, disk.missing_bytes):
            with pytest.raises(HostError, match=has):
                act("lab", "db", declared)
        with pytest.raises(HostError, match=has):
            cloned((declared,))
        assert not disk.kept("lab")[1:] and not keys.is_there("lab", "two", "data")
        disk.remove(disk.kept("lab")[0])
    disk.ensure("lab", "db", LOCKED)
    keys.path_of("lab", "db", "data").unlink()
    with pytest.raises(HostError, match="the key of the disk data of db cannot be read"):
        disk.missing_bytes("lab", "db", LOCKED)


def test_the_copy_of_an_encrypted_disk_has_a_key_of_its_own_which_goes_if_it_is_not_completed(
    folder, monkeypatch
):
    disk.ensure("lab", "db", LOCKED)
    with monkeypatch.context() as patched:
        patched.setattr(half_done, "note_place", lambda path: no_room())
        with pytest.raises(HostError, match="No space left"):
            cloned((LOCKED,))
    assert not keys.is_there("lab", "two", "data") and [each.vm for each in disk.kept("lab")] == ["db"]
    cloned((LOCKED,))
    assert keys.read("lab", "two", "data") != keys.read("lab", "db", "data")
    assert not [each for each in files(paths.state_dir()) if ".keys" in each or ".copy" in each]


def no_room() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_daemon_that_is_killed_while_it_copies_an_encrypted_disk_leaves_it_with_its_key_or_neither(folder):
    disk.ensure("lab", "db", LOCKED)
    step, seen = 0, set[int]()
    while True:
        step += 2
        was_killed = killed_at(step, lambda: cloned((LOCKED,)))
        disk_clone.sweep()
        copies = [each for each in disk.kept() if each.vm == "two"]
        seen.add(len(copies))
        assert keys.is_there("lab", "two", "data") >= bool(copies), step
        for each in copies:
            disk.remove(each)
        if not was_killed:
            break
    assert seen == {0, 1} and keys.is_there("lab", "db", "data")


def test_no_copy_is_made_for_a_vm_that_has_a_disk_where_nobody_looks_now(folder):
    disk.ensure("lab", "db", LOCKED)
    disk.ensure("lab", "two", replace(LOCKED, location="fast"))
    before = keys.read("lab", "two", "data")
    unmounted(folder)
    with pytest.raises(HostError, match="two of lab has disks already"):
        cloned((LOCKED,))
    mounted(folder)
    assert keys.read("lab", "two", "data") == before


@pytest.mark.parametrize("is_linked", [False, True])
def test_a_copy_lies_where_its_source_does(folder, is_linked):
    for each in (DATA, LOGS):
        disk.ensure("lab", "db", each)
    assert cloned((DATA, LOGS), is_linked=is_linked)[0] == ("data", "logs")
    found = {(each.vm, each.name): each.location for each in disk.kept()}
    assert found["two", "data"] == "fast" and found["two", "logs"] == "default"
    assert [each.name for each in (paths.located_dir() / "lab" / "two").iterdir()] == ["data.qcow2"]
    with pytest.raises(HostError, match="two of lab has disks already, which are kept: .*data.qcow2"):
        cloned((DATA,))
    assert not [each for each in files(folder) + files(paths.cloning_dir()) if "copy" in each]


def test_a_disk_that_lies_elsewhere_is_not_taken_for_one_that_was_never_made(folder):
    """A copy of its VM would begin with an empty one, and nobody would be told."""
    disk.ensure("lab", "db", DATA)
    with pytest.raises(HostError, match="lies at the location fast .* and is declared at default"):
        cloned((PLAIN,))
    assert {each.vm for each in disk.kept()} == {"db"}


def test_what_firmware_keeps_is_not_moved_to_where_nobody_looks_for_it(folder):
    disk.ensure("lab", "db", variables_disk(4096))
    with pytest.raises(HostError, match="what the firmware of db keeps cannot be moved"):
        moved("fast")
    assert [each.location for each in disk.kept()] == ["default"]


def test_a_base_that_a_disk_at_a_missing_location_needs_is_kept(folder):
    disk.ensure("lab", "db", DATA)
    cloned((DATA,), is_linked=True)
    unmounted(folder)
    assert base_image.collect() == ()
    mounted(folder)
    assert base_image.collect() == ()
    disk.remove(next(each for each in disk.kept() if each.vm == "two"))
    assert len(base_image.collect()) == 1


def test_none_is_made_in_place_of_one_that_lies_at_a_missing_location(folder):
    disk.ensure("lab", "db", DATA)
    unmounted(folder)
    with pytest.raises(HostError, match="lies at the location fast, declared is default.*rm --lost fast"):
        disk.ensure("lab", "db", PLAIN)
    (found,) = boot.obstacles("lab", "db", MICRO_BOOT, (PLAIN,))
    assert found.key == "disks.data"
    disk.ensure("lab", "web", PLAIN)
    locations.remove("fast", is_lost=True)
    assert disk.ensure("lab", "db", PLAIN).exists()
    assert not (paths.located_dir() / "lab").exists()


def test_one_that_was_moved_back_or_removed_is_not_missed_elsewhere(folder):
    disk.ensure("lab", "db", PLAIN)
    moved("fast")
    assert str((paths.located_dir() / "lab" / "db" / "data.qcow2").readlink()) == "fast"
    moved("default")
    unmounted(folder)
    disk.ensure("lab", "db", PLAIN)
    mounted(folder)
    moved("fast")
    disk.remove(disk.kept("lab")[0])
    assert not (paths.located_dir() / "lab").exists()
    unmounted(folder)
    disk.ensure("lab", "db", PLAIN)


# ---- moving ------------------------------------------------------------------------------------------


def moved(to: str) -> Path:
    return disk.move(disk.kept("lab")[0], to, lambda text: None)


def test_a_disk_moves_with_its_holes_its_time_and_what_is_noted_of_it(folder):
    path = disk.ensure("lab", "db", replace(RAW, size_bytes=64 << 20, location="default"))
    with path.open("r+b") as file:
        file.seek(32 << 20)
        file.write(b"precious" * 1000)
    note = path.with_name("data.raw.base.json")
    note.write_text("{}")
    before, stamp = path.read_bytes(), path.stat().st_mtime_ns
    target = moved("fast")
    assert files(folder / "vnet-disks") == ["lab/db/data.raw", "lab/db/data.raw.base.json"]
    assert target.read_bytes() == before and target.stat().st_mtime_ns == stamp
    assert target.stat().st_blocks * 512 < 1 << 20 and target.stat().st_mode & 0o777 == 0o600
    assert not (paths.disks_dir() / "lab").exists()
    assert moved("default") == path
    assert path.read_bytes() == before


def test_what_a_disk_keeps_of_a_snapshot_is_found_wherever_it_lies(folder):
    disk.ensure("lab", "db", PLAIN)
    saved = SavedDisk("data", "qcow2", 4 << 20)
    disk_snapshots.keep("lab", "db", (saved,), "s1")
    target = moved("fast")
    assert disk_snapshots.file_of("lab", "db", saved) == target
    assert disk_snapshots.names(target) == {"s1"}
    disk_snapshots.drop("lab", "db", (saved,), "s1")
    assert disk_snapshots.names(target) == set()


def test_a_preallocated_disk_has_its_room_where_it_moves_to(folder):
    disk.ensure("lab", "db", replace(RAW, is_full=True))
    moved("default")
    assert disk.kept()[0].taken_bytes >= 4 << 20


def test_a_move_that_is_broken_off_or_has_no_room_leaves_the_disk_where_it_is(folder, monkeypatch):
    path = disk.ensure("lab", "db", DATA)

    def tell(text: str) -> None:
        raise HostError("interrupted")

    def tell_at_the_end(text: str) -> None:
        if text == "100 %":
            tell(text)

    for each in (tell, tell_at_the_end):
        with pytest.raises(HostError, match="interrupted"):
            disk.move(disk.kept()[0], "default", each)
    monkeypatch.setattr("vnet.hv.live.disk_move._ROOM_LEFT_BYTES", 1 << 62)
    with pytest.raises(HostError, match="no room for data.qcow2"):
        moved("default")
    assert files(folder) == ["vnet-disks/lab/db/data.qcow2"] and path.exists()
    assert list(paths.disks_dir().iterdir()) == []


STEPS = (
    (os, "fsync"),
    (os, "pread"),
    (os, "utime"),
    (Path, "rename"),
    (Path, "unlink"),
    (Path, "write_text"),
    (Path, "touch"),
    (Path, "rmdir"),
    (Path, "mkdir"),
)


def killed_at(step: int, work) -> bool:
    """Whether a process that does this work was killed before its n-th step; else it has done it."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] != 0
    taken = 0

    def counted(function):
        def call(*args, **words):
            nonlocal taken
            taken += 1
            if taken == step:
                os._exit(9)
            return function(*args, **words)

        return call

    for owner, name in STEPS:
        setattr(owner, name, counted(getattr(owner, name)))
    try:
        work()
        os._exit(0)
    finally:
        os._exit(1)


@pytest.mark.parametrize("there", [True, False])
def test_a_daemon_that_is_killed_while_it_moves_leaves_one_disk_whole(folder, there):
    """Also if the location that it goes to is missing when the next daemon comes."""
    step, seen = 0, set[str]()
    while True:
        step += 1
        path = disk.ensure("lab", "db", replace(RAW, location="default"))
        path.write_bytes(b"precious" * (1 << 19))
        path.with_name("data.raw.base.json").write_text("{}")
        was_killed = killed_at(step, lambda: moved("fast"))
        if not there:
            unmounted(folder)
            disk.sweep()
            disk_clone.sweep()
            mounted(folder)
        disk.sweep()
        (kept,) = disk.kept()
        seen.add(kept.location)
        assert kept.path.read_bytes() == b"precious" * (1 << 19)
        left = {each.name for each in kept.path.parent.iterdir()} - {".lock"}
        assert left == {"data.raw", "data.raw.base.json"}, step
        others = files(paths.disks_dir()) if kept.location == "fast" else files(folder)
        assert others == []
        disk.remove(kept)
        if not was_killed:
            break
    assert seen == {"default", "fast"} and step > 10


def test_a_disk_that_is_half_way_to_a_missing_location_is_not_started(folder):
    path = disk.ensure("lab", "db", PLAIN)
    half_done.begin_move(path, "fast")
    target = paths.disks_dir("fast") / "lab" / "db"
    target.mkdir(parents=True)
    shutil.copy(path, target)
    unmounted(folder)
    disk.sweep()
    with pytest.raises(HostError, match="fast cannot be used"):
        disk.ensure("lab", "db", PLAIN)
    mounted(folder)
    with pytest.raises(HostError, match="lies at the location fast"):
        disk.ensure("lab", "db", PLAIN)
    assert [each.location for each in disk.kept()] == ["default", "fast"]
    disk.ensure("lab", "db", DATA)
    assert [each.location for each in disk.kept()] == ["fast"]


def test_what_tells_where_a_disk_moves_to_takes_no_block_of_a_file_system_that_is_full(folder):
    path = disk.ensure("lab", "db", PLAIN)
    half_done.begin_move(path, "fast")
    (mark,) = path.parent.glob("*.moving")
    assert mark.lstat().st_blocks == 0


def test_a_disk_that_was_half_way_to_a_location_that_is_given_up_stays_where_it_is(folder):
    path = disk.ensure("lab", "db", PLAIN)
    half_done.begin_move(path, "fast")
    unmounted(folder)
    locations.remove("fast", is_lost=True)
    disk.ensure("lab", "db", PLAIN)
    assert [each.name for each in path.parent.iterdir() if each.name != ".lock"] == ["data.qcow2"]


@pytest.mark.parametrize("there", [True, False])
def test_a_daemon_that_is_killed_while_it_copies_leaves_all_disks_or_none(folder, there):
    for each in (DATA, LOGS):
        disk.ensure("lab", "db", each)
    step, seen = 0, set[int]()
    while True:
        step += 1
        was_killed = killed_at(step, lambda: cloned((DATA, LOGS)))
        if not there:
            unmounted(folder)
            disk_clone.sweep()
            mounted(folder)
        disk_clone.sweep()
        copies = [each for each in disk.kept() if each.vm == "two"]
        seen.add(len(copies))
        assert len(copies) in (0, 2), step
        left = files(folder) + files(paths.state_dir())
        assert not [each for each in left if "copy" in each or "lab.two" in each], (step, left)
        for each in copies:
            disk.remove(each)
        if not was_killed:
            break
    assert seen == {0, 2} and step > 10
