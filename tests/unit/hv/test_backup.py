"""Backups as values: manifests, chains, what the next one begins from, what QEMU is told."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vnet.base.errors import HostError, InputError
from vnet.hv import backup_commands as commands
from vnet.hv.backup import (
    Bitmap,
    Freeze,
    Kind,
    Manifest,
    SavedDisk,
    base,
    bitmap_name,
    chain,
    check_id,
    decode,
    disk_chain,
    encode,
    gap,
    needs,
    new_id,
    signed,
)
from vnet.hv.backup_commands import Copy, File, JobState
from vnet.hv.disk import Disk
from vnet.hv.live.backup import Order, begin, newest
from vnet.hv.live.backup_store import Store
from vnet.hv.monitor import Command

AT = datetime(2026, 11, 29, 10, 30, tzinfo=UTC)


def manifest(id_: str, parent: str | None = None, *, whole: tuple[str, ...] = (), hours: int = 0) -> Manifest:
    """An entry with the disks `a` and `b`."""
    names = ("a", "b") if parent is None else whole
    disks = tuple(
        SavedDisk(
            name, 1 << 20, "qcow2", False, False, f"{name}.qcow2", "the first" * (name in names), 7, "0f"
        )
        for name in ("a", "b")
    )
    kind = Kind.INCREMENTAL if parent else Kind.FULL
    at = AT + timedelta(hours=hours)
    return Manifest(id_, "s1", "shop", "db", kind, parent, at, Freeze(True), disks, topology={"f": "text"})


# ---- manifests ---------------------------------------------------------------------------------


def test_a_manifest_reads_back_as_it_was_written() -> None:
    written = replace(manifest("db-1", "db-0"), declared={"image": "micro", "disks": [{"name": "a"}]})
    assert decode(encode(written)) == written


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"format": 2}, "format 2"),
        ({"id": "../etc"}, "not the name of a backup"),
        ({"disks": [{"name": "a"}]}, "damaged"),
        ({"kind": "half"}, "damaged"),
        ({"surprise": 1}, "damaged"),
        ({"taken_at": "yesterday"}, "damaged"),
    ],
)
def test_a_manifest_that_is_wrong_is_refused_in_words(change: dict[str, object], says: str) -> None:
    text = json.dumps(json.loads(encode(manifest("db-1"))) | change)
    with pytest.raises(HostError, match=says):
        decode(text)


def test_a_file_of_an_entry_cannot_lie_elsewhere() -> None:
    raw = json.loads(encode(manifest("db-1")))
    raw["disks"][0]["file"] = "../../../../etc/shadow"
    with pytest.raises(HostError, match="damaged"):
        decode(json.dumps(raw))


@pytest.mark.parametrize("text", ["", ".", "..", "a/b", "-x", "a b", "a\n"])
def test_what_is_no_plain_name_names_no_entry(text: str) -> None:
    with pytest.raises(InputError):
        check_id(text)


def test_names_sort_by_time() -> None:
    names = [new_id("db", AT + timedelta(minutes=minutes), "ffff") for minutes in (0, 1, 90)]
    assert names == sorted(names)
    assert names[0] == "db-20261129T103000-ffff"


def test_what_is_signed_does_not_cover_the_signature() -> None:
    assert signed(replace(manifest("db-1"), check="abc")) == signed(manifest("db-1"))
    assert signed(replace(manifest("db-1"), vm="other")) != signed(manifest("db-1"))


# ---- chains ------------------------------------------------------------------------------------

ENTRIES = {
    each.id: each
    for each in (
        manifest("m0"),
        manifest("m1", "m0"),
        manifest("m2", "m1", whole=("b",)),
        manifest("m3", "m2"),
    )
}


def test_a_chain_begins_with_the_full_one() -> None:
    assert [each.id for each in chain("m3", ENTRIES)] == ["m0", "m1", "m2", "m3"]


def test_a_disk_needs_only_what_was_written_since_it_was_copied_whole() -> None:
    assert [each.id for each in disk_chain("m3", "a", ENTRIES)] == ["m0", "m1", "m2", "m3"]
    assert [each.id for each in disk_chain("m3", "b", ENTRIES)] == ["m2", "m3"]
    assert [each.id for each in disk_chain("m2", "b", ENTRIES)] == ["m2"]


def test_a_chain_with_a_link_missing_is_refused() -> None:
    entries = {id_: each for id_, each in ENTRIES.items() if id_ != "m1"}
    with pytest.raises(InputError, match="m2 is an increment of m1, which is not in this store"):
        chain("m3", entries)
    with pytest.raises(InputError, match="m1, which is not in this store"):
        disk_chain("m3", "a", entries)
    assert [each.id for each in disk_chain("m3", "b", entries)] == ["m2", "m3"]


def test_a_chain_that_bites_its_tail_is_refused() -> None:
    with pytest.raises(InputError):
        chain("x", {"x": manifest("x", "y"), "y": manifest("y", "x")})


def test_what_is_missing_of_a_chain_is_told() -> None:
    assert gap("m3", ENTRIES) == ""
    assert gap("m9", ENTRIES) == "m9 is not in this store"
    assert gap("m1", {"m1": ENTRIES["m1"]}) == "m1 is an increment of m0, which is not in this store"


# ---- what the next one begins from -------------------------------------------------------------


class Still:
    """The monitor of a QEMU with the disks `a` and `b`, whose writes since `m1` were counted."""

    async def execute(self, command: Command) -> object:
        counted = {"name": bitmap_name("s1", "m1"), "count": 0, "recording": True, "busy": False}
        image = {"virtual-size": 1 << 20, "actual-size": 0}
        nodes = [{"node-name": name, "image": image, "dirty-bitmaps": [counted]} for name in ("a", "b")]
        version = {"qemu": {"major": 7, "minor": 2, "micro": 0}}
        return {"query-jobs": [], "query-named-block-nodes": nodes, "query-version": version}[command.name]


@pytest.mark.parametrize(
    ("removed", "parent", "why"),
    [("", "m1", ""), ("m0", None, "m1 is an increment of m0, which is not in this store")],
)
def test_when_the_parent_of_the_last_one_is_gone_the_next_one_is_full_and_says_why(
    tmp_path: Path, removed: str, parent: str | None, why: str
) -> None:
    store = replace(Store.made(tmp_path / "backups"), id="s1")
    for entry in (manifest("m0"), manifest("m1", "m0", hours=1)):
        store.begin(entry, None)
        store.finish(entry)
    if removed:
        store.remove(removed)
    disks = tuple(Disk(name, 1 << 20) for name in ("a", "b"))
    blocks: Any = SimpleNamespace(disks=disks, nodes={"a": "a", "b": "b"}, monitor=Still())
    begun = asyncio.run(begin(store, blocks, Order("shop", "db", is_tight=True)))
    assert begun.parent == parent
    assert {disk.whole_because for disk in begun.disks} == {why}


def counts(*, a: bool | None = True, b: bool | None = True) -> dict[str, tuple[Bitmap, ...]]:
    """Bitmaps that count from m0; None for none."""
    name = bitmap_name("s1", "m0")
    return {
        disk: () if good is None else (Bitmap("somebody's", True), Bitmap(name, good))
        for disk, good in (("a", a), ("b", b))
    }


def test_the_first_one_is_full() -> None:
    first = base(None, counts(), is_encrypted=False)
    assert first.parent is None
    assert set(first.whole) == {"a", "b"}


def test_the_next_one_begins_from_the_last() -> None:
    assert base(manifest("m0"), counts(), is_encrypted=False).parent == "m0"
    assert base(manifest("m0"), counts(), is_encrypted=False).whole == {}


@pytest.mark.parametrize(("b", "why"), [(False, "killed"), (None, "was not counted")])
def test_a_disk_that_was_not_counted_is_copied_whole_and_it_is_said_why(b: bool | None, why: str) -> None:
    found = base(manifest("m0"), counts(b=b), is_encrypted=False)
    assert found.parent == "m0"
    assert why in found.whole["b"]


def test_without_any_count_it_is_full() -> None:
    assert base(manifest("m0"), counts(a=False, b=None), is_encrypted=False).parent is None


def test_a_count_from_another_entry_is_of_no_use() -> None:
    assert base(manifest("m1", "m0"), counts(), is_encrypted=False).parent is None


def test_a_new_disk_is_copied_whole() -> None:
    found = base(manifest("m0"), counts() | {"c": ()}, is_encrypted=False)
    assert (found.parent, list(found.whole)) == ("m0", ["c"])


def test_no_increment_is_encrypted_whose_parent_is_not() -> None:
    found = base(manifest("m0"), counts(), is_encrypted=True)
    assert found.parent is None
    assert "not encrypted" in found.whole["a"]


def test_a_full_one_that_is_asked_for_is_full() -> None:
    assert base(manifest("m0"), counts(), is_encrypted=False, full="asked for").parent is None


# ---- what QEMU is told -------------------------------------------------------------------------


def test_all_disks_are_copied_at_one_moment_and_the_parents_count_is_not_touched() -> None:
    copies = (
        Copy("disk0", File(0, False), "vnet/s1/m1", True, "vnet/s1/m0", rate_bytes=1000),
        Copy("disk1", File(1, False), "vnet/s1/m1"),
    )
    taken = commands.take(copies)
    actions = taken.arguments["actions"]
    assert taken.name == "transaction"
    kinds = [each["type"] for each in actions]
    assert kinds == ["block-dirty-bitmap-add", "blockdev-backup"] * 2
    assert actions[0]["data"] == {"node": "disk0", "name": "vnet/s1/m1", "persistent": True}
    first, second = actions[1]["data"], actions[3]["data"]
    assert (first["sync"], first["bitmap"], first["bitmap-mode"]) == ("bitmap", "vnet/s1/m0", "never")
    assert (first["speed"], first["compress"]) == (1000, True)
    assert second["sync"] == "full"
    assert "bitmap" not in second


def test_what_a_file_says_of_files_behind_it_is_passed_over() -> None:
    opened = commands.open_chain([File(0, False, True), File(1, False, True)]).arguments
    assert opened["node-name"] == "backup1"
    assert opened["file"]["filename"] == "/dev/fdset/1001"
    assert opened["backing"]["file"]["filename"] == "/dev/fdset/1000"
    assert opened["backing"]["backing"] is None


def test_an_encrypted_file_is_qcow2_within_luks() -> None:
    below = commands.make_target(File(2, True), 1 << 20)[0].arguments
    assert (below["driver"], below["node-name"], below["file"]["driver"]) == ("luks", "backup2-file", "file")


def test_a_key_is_not_told_in_errors() -> None:
    assert commands.add_key(b"secret secret secret").is_secret


def test_progress_is_of_all_jobs_together() -> None:
    states = (JobState("backup0", "running", 50, 100), JobState("backup1", "running", 0, 300))
    assert commands.percent(states) == 12
    assert commands.percent(()) == 0


def test_only_jobs_that_were_asked_for_are_looked_at() -> None:
    raw = {"status": "concluded", "current-progress": 1, "total-progress": 1, "type": "backup"}
    answer = [{"id": "backup0", "error": "no room", **raw}, {"id": "snapshot", **raw}]
    (only,) = commands.jobs(answer, ["backup0", "backup1"])
    assert (only.has_ended, only.error) == (True, "no room")


def test_a_bitmap_that_has_missed_something_is_not_good() -> None:
    bitmap = {"name": "x", "recording": True, "busy": False, "persistent": True, "count": 65536}
    lost = {**bitmap, "recording": False, "inconsistent": True}
    nodes = [
        {"node-name": "disk0", "dirty-bitmaps": [bitmap]},
        {"node-name": "disk1", "dirty-bitmaps": [lost]},
    ]
    found = commands.bitmaps([*nodes, {"node-name": "file"}])
    assert [each.is_good for name in ("disk0", "disk1") for each in found[name]] == [True, False]
    assert found["file"] == ()


def test_of_two_entries_of_one_second_the_increment_is_the_newer_one() -> None:
    full, increment = manifest("db-9"), manifest("db-1", "db-9")
    for both in ((full, increment), (increment, full)):
        assert newest({each.id: each for each in both}, "shop", "db") == increment


# ---- room --------------------------------------------------------------------------------------


def test_of_a_disk_that_is_copied_whole_all_is_needed_that_it_has_taken() -> None:
    held = {"a": 5 << 20, "b": 4096}  # a file may be longer than what it shows
    assert needs(manifest("db-1"), {"a": (), "b": ()}, held) == (("a", 1 << 20), ("b", 4096))


def test_of_an_increment_what_was_counted_since_its_parent_is_needed() -> None:
    counts = (
        Bitmap(bitmap_name("s1", "db-1"), True, 65536),
        Bitmap(bitmap_name("s1", "db-0"), True, 1 << 20),
        Bitmap(bitmap_name("s2", "db-1"), True, 1 << 20),
    )
    entry = manifest("db-2", "db-1", whole=("b",))
    assert needs(entry, {"a": counts, "b": counts}, {"a": 9999, "b": 4096}) == (("a", 65536), ("b", 4096))


def test_what_a_node_has_taken_is_read_from_qemu_s_answer() -> None:
    nodes = [
        {"node-name": "disk0", "image": {"virtual-size": 1 << 30, "actual-size": 200704}},
        {"node-name": "disk0-base", "image": {"virtual-size": 1 << 30, "actual-size": 4096}},
        {"node-name": "odd", "image": {"virtual-size": 1}},
    ]
    assert commands.taken(nodes) == {"disk0": 200704, "disk0-base": 4096, "odd": 0}
