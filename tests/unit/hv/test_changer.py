"""A guest that is changed while it runs: what is refused before anything is done, what a failure leaves."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from vnet.base.errors import HostError
from vnet.hv.argv import places_of
from vnet.hv.built import built_for
from vnet.hv.changing import HalfChanged
from vnet.hv.disk import Disk
from vnet.hv.live import plugging
from vnet.hv.live.changing import Changer, refuse_what_was_changed
from vnet.hv.live.guest import Guest
from vnet.hv.live.record import Record
from vnet.hv.monitor import Command
from vnet.hv.spec import GuestNic, GuestSpec

MIB = 1 << 20
DATA, MORE = Disk("data", 8 * MIB), Disk("more", 8 * MIB, location="missing")
NIC, OTHER = GuestNic("db.eth0", "eth0", 1, ()), GuestNic("db.eth1", "eth1", 2, ())
SPEC = GuestSpec("lab", "db", "micro", 1, 96 * MIB, (NIC, OTHER), (DATA, MORE))
WITHOUT = replace(SPEC, disks=(DATA,))


class Machine:
    """A QEMU whose guest lets go of what it is asked for. `busy` is what it does not let go of itself."""

    def __init__(self) -> None:
        self.devices, self.busy, self.jobs = {"nic0", "nic1", "blk0", "blk1"}, "", list[str]()
        self.said = list[str]()

    async def execute(self, command: Command) -> Any:
        given: dict[str, Any] = dict(command.arguments)
        words = [command.name, *map(str, given.values())]
        self.said.append(" ".join(words))
        if self.busy in words:
            raise HostError(f"QEMU refused {self.busy}: it is in use")
        match command.name:
            case "qom-list":
                return [{"name": name} for name in self.devices]
            case "query-jobs":
                return [{"id": id_} for id_ in self.jobs]
            case "query-fdsets":
                return []
            case "device_del":
                self.devices.discard(given["id"])
        return {}

    async def poll(self, command: Command, done: Any) -> None:
        assert done(await self.execute(command))


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Guest:
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path))
    made = Guest(SPEC, lambda event: None)
    made.run_dir.parent.mkdir(parents=True)
    built = built_for(1, 96 * MIB, 3, "tcg")
    made.keep(Record("", 0, "tcg", False, 96 * MIB, (), built=built, places=places_of(SPEC)))
    made.machine = Machine()  # type: ignore[attr-defined]
    monkeypatch.setattr(Guest, "monitor", property(lambda guest: guest.machine))
    monkeypatch.setattr(plugging, "_PAUSES_S", (0.0,))
    for name in ("_ask_who_will_be_told", "_tell", "_is_mounted"):
        monkeypatch.setattr(Changer, name, answering)
    return made


async def answering(*_: object) -> bool:
    """A guest that hears of everything, and has nothing mounted."""
    return False


def change(guest: Guest, new: GuestSpec) -> None:
    asyncio.run(Changer(guest, lambda nic: 0).change(new))


def test_a_disk_goes_whose_location_is_missing_with_all_that_was_behind_it(guest: Guest) -> None:
    change(guest, WITHOUT)
    assert guest.spec == WITHOUT
    assert [name for name, *_ in guest.recorded.places.disks] == ["data"]
    assert "blockdev-del disk1" in guest.machine.said


@pytest.mark.parametrize("jobs", [["backup0"], []])
def test_no_disk_goes_or_grows_while_they_are_backed_up(guest: Guest, jobs: list[str]) -> None:
    guest.machine.jobs, guest.copied = jobs, "" if jobs else "its disks are being backed up"
    for new in (WITHOUT, replace(SPEC, disks=(replace(DATA, size_bytes=16 * MIB), MORE))):
        with pytest.raises(HostError, match="being backed up"):
            change(guest, new)
    assert not [each for each in guest.machine.said if not each.startswith("query-")]
    assert guest.spec == SPEC


def test_what_its_guest_has_let_go_of_and_qemu_has_not_is_not_said_to_be_there(guest: Guest) -> None:
    for busy, new in (("disk1", WITHOUT), ("net1", replace(WITHOUT, nics=(NIC,)))):
        guest.machine.busy = busy
        with pytest.raises(HalfChanged, match=f"has let go of its .*, and its QEMU has not: .*{busy}"):
            change(guest, new)
        assert guest.spec == new
    assert guest.recorded.places.nics == (("eth0", 0),)
    assert [name for name, *_ in guest.recorded.places.disks] == ["data"]


def test_only_who_can_keep_disks_alone_is_told_to(guest: Guest) -> None:
    guest.note(places=places_of(SPEC).without_disk("more"))
    with pytest.raises(HostError, match="once it has been restarted$"):
        refuse_what_was_changed(guest)
    with pytest.raises(HostError, match="restarted; its disks can$"):
        refuse_what_was_changed(guest, "; its disks can")
