"""Snapshots thinned out and listed: each descends from one that is there, or from none."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vnet.base.errors import Exit, HostError
from vnet.cli.client import Client
from vnet.cli.options import Settings
from vnet.cli.snapshot_commands import branches, prune
from vnet.fabric.live import snapshots
from vnet.fabric.live.event_log import EventLog
from vnet.fabric.live.snapshot_uses import refuse_kept
from vnet.fabric.live.snapshots import Pruning
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.snapshots import Snapshots
from vnet.hv.snapshot import Consistency, Saved, SavedDisk, Snapshot

FAMILY = ("g1", "g2", "all1")


def saved(vm: str, parent: str = "") -> Saved:
    return Saved(vm, Consistency.OFF, (), parent)


@pytest.fixture(autouse=True)
def family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three snapshots of `db` and `web`, each the parent of the next."""
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    for number, (name, parent) in enumerate(zip(FAMILY, ("", *FAMILY), strict=False)):
        made = Snapshot(name, "lab", name, float(number), (saved("db", parent), saved("web", parent)))
        files.commit(files.begin(made), made)
    for vm in ("db", "web"):
        files.set_head("lab", vm, FAMILY[-1])


def registry() -> Any:
    """One with no fabric up, whose guests have no disks."""
    stopped = lambda fabric, vm: SimpleNamespace(  # noqa: E731
        lock=asyncio.Lock(),
        is_up=False,
        spec=SimpleNamespace(name=vm),
        refuse_while_held=lambda: None,
    )
    kept = Snapshots(SimpleNamespace(guest_named=stopped), "lab", lambda nic: 0)  # type: ignore[arg-type]
    parts = SimpleNamespace(guests=SimpleNamespace(snapshots=kept))
    locks = defaultdict(asyncio.Lock)
    return SimpleNamespace(locks=locks, fabrics={}, make_parts=lambda name: parts, events=EventLog())


def parents(vm: str) -> dict[str, str]:
    return {row["snapshot"]: row["parent"] for row in asyncio.run(snapshots.listed("lab", vm))}


def tree(vm: str) -> list[str]:
    return [
        line.split("─ ")[1].split()[0] for line in branches(asyncio.run(snapshots.listed("lab", vm)), "", "")
    ]


def test_what_is_left_descends_from_what_is_left() -> None:
    asyncio.run(snapshots.prune(registry(), "lab", Pruning(("db",), 1, None, False)))
    assert [each.of("db").parent for each in files.known("lab") if "db" in each.vms] == [""]
    assert parents("db") == {"all1": ""}
    assert parents("web") == {"g1": "", "g2": "g1", "all1": "g2"}


def test_when_all_are_removed_the_next_one_descends_from_none() -> None:
    asyncio.run(snapshots.prune(registry(), "lab", Pruning(("db",), 0, None, False)))
    assert files.head("lab", "db") == ""
    assert files.head("lab", "web") == "all1"


def refusing(vm: str) -> Any:
    """A registry whose guests' snapshots can be removed, but not those of one VM."""
    made = registry()
    kept = made.make_parts("lab").guests.snapshots

    async def remove(snapshot: Snapshot, of: str) -> None:
        if of == vm:
            raise HostError("its disk is away")
        await kept.remove(snapshot, of)

    parts = SimpleNamespace(guests=SimpleNamespace(snapshots=SimpleNamespace(remove=remove)))
    return SimpleNamespace(**{**vars(made), "make_parts": lambda name: parts})


def test_what_cannot_be_removed_is_told_and_the_rest_is_removed() -> None:
    rows = asyncio.run(snapshots.prune(refusing("db"), "lab", Pruning((), 1, None, False)))
    assert [(row["vm"], row["snapshot"], row["fault"]) for row in rows] == [
        ("db", "g1", "its disk is away"),
        ("db", "g2", "its disk is away"),
        ("web", "g1", ""),
        ("web", "g2", ""),
    ]
    assert (tree("db"), tree("web")) == (["g1", "g2", "all1"], ["all1"])


def test_of_several_vms_a_snapshot_is_removed_where_it_can_be() -> None:
    told: list[tuple[Any, ...]] = []
    made = refusing("db")
    made.events = SimpleNamespace(tell=lambda *words: told.append(words))
    with pytest.raises(HostError, match="g2 could not be removed of db: its disk is away; of web it was rem"):
        asyncio.run(snapshots.remove(made, "lab", (), "g2"))
    assert (tree("db"), tree("web")) == (["g1", "g2", "all1"], ["g1", "all1"])
    assert [words[1] for words in told] == ["web: g2 was removed"]


def test_prune_lists_what_went_and_tells_what_did_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def post(client: Client, path: str, body: Any = None) -> Any:
        return asyncio.run(snapshots.prune(refusing("db"), "lab", Pruning((), 2, None, False)))

    monkeypatch.setattr(Settings, "daemon", lambda settings: Client())
    monkeypatch.setattr(Client, "post", post)
    assert prune(Settings(name="lab"), keep_last=2) == Exit.FAILED
    said = capsys.readouterr()
    assert [line.split()[:3] for line in said.out.splitlines()[1:]] == [["lab", "web", "g1"]]
    assert said.err.splitlines() == [
        "1 were removed",
        "vnet: g1 of db could not be removed: its disk is away",
    ]


def test_one_whose_parent_is_not_there_is_a_root_of_the_tree() -> None:
    first, second, last = files.known("lab")
    for each in (first, second):
        files.rewrite(each.without("db"))
    files.rewrite(replace(last, members=(saved("db", "g1"), saved("web", "gone"))))
    assert (parents("db"), tree("db")) == ({"all1": ""}, ["all1"])
    assert tree("web") == ["g1", "g2", "all1"]


def test_of_a_suspended_vm_that_is_said_before_its_snapshots_are_to_go() -> None:
    member = Saved("db", Consistency.OFF, (SavedDisk("data", "qcow2", 1 << 20),))
    made = Snapshot("d1", "lab", "d1", 9.0, (member,))
    files.commit(files.begin(made), made)
    with pytest.raises(HostError, match="`vnet snapshot rm db NAME` first"):
        refuse_kept("lab", "db", "data")
    files.wish("lab", "memory", ["db"], memory=True, suspended=True)
    with pytest.raises(HostError, match="db is suspended"):
        refuse_kept("lab", "db", "data")
