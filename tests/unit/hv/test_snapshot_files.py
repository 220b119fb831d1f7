from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from vnet.base import paths
from vnet.hv.live import snapshot_files as files
from vnet.hv.snapshot import Consistency, Saved, Snapshot

MADE = Snapshot("11", "lab", "one", 1.0, (Saved("a", Consistency.OFF, ()), Saved("b", Consistency.OFF, ())))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    return paths.snapshots_dir("lab")


def commit(snapshot: Snapshot = MADE) -> None:
    half = files.begin(snapshot)
    (half / "a.memory").write_bytes(b"x")
    files.commit(half, snapshot)


def test_a_snapshot_is_there_once_it_is_complete() -> None:
    half = files.begin(MADE)
    assert files.known() == ()
    assert files.half_made("lab") == ((half, MADE),)
    files.commit(half, MADE)
    assert files.known() == files.known("lab") == (MADE,)
    assert files.known("other") == ()
    assert files.half_made("lab") == ()


def test_all_of_it_is_its_owners_alone(folder: Path) -> None:
    commit()
    files.set_head("lab", "a", "11")
    files.wish("lab", "11", ["a"], memory=True)
    made = [folder, *(path for path in folder.rglob("*") if path.name != "a.memory")]
    assert {path.stat().st_mode & 0o077 for path in made} == {0}


def test_one_that_is_given_up_leaves_nothing(folder: Path) -> None:
    files.give_up(files.begin(MADE))
    assert not folder.parent.exists()
    half = files.begin(MADE)
    files.commit(half, MADE)
    files.give_up(half)
    assert not folder.parent.exists()


def test_a_snapshot_without_vms_is_gone_and_memory_goes_with_its_vm(folder: Path) -> None:
    commit()
    files.set_head("lab", "a", "11")
    files.rewrite(MADE.without("a"))
    assert files.find("lab", "11") == MADE.without("a")
    assert not files.memory(MADE, "a").exists()
    files.rewrite(replace(MADE, members=()))
    assert not folder.parent.exists()


def test_the_latest_wish_is_what_a_vm_begins_with() -> None:
    commit()
    first = files.wish("lab", "11", ["a", "b"], memory=True)
    os.utime(paths.snapshots_dir("lab") / ".next" / f"{first.token}.json", ns=(1, 1))
    second = files.wish("lab", "11", ["a"], memory=False)
    assert files.next_of("lab", "a") == second
    assert files.next_of("lab", "b") == replace(first, vms=("b",))
    files.fulfilled(second, "a")
    assert files.next_of("lab", "a") is None


def test_memory_of_a_suspended_vm_is_no_snapshot_and_goes_with_its_wish(folder: Path) -> None:
    commit(replace(MADE, name=""))
    wish = files.wish("lab", "11", ["a"], memory=True, suspended=True)
    assert files.known() == ()
    files.sweep("lab")
    assert files.memory(MADE, "a").exists()
    files.fulfilled(wish, "a")
    assert not folder.parent.exists()


def test_memory_that_no_vm_begins_with_is_swept(folder: Path) -> None:
    commit(replace(MADE, name=""))
    files.sweep("lab")
    assert not folder.parent.exists()


def test_halves_of_files_are_swept_and_what_they_were_to_replace_stays(folder: Path) -> None:
    commit()
    for vm in ("a", "a.part"):  # VMs may be called so
        files.set_head("lab", vm, "11")
    wish = files.wish("lab", "11", ["a"], memory=True)
    names = (".11.json.part", ".a.part", ".manifest.json.part")
    halves = [folder / each / name for each, name in zip((".next", ".head", "11"), names, strict=True)]
    for half in halves:
        half.write_text("{")
    files.sweep("lab")
    assert not any(half.exists() for half in halves)
    assert (files.known(), files.wishes("lab")) == ((MADE,), (wish,))
    assert files.head("lab", "a") == files.head("lab", "a.part") == "11"


def test_files_that_are_not_ours_do_no_harm(folder: Path) -> None:
    commit()
    (folder / "notes.txt").write_text("mine")
    (folder / "22").mkdir()
    (folder / "22" / "manifest.json").write_text("{")
    (folder / ".next").mkdir()
    (folder / ".next" / "x.json").write_text("[]")
    assert files.known() == (MADE,)
    assert files.wishes("lab") == ()


def test_vms_that_come_back_side_by_side_strike_out_one_wish(folder: Path) -> None:
    names = [f"vm-{number}" for number in range(40)]
    commit()
    wish = files.wish("lab", "11", names, memory=True)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: files.fulfilled(wish, name), names))
    assert files.wishes("lab") == ()
