"""What is told of a store of backups, and of one that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.fabric.test_engine import SMALL, source
from tests.unit.hv.test_backup import manifest
from vnet.base.errors import InputError
from vnet.fabric.live import backup_making, backup_shelf
from vnet.fabric.live.backups import Backups, Target, Wanted
from vnet.fabric.progress import silent
from vnet.hv.live.backup_store import Store
from vnet.hv.retention import Keep


@pytest.fixture
def backups(tmp_path: Path) -> Iterator[Backups]:
    made = make_engine(World(), tmp_path)
    yield Backups(made)
    asyncio.run(made.close())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """One with two backups of `db`, the second an increment of the first."""
    made = Store.made(tmp_path / "backups")
    for entry in (manifest("m0"), manifest("m1", "m0", hours=1)):
        made.begin(entry, None)
        made.finish(entry)
    return made


def listed(backups: Backups, store: str, vm: str | None = None, fabric: str | None = None) -> list[str]:
    return [row["id"] for row in asyncio.run(backup_shelf.listed(backups, store, fabric, vm))]


def prune(backups: Backups, store: Store, vm: str) -> list[str]:
    work = backup_shelf.prune(
        backups, str(store.path), Keep(last=1), Target("", vm), dry_run=True, report=silent
    )
    return [row["id"] for row in asyncio.run(work)]


def states(backups: Backups, store: Store) -> dict[str, str]:
    rows = asyncio.run(backup_shelf.listed(backups, str(store.path), None, "db"))
    return {row["id"]: row["state"] for row in rows}


def test_an_increment_whose_parent_is_gone_is_not_listed_as_complete(backups: Backups, store: Store) -> None:
    assert states(backups, store) == {"m0": "complete", "m1": "complete"}
    store.remove("m0")
    assert states(backups, store) == {"m1": "orphaned"}
    shown = asyncio.run(backup_shelf.shown(backups, "m1", str(store.path)))
    assert shown["trouble"] == "m1 is an increment of m0, which is not in this store"


def test_a_store_that_is_named_and_not_there_is_no_empty_one(backups: Backups, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no backups in .*/away: there is no such folder"):
        listed(backups, str(tmp_path / "away"))
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(InputError, match="no backups in .*/unmounted: it has no"):
        listed(backups, str(tmp_path / "unmounted"))


def test_the_hosts_own_store_is_empty_until_it_is_made(
    backups: Backups, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    assert listed(backups, "") == []
    with pytest.raises(InputError, match="dbb has no backups in .* with backups there: none"):
        listed(backups, "", "dbb")


def test_a_vm_that_nobody_knows_is_an_error_in_words(backups: Backups, store: Store) -> None:
    assert listed(backups, str(store.path), "db") == prune(backups, store, "db")[::-1] == ["m0", "m1"]
    for refused in (lambda: listed(backups, str(store.path), "dbb"), lambda: prune(backups, store, "dbb")):
        with pytest.raises(InputError, match="dbb has no backups in .* with backups there: db"):
            refused()
    with pytest.raises(InputError, match="db has no backups"):
        listed(backups, str(store.path), "db", "other")


def test_a_backup_of_a_vm_that_nobody_knows_makes_no_store(backups: Backups, tmp_path: Path) -> None:
    asyncio.run(backups.engine.up(source(SMALL), silent))
    with pytest.raises(InputError, match="dbb"):
        asyncio.run(backup_making.create(backups, "small", "dbb", Wanted(str(tmp_path / "new")), silent))
    assert not (tmp_path / "new").exists()


def test_a_vm_that_is_declared_may_have_no_backups_yet(backups: Backups, store: Store) -> None:
    asyncio.run(backups.engine.up(source(SMALL), silent))
    assert listed(backups, str(store.path), "a") == prune(backups, store, "a") == []
