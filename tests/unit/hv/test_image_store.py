"""The store of images, in a folder of the test's, with qemu-img itself; as root, as the daemon is."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from vnet.base import paths
from vnet.base.boot import MICRO_BOOT, ImageSource
from vnet.base.errors import HostError, InputError
from vnet.fabric.live import disks, images
from vnet.hv import qemu_img
from vnet.hv.disk import Disk
from vnet.hv.live import base_image, base_note, boot, disk_clone, image_import, root_disk
from vnet.hv.live import disk as live_disk
from vnet.hv.live import image_store as store
from vnet.hv.live.image_import import Wanted
from vnet.hv.live.lock import exclusive
from vnet.hv.stored import Stored

MIB = 1 << 20
ROOT = Disk("root", 0, is_root=True)
DATA = Disk("data", 16 * MIB)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path / "run"))
    return tmp_path


def raw_disk(folder: Path, size_bytes: int = 8 * MIB) -> Path:
    """A disk with a partition table's sign, some text, and holes."""
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(size_bytes)
        file.seek(510)
        file.write(b"\x55\xaa")
        file.seek(3 * MIB)
        file.write(b"here I am")
    return path


def converted(source: Path, kind: str) -> Path:
    path = source.with_suffix(f".{kind}")
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", kind, str(source), str(path)], check=True)
    return path


def put(path: Path, told: list[str] | None = None, **declared: str) -> Stored:
    progress = (lambda text: None) if told is None else told.append
    return asyncio.run(image_import.put(Wanted(path, **declared), progress))


def left() -> list[str]:
    """What is in the store besides images that are whole."""
    return [path.name for path in paths.image_store().glob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("kind", ["raw", "qcow2", "vdi", "vmdk", "vhdx", "vpc"])
def test_a_disk_of_any_format_is_kept_as_qcow2_with_the_same_contents(folder, kind):
    raw = raw_disk(folder)
    path = raw if kind == "raw" else converted(raw, kind)
    image = put(path)
    kept = store.path_of(image)
    assert image.format.value == kind
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert kept.stat().st_mode & 0o777 == 0o400
    back = folder / "back"
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(kept), str(back)], check=True)
    assert back.read_bytes()[: 8 * MIB] == raw.read_bytes()
    assert image.size_bytes >= 8 * MIB
    assert left() == []


def test_the_same_file_is_the_same_image(folder):
    assert put(raw_disk(folder)).id == put(raw_disk(folder)).id
    assert len(store.listed()) == 1


def test_holes_stay_holes_while_a_file_is_copied(folder):
    path = folder / "large.raw"
    subprocess.run(
        ["qemu-img", "convert", "-f", "raw", "-O", "raw", str(raw_disk(folder)), str(path)], check=True
    )
    os.truncate(path, 1 << 30)
    began_s = time.monotonic()
    image = put(path, format="raw")
    assert image.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.listed()[0].taken_bytes < 2 * MIB
    assert time.monotonic() - began_s < 60


def test_a_file_that_is_not_the_declared_one_is_refused_and_leaves_nothing(folder):
    with pytest.raises(HostError, match=r"its SHA-256 is [0-9a-f]{64}, declared is 0{64}"):
        put(raw_disk(folder), sha256="0" * 64)
    assert store.listed() == () and left() == []


def test_a_file_that_refers_to_others_is_refused_and_leaves_nothing(folder):
    path = folder / "evil.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(raw_disk(folder)), "-F", "raw", str(path)],
        check=True,
    )
    with pytest.raises(HostError, match="backing file"):
        put(path)
    assert store.listed() == () and left() == []


@pytest.mark.parametrize("kind", ["qcow2", "vdi", "vmdk", "vpc"])
def test_a_file_that_is_cut_off_is_refused_and_leaves_nothing(folder, kind):
    path = converted(raw_disk(folder), kind)
    os.truncate(path, path.stat().st_size - 70_000)
    with pytest.raises(HostError, match=r"damaged|failed|cut off"):
        put(path)
    assert store.listed() == () and left() == []


def test_there_is_no_such_file(folder):
    with pytest.raises(InputError, match="cannot read the image .*none.qcow2: No such file"):
        put(folder / "none.qcow2")


