"""The store: what counts, what does not, what is found wrong with files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.unit.hv.test_backup import manifest
from vnet.base.errors import HostError, InputError
from vnet.cli.key_file import key_given, make_key_file
from vnet.hv import backup, secret
from vnet.hv.backup import Manifest
from vnet.hv.live import keys
from vnet.hv.live.backup_restore import verify
from vnet.hv.live.backup_store import MANIFEST, UNFINISHED, Store, measured, sweep

needs_qemu_img = pytest.mark.skipif(shutil.which("qemu-img") is None, reason="qemu-img is not installed")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.made(tmp_path / "backups")


def finished(store: Store, entry: Manifest) -> Manifest:
    """An entry with a real, empty qcow2 of each disk."""
    store.begin(entry, None)
    for disk in entry.disks:
        path = store.file(entry, disk)
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "1M"], check=True)
    done = measured(store, entry)
    store.finish(done)
    return done


def test_a_store_is_made_once_and_keeps_its_identity(tmp_path: Path) -> None:
    made = Store.made(tmp_path / "new")
    assert Store.made(tmp_path / "new") == made
    assert Store.opened(tmp_path / "new") == made


def test_a_folder_with_other_things_is_not_made_a_store(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="not empty and no store"):
        Store.made(tmp_path)
    with pytest.raises(InputError, match="there are no backups"):
        Store.opened(tmp_path)


@needs_qemu_img
def test_an_entry_counts_once_it_is_finished(store: Store) -> None:
    store.begin(manifest("m0"), None)
    assert [each.is_complete for each in store.entries()] == [False]
    assert store.complete() == {}
    store.remove("m0")
    done = finished(store, manifest("m0"))
    assert store.complete() == {"m0": done}


@needs_qemu_img
def test_a_removal_that_is_interrupted_leaves_nothing_that_counts(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("m0", "m1", "m2"):
        finished(store, manifest(name))
    with monkeypatch.context() as broken:
        broken.setattr(shutil, "rmtree", lambda *args, **options: None)
        with pytest.raises(HostError, match="by hand"):
            store.remove("m0")
    assert {each.manifest.id for each in store.entries()} == {"m1", "m2"}
    store.remove("m1")
    assert {each.name for each in store.path.glob("*/")} == {"m2"}, "the next removal takes the rest"


@needs_qemu_img
def test_what_was_being_removed_goes_when_the_next_daemon_takes_over(store: Store) -> None:
    finished(store, manifest("m0"))
    store.folder("m0").rename(store.path / ".removed-m0")
    sweep(store.path)
    assert not list(store.path.glob("*/"))


@needs_qemu_img
def test_what_a_killed_daemon_left_without_a_word_goes_and_all_else_stays(store: Store) -> None:
    done, begun = finished(store, manifest("m0")), manifest("m1")
    store.begin(begun, None)
    nameless = store.path / "db-nameless"
    nameless.mkdir()
    (store.path / "letters").mkdir()
    (store.path / "letters" / ".dear.part").write_text("somebody else's")
    for folder in (nameless, store.folder(done.id)):
        (folder / f".{UNFINISHED}.part").write_text("ha")
    (store.folder(done.id) / UNFINISHED).write_text("killed before it went")
    sweep(store.path)
    assert not (store.folder(done.id) / UNFINISHED).exists()
    assert {each.manifest.id: each.is_complete for each in store.entries()} == {
        done.id: True,
        begun.id: False,
    }
    assert not nameless.exists()
    assert [each.name for each in store.path.glob("*/.*")] == [".dear.part"]


def test_a_folder_that_is_no_store_is_not_swept(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    sweep(tmp_path)
    assert (tmp_path / "letters").exists()


def test_a_store_that_was_half_made_is_made(tmp_path: Path) -> None:
    Store.made(tmp_path / "new")
    (label,) = (tmp_path / "new").iterdir()
    label.rename(label.with_name(f".{label.name}.part"))
    Store.made(tmp_path / "new")


def test_a_store_that_was_half_made_is_an_empty_folder_again(tmp_path: Path) -> None:
    Store.made(tmp_path / "new")
    (label,) = (tmp_path / "new").iterdir()
    label.rename(label.with_name(f".{label.name}.part"))
    sweep(tmp_path / "new")
    assert not list((tmp_path / "new").iterdir())
    sweep(tmp_path / "none")


@needs_qemu_img
def test_what_was_copied_elsewhere_is_still_a_store(store: Store, tmp_path: Path) -> None:
    done = finished(store, manifest("m0"))
    shutil.copytree(store.path, tmp_path / "copy")
    assert Store.opened(tmp_path / "copy").complete() == {"m0": done}


@needs_qemu_img
def test_a_flipped_byte_is_found(store: Store) -> None:
    done = finished(store, manifest("m0"))
    assert verify(store, "m0", None).troubles == ()
    path = store.file(done, done.disks[1])
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    assert verify(store, "m0", None).troubles == ("b.qcow2: its SHA-256 is not that of the manifest",)


@needs_qemu_img
def test_a_file_that_is_cut_or_gone_is_found(store: Store) -> None:
    done = finished(store, manifest("m0"))
    os.truncate(store.file(done, done.disks[0]), 1000)
    store.file(done, done.disks[1]).unlink()
    first, second = verify(store, "m0", None).troubles
    assert "it has 1000 bytes" in first
    assert "No such file" in second


@needs_qemu_img
def test_a_damaged_structure_is_found_even_if_it_was_saved_so(store: Store) -> None:
    done = finished(store, manifest("m0"))
    path = store.file(done, done.disks[0])
    data = bytearray(path.read_bytes())
    data[40:48] = bytes(8)  # the offset of the L1 table
    path.write_bytes(data)
    store.finish(measured(store, done))
    (trouble,) = verify(store, "m0", None).troubles
    assert trouble.startswith("a.qcow2: `qemu-img check")


@needs_qemu_img
def test_an_increment_without_its_parent_is_found(store: Store) -> None:
    finished(store, manifest("m0"))
    finished(store, manifest("m1", "m0", hours=1))
    store.remove("m0")
    (trouble,) = verify(store, "m1", None).troubles
    assert "increment of m0, which is not in this store" in trouble


@needs_qemu_img
def test_an_entry_with_a_damaged_manifest_is_listed_and_not_used(store: Store) -> None:
    finished(store, manifest("m0"))
    (store.folder("m0") / MANIFEST).write_text("{}")
    (entry,) = store.entries()
    assert "damaged" in entry.trouble
    assert store.complete() == {}
    assert "damaged" in verify(store, "m0", None).troubles[0]


@needs_qemu_img
def test_a_changed_manifest_is_found_with_the_key(store: Store) -> None:
    key = keys.make_key()
    done = replace(finished(store, manifest("m0")), is_encrypted=True)
    store.finish(replace(done, check=secret.mac(key, done.id, backup.signed(done))))
    path = store.folder("m0") / MANIFEST
    raw = json.loads(path.read_text())
    raw["vm"] = "another"
    path.write_text(json.dumps(raw))
    assert "somebody has changed its manifest" in verify(store, "m0", key).troubles[0]


# ---- keys --------------------------------------------------------------------------------------


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_key_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert key_given(str(path)) == path.read_bytes()
    with pytest.raises(InputError, match="there already"):
        make_key_file(path)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    make_key_file(path)
    path.chmod(0o640)
    with pytest.raises(InputError, match="chmod 600"):
        key_given(str(path))


@pytest.mark.parametrize("text", [b"short", b"\xff" * 32, b"x" * 5000])
def test_a_bad_key_is_refused(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "key"
    path.write_bytes(text)
    path.chmod(0o600)
    with pytest.raises(InputError, match="vnet backup keygen"):
        key_given(str(path))


def test_a_key_may_come_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("VNET_BACKUP_KEY_FILE", raising=False)
    monkeypatch.setenv("VNET_BACKUP_KEY", "correct horse battery staple")
    assert key_given(None) == b"correct horse battery staple"
    monkeypatch.delenv("VNET_BACKUP_KEY")
    assert key_given(None) is None


def test_the_key_of_a_disk_is_made_read_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VNET_KEYS_DIR", str(tmp_path / "keys"))
    made = keys.ensure("shop", "db", "data")
    assert keys.ensure("shop", "db", "data") == made
    path = keys.path_of("shop", "db", "data")
    assert path.stat().st_mode & 0o777 == 0o600
    path.chmod(0o644)
    with pytest.raises(HostError, match="chmod 600"):
        keys.read("shop", "db", "data")
    keys.remove("shop", "db", "data")
    assert not (tmp_path / "keys" / "shop").exists()
    with pytest.raises(HostError, match="vnet disk rm db data"):
        keys.read("shop", "db", "data")
