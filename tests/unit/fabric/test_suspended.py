"""Snapshots where VMs are suspended: who is left out, and whose memory is given up, is told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.fabric.fakes import World, make_engine
from vnet.base.errors import HostError, InputError
from vnet.cli import snapshot_commands
from vnet.cli.client import Client
from vnet.cli.options import Settings
from vnet.fabric.live import snapshots
from vnet.fabric.live.engine import Engine
from vnet.fabric.progress import silent
from vnet.fabric.store import Source
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.snapshots import Wanted
from vnet.hv.snapshot import Consistency, Saved, SavedDisk, Snapshot

LAB = """\
name: lab
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db: {networks: [lan], disks: [{name: data, size: 64M}]}
  web: {networks: [lan], disks: [{name: data, size: 64M}]}
"""


def saved(*vms: str) -> Snapshot:
    disks = (SavedDisk("data", "qcow2", 64 << 20),)
    return Snapshot("s1", "lab", "s1", 1.0, tuple(Saved(vm, Consistency.OFF, disks) for vm in vms))


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """One whose VMs run, and whose guests' snapshots are made and restored by name only."""
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path / "state"))
    made = make_engine(World(), tmp_path)
    asyncio.run(made.up(Source("lab.vnet.yaml", LAB), silent))

    async def save(specs: list[str], wanted: Wanted) -> Snapshot:
        return saved(*specs)

    async def restore(*words: Any, **options: Any) -> None:
        pass

    guests: Any = made.fabrics["lab"].parts.guests
    guests.snapshots = SimpleNamespace(save=save, restore=restore)
    guests.spec = lambda guest: guest.name
    yield made
    asyncio.run(made.close())


def suspend(engine: Engine, *vms: str) -> None:
    for vm in vms:
        asyncio.run(snapshots.suspend(engine, "lab", vm, silent))


def test_all_leaves_suspended_vms_out_and_names_them(engine: Engine) -> None:
    suspend(engine, "db")
    made = asyncio.run(snapshots.save(engine, "lab", (), Wanted("s1"), silent))
    assert ([row["vm"] for row in made["snapshots"]], made["left_out"]) == (["web"], ["db"])
    named = asyncio.run(snapshots.save(engine, "lab", ("web",), Wanted("s1"), silent))
    assert named["left_out"] == []


def test_when_all_are_suspended_that_is_why_nothing_can_be_kept(engine: Engine) -> None:
    suspend(engine, "db", "web")
    with pytest.raises(InputError, match="db, web: suspended"):
        asyncio.run(snapshots.save(engine, "lab", (), Wanted("s1"), silent))


def test_a_restore_of_a_suspended_vm_tells_that_its_memory_is_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = saved("db", "web")
    files.commit(files.begin(made), made)
    suspend(engine, "db")
    told: list[str] = []
    monkeypatch.setattr(engine.events, "tell", lambda kind, text, *words: told.append(text))
    done = asyncio.run(snapshots.restore(engine, "lab", (), "s1", None, silent))
    assert (done["memory_lost"], done["vms"], done["booted"]) == (["db"], ["db", "web"], ["web"])
    assert told[0] == "db, web: restored from s1; lost is the memory that was kept of db"


def test_a_suspended_vm_is_not_stopped_but_said_to_be_suspended(engine: Engine) -> None:
    suspend(engine, "db")
    with pytest.raises(HostError, match="db is suspended and does not run, nothing was changed"):
        asyncio.run(engine.stop("lab", "db", 1.0, silent))
    assert asyncio.run(engine.stop("lab", "web", 1.0, silent)).fabric == "lab"


def test_the_commands_say_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    answers = {
        "snapshots": {"snapshots": [], "left_out": ["db"]},
        "restore": {"vms": ["db"], "memory": False, "memory_lost": ["db"]},
    }
    monkeypatch.setattr(Settings, "daemon", lambda settings: Client())
    monkeypatch.setattr(
        Client, "run", lambda client, method, path, body, report: answers[path.rpartition("/")[2]]
    )
    snapshot_commands.save(Settings(name="lab"), ["friday"], all_=True)
    snapshot_commands.restore(Settings(name="lab"), ["db", "s1"])
    assert capsys.readouterr().err.splitlines() == [
        "db: suspended: has been kept so, and is not in friday",
        "db: their disks are what they were",
        "db: was suspended, and the memory that was kept is lost",
    ]