def test_an_import_that_is_broken_off_leaves_nothing(folder):
    path = raw_disk(folder, 256 * MIB)
    path.write_bytes(path.read_bytes()[:512] + os.urandom(200 * MIB))

    async def break_off() -> None:
        work = asyncio.create_task(image_import.put(Wanted(path), lambda text: None))
        while not list(paths.image_store().glob(".building-*/source")):  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        work.cancel()
        with pytest.raises(asyncio.CancelledError):
            await work

    asyncio.run(break_off())
    assert store.listed() == () and left() == []


def test_what_a_daemon_that_was_killed_has_left_is_swept(folder):
    (paths.image_store() / ".building-abcd").mkdir(parents=True)
    put(raw_disk(folder))
    assert left() == []


def test_what_somebody_else_is_making_is_not_swept(folder):
    with exclusive(paths.image_store() / ".building-abcd"):
        put(raw_disk(folder))
    assert left() == [".building-abcd"]


def test_an_image_whose_manifest_is_damaged_is_put_in_anew(folder):
    image = put(raw_disk(folder))
    (store.folder_of(image) / "manifest.json").write_text("{")
    assert put(raw_disk(folder)).id == image.id
    assert store.by_id(image.id).sha256 == image.sha256


def test_a_name_means_what_was_imported_last(folder):
    first = put(raw_disk(folder))
    store.name_it(first, "debian")
    second = put(raw_disk(folder, 16 * MIB))
    store.name_it(second, "debian")
    assert store.find("debian").id == second.id
    assert store.find(first.id[:8]).id == first.id
    with pytest.raises(InputError, match=r"no image debain .*there are: debian.*vnet image import"):
        store.find("debain")


def test_an_image_that_was_written_to_is_not_used_and_one_that_was_only_touched_is(folder):
    image = put(raw_disk(folder))
    path = store.path_of(image)
    os.utime(path)
    image = store.sound(image)
    assert store.by_id(image.id) == image
    with path.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"x")
    with pytest.raises(HostError, match="not as it was imported"):
        store.sound(image)
    with pytest.raises(HostError, match="not as it was imported"):
        store.verify(image)
    assert put(raw_disk(folder)).id == image.id  # importing it again mends it
    store.verify(store.find(image.id))


# ---- root disks --------------------------------------------------------------------------------


def test_a_root_disk_is_the_difference_to_its_image_and_can_be_larger(folder):
    image = put(raw_disk(folder))
    path = root_disk.ensure("lab", "web", ROOT, image, "debian")
    assert root_disk.virtual_size_bytes(path) == image.size_bytes
    assert base_note.base_of(path) == base_note.Base(image.id, "debian", image.sha256)
    assert base_note.users(image) == ("lab/web/root",)
    larger = Disk("root", 64 * MIB, is_root=True)
    assert root_disk.virtual_size_bytes(root_disk.ensure("lab", "web", larger, image, "debian")) == 64 * MIB
    (kept,) = live_disk.kept()
    live_disk.remove(kept)
    assert base_note.users(image) == ()
    assert not (paths.disks_dir() / "lab").exists()


def test_a_root_disk_smaller_than_its_image_is_refused(folder):
    image = put(raw_disk(folder))
    with pytest.raises(HostError, match="is declared with 4M, and its image has 8M"):
        root_disk.ensure("lab", "web", Disk("root", 4 * MIB, is_root=True), image, "debian")


def test_a_disk_that_is_made_of_nothing_does_not_become_a_root_disk(folder):
    live_disk.ensure("lab", "web", Disk("root", 4 * MIB))
    with pytest.raises(HostError, match="is not made of an image"):
        root_disk.existing("lab", "web", ROOT)


def linked(fabric: str, new: str, source: str = "web") -> tuple[tuple[str, ...], ...]:
    """The disk `data` of one VM made another's, as the difference to a base."""
    order = disk_clone.Order(fabric, source, new, linked=True)
    return asyncio.run(disk_clone.clone(order, [DATA], lambda text: None))


