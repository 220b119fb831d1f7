"""What is told of a store of backups, and of one that is not there."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.fabric.fakes import World, make_engine
from tests.unit.hv.test_backup import manifest
from vnet.fabric.live import backup_shelf
from vnet.fabric.live.backups import Backups
from vnet.hv.live.backup_store import Store


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


def states(backups: Backups, store: Store) -> dict[str, str]:
    rows = asyncio.run(backup_shelf.listed(backups, str(store.path), None, "db"))
    return {row["id"]: row["state"] for row in rows}


def test_an_increment_whose_parent_is_gone_is_not_listed_as_complete(backups: Backups, store: Store) -> None:
    assert states(backups, store) == {"m0": "complete", "m1": "complete"}
    store.remove("m0")
    assert states(backups, store) == {"m1": "orphaned"}
    shown = asyncio.run(backup_shelf.shown(backups, "m1", str(store.path)))
    assert shown["trouble"] == "m1 is an increment of m0, which is not in this store"
