"""Disks that are being backed up: who is told what, by what their QEMU and this daemon know."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vnet.base.errors import HostError
from vnet.hv.backup_commands import File
from vnet.hv.disk import Disk
from vnet.hv.lifecycle import Phase
from vnet.hv.live.adopting import Adopter
from vnet.hv.live.backed_up import refuse_backed_up
from vnet.hv.live.guest import Guest
from vnet.hv.live.snapshots import Snapshots, Wanted
from vnet.hv.monitor import Command
from vnet.hv.snapshot import Consistency, Saved, Snapshot
from vnet.hv.spec import GuestSpec

DB = GuestSpec("shop", "db", "micro", 1, 96 << 20, (), (Disk("a", 1 << 20),))


class Qemu:
    """One with the descriptors that it was given, and with these jobs."""

    def __init__(self, *jobs: str) -> None:
        self.jobs, self.sets = jobs, list[Any]()

    async def execute(self, command: Command) -> Any:
        given: dict[str, Any] = dict(command.arguments)
        match command.name:
            case "query-jobs":
                return [{"id": id_, "status": "concluded"} for id_ in self.jobs]
            case "query-fdsets":
                return self.sets
            case "add-fd":
                number = given.pop("fdset-id")
                self.sets.insert(0, {"fdset-id": number, "fds": [{"fd": command.fd, **given}]})
        return {}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("BACKUP", "STATE"):
        monkeypatch.setenv(f"VNET_{name}_DIR", str(tmp_path))
    monkeypatch.setattr(Guest, "monitor", property(lambda guest: guest.machine))
    return tmp_path


def refused(qemu: Qemu, *written: str, copied: str = "") -> str:
    guest = Guest(DB, lambda event: None)
    guest.machine, guest.copied = qemu, copied  # type: ignore[attr-defined]
    for number, path in enumerate(written):
        asyncio.run(qemu.execute(File(number, is_encrypted=False).add_fd(7, path)))
    with pytest.raises(HostError) as told:
        asyncio.run(refuse_backed_up(guest))
    return str(told.value)


def test_nobody_is_refused_whose_disks_are_not_copied() -> None:
    guest = Guest(DB, lambda event: None)
    guest.machine = Qemu("somebody's")  # type: ignore[attr-defined]
    asyncio.run(refuse_backed_up(guest))


def test_one_that_this_daemon_copies_is_waited_for() -> None:
    told = refused(Qemu("backup0"), "/store/db-1/a.qcow2", copied="its disks are being backed up")
    assert told == "db: its disks are being backed up; wait for its end, or break it off"


def test_one_whose_daemon_was_killed_is_named_with_its_store(folder: Path) -> None:
    told = refused(Qemu("backup0"), str(folder / "db-1/a.qcow2"), str(folder / "db-2/a.qcow2"))
    assert "`vnet backup resume db-2` finishes it, `vnet backup discard db-2` removes it" in told
    told = refused(Qemu("backup1"), "/other/db-3/a.qcow2")
    assert "`vnet backup discard db-3 --store /other`" in told


def test_one_that_nobody_has_named_can_be_found() -> None:
    assert "`vnet backup ls`" in refused(Qemu("backup0")) and "`vnet backup ls`" in refused(
        Qemu("backup0"), ""
    )


@pytest.mark.parametrize("is_up", [True, False])
def test_no_snapshot_is_made_removed_or_taken_back_to_meanwhile_and_no_memory_kept(
    is_up: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = Guest(DB, lambda event: None)
    guest.machine, guest.phase = Qemu("backup0"), Phase.RUNNING if is_up else Phase.ABSENT  # type: ignore[attr-defined]
    guest.hold("" if is_up else "it is being backed up")
    manager: Any = SimpleNamespace(guest=lambda spec: guest, guest_named=lambda fabric, vm: guest)
    monkeypatch.setattr(Adopter, "adopt", lambda adopter: asyncio.sleep(0, is_up))
    kept, made = Snapshots(manager, "shop", lambda nic: 0), Snapshot("1", "shop", "s", 0.0, ())
    made = replace(made, members=(Saved("db", Consistency.OFF, ()),))
    for ask in (
        lambda: kept.save([DB], Wanted("s")),
        lambda: kept.remove(made, "db"),
        (lambda: kept.suspend(DB))
        if is_up
        else (lambda: kept.restore(made, [DB], memory=False, progress=lambda text: None)),
    ):
        with pytest.raises(HostError, match="being backed up"):
            asyncio.run(ask())