def written(vm: str, text: bytes, offset: int) -> Path:
    """Text put onto the disk of a VM as its QEMU would."""
    path = live_disk.path_of("lab", vm, DATA)
    made_of = base_note.image_of(path)
    base = str(store.path_of(made_of)) if made_of else None
    opened = qemu_img.Image(path, is_written=True).opened(str(path), base)
    pattern = f"write -P {text[0]} {offset} {len(text)}"
    subprocess.run(["qemu-io", "-c", pattern, opened], check=True, capture_output=True)
    return path


def bases() -> list[store.Listed]:
    return [each for each in store.listed() if each.image.is_base]


def test_linked_clones_of_an_unchanged_disk_share_a_base_and_take_next_to_nothing(folder):
    live_disk.ensure("lab", "web", DATA)
    written("web", b"w" * MIB, 0)
    assert linked("lab", "two") == (("data",), ("data",))
    assert linked("lab", "three") == (("data",), ("data",))
    (base,) = bases()
    assert base_note.users(base.image) == ("lab/three/data", "lab/two/data")
    assert base.taken_bytes >= MIB
    assert all(each.taken_bytes < MIB // 2 for each in live_disk.kept() if each.vm != "web")


def test_a_base_is_found_again_by_what_is_in_it(folder):
    """The disk was touched, as QEMU may do, and the mark beside it is of no use: the contents decide."""
    live_disk.ensure("lab", "web", DATA)
    linked("lab", "two")
    os.utime(live_disk.path_of("lab", "web", DATA))
    linked("lab", "three")
    assert len(bases()) == 1
    written("web", b"changed " * 64, 0)
    linked("lab", "four")
    assert len(bases()) == 2


def test_a_base_goes_with_the_last_disk_that_is_made_of_it(folder):
    live_disk.ensure("lab", "web", DATA)
    written("web", b"w" * MIB, 0)
    linked("lab", "two")
    linked("lab", "three", source="two")
    for vm in ("web", "two", "three"):
        assert bases()
        live_disk.remove(next(each for each in live_disk.kept() if each.vm == vm))
        base_image.collect()
    assert not bases()


def test_a_base_is_kept_while_somebody_makes_disks_of_it_and_when_it_has_a_name(folder):
    live_disk.ensure("lab", "web", DATA)
    image = asyncio.run(base_image.base("lab", "web", DATA, lambda text: None))
    with base_image.making():
        assert base_image.collect() == ()
    store.name_it(image, "golden")
    assert base_image.collect() == ()
    store.remove(image)


def test_a_base_that_a_daemon_left_which_was_killed_is_removed_by_the_next(folder):
    live_disk.ensure("lab", "web", DATA)
    asyncio.run(base_image.base("lab", "web", DATA, lambda text: None))
    half = base_image.staging() / "lab.two"
    half.mkdir(parents=True)
    disk_clone.sweep()
    assert not bases()
    assert not half.exists()


def looked_at(vm: str) -> list[tuple[str, str]]:
    """What keeps a VM with the disk `data` from being started."""
    return [(each.key, each.text) for each in boot.obstacles("lab", vm, MICRO_BOOT, (DATA,))]


def shown() -> tuple[list[dict], list[dict]]:
    """What `image ls` and `image verify` tell of bases."""
    nothing = SimpleNamespace(fabrics={})
    rows = asyncio.run(images.listed(nothing)), asyncio.run(images.verify(None))
    return tuple([row for row in each if row["kind"] == "base"] for each in rows)


def test_a_base_that_was_written_to_is_told_before_a_vm_is_started(folder):
    live_disk.ensure("lab", "web", DATA)
    linked("lab", "two")
    assert looked_at("two") == looked_at("web") == []
    with store.path_of(bases()[0].image).open("ab") as file:
        file.write(b"x")
    ((key, text),) = looked_at("two")
    assert key == "disks.data" and "is not as it was imported" in text
    assert "import it again" not in text and "`vnet disk rm`" in text
    assert looked_at("web") == [] and base_note.gone() == ()
    assert "is not as it was imported" in shown()[1][0]["fault"]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_a_base_that_is_gone_is_told_wherever_it_is_asked_for(folder, what):
    live_disk.ensure("lab", "web", DATA)
    linked("lab", "two")
    linked("lab", "three")
    image = bases()[0].image
    assert not any(row["gone"] for row in shown()[0])
    if what == "file":
        store.path_of(image).unlink()
    else:
        shutil.rmtree(store.folder_of(image))
    ((key, text),) = looked_at("two")
    assert key == "disks.data" and "gone" in text and "`vnet disk rm`" in text
    ((listed,), (verified,)) = shown()
    assert (listed["id"], listed["gone"]) == (image.id, True)
    assert listed["users"] == ["lab/three/data", "lab/two/data"]
    assert "gone" in verified["fault"] and "import it again" not in verified["fault"]
    assert [each.users for each in base_note.gone()] == [("lab/three/data", "lab/two/data")]
    rows = asyncio.run(disks.listed(SimpleNamespace(fabrics={}), "lab"))
    assert {row["vm"]: row["base_gone"] for row in rows} == {"three": True, "two": True, "web": False}
    for vm in ("two", "three"):
        live_disk.remove(next(each for each in live_disk.kept() if each.vm == vm))
    base_image.collect()
    assert looked_at("two") == [] and shown() == ([], [])


def test_the_base_of_a_root_disk_that_is_gone_is_not_to_be_imported(folder):
    image = put(raw_disk(folder))
    store.name_it(image, "debian")
    root_disk.ensure("lab", "web", ROOT, image, "debian")
    order = disk_clone.Order("lab", "web", "two", linked=True)
    asyncio.run(disk_clone.clone(order, [ROOT], lambda text: None))
    shutil.rmtree(store.folder_of(bases()[0].image))
    boots = replace(MICRO_BOOT, image=ImageSource("debian"))
    (found,) = boot.obstacles("lab", "two", boots, (ROOT,))
    assert found.key == "image" and "cannot be imported again" in found.text
    assert boot.obstacles("lab", "web", boots, (ROOT,)) == ()


def test_a_linked_disk_grows_and_is_made_anew_of_nothing_once_removed(folder):
    live_disk.ensure("lab", "web", DATA)
    linked("lab", "two")
    larger = replace(DATA, size_bytes=32 * MIB)
    assert root_disk.virtual_size_bytes(live_disk.ensure("lab", "two", larger)) == 32 * MIB
    path = live_disk.path_of("lab", "two", DATA)
    path.unlink()  # and its note is left
    live_disk.ensure("lab", "two", DATA)
    assert base_note.base_of(path) is None


def test_a_root_disk_that_is_linked_is_still_of_the_image_that_is_declared(folder):
    image = put(raw_disk(folder))
    root_disk.ensure("lab", "web", ROOT, image, "debian")
    order = disk_clone.Order("lab", "web", "two", linked=True)
    assert asyncio.run(disk_clone.clone(order, [ROOT], lambda text: None)) == (("root",), ("root",))
    note = base_note.base_of(live_disk.path_of("lab", "two", ROOT))
    assert (note.name, note.sha256) == ("debian", image.sha256)
    assert note.id == bases()[0].image.id != image.id


def test_disks_that_cannot_be_linked_are_copied(folder):
    raw = Disk("logs", 4 * MIB, format="raw")
    live_disk.ensure("lab", "web", raw)
    order = disk_clone.Order("lab", "web", "two", linked=True)
    assert asyncio.run(disk_clone.clone(order, [raw], lambda text: None)) == (("logs",), ())
    assert not bases()


def test_a_root_disk_grows_without_a_look_at_what_its_header_names(folder):
    """Its guest's QEMU can write the header: nothing that it names may be opened with the daemon's rights."""
    image = put(raw_disk(folder))
    path = root_disk.ensure("lab", "web", ROOT, image, "debian")
    subprocess.run(
        ["qemu-img", "rebase", "-u", "-f", "qcow2", "-F", "raw", "-b", "/no/such", str(path)], check=True
    )
    root_disk.ensure("lab", "web", Disk("root", 64 * MIB, is_root=True), image, "debian")
    assert root_disk.virtual_size_bytes(path) == 64 * MIB
