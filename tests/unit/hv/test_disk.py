"""Disks as values, and as files in a folder of the test's."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace

import pytest

from tests.unit.hv.machines import machine
from vnet.base.errors import HostError
from vnet.hv import monitor
from vnet.hv.argv import DiskArgument, command_line
from vnet.hv.disk import Disk, Plugged, plugged
from vnet.hv.hotplug import drop_disk
from vnet.hv.live import disk as live

DATA = Disk("data", 64 << 20)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    return tmp_path / "disks"


def test_a_disk_has_a_slot_behind_the_nics_whether_it_is_there_from_the_start_or_plugged():
    (place,) = plugged((DATA,), 2)
    words = command_line(replace(machine(2), disks=(DiskArgument(place, 9),)))
    cold = [json.loads(word) for word in words if word.startswith("{")]
    warm = [dict(command.arguments) for command in monitor.plug_disk(place, 9)[1:]]
    assert cold == warm
    assert cold[1]["bus"] == "slot2"
    assert cold[0]["file"]["filename"] == "/dev/fdset/1"
    assert "fd=9,set=1" in words


def test_a_linked_disk_has_its_base_behind_it_whether_it_is_there_from_the_start_or_plugged():
    (place,) = plugged((DATA,), 2)
    words = command_line(replace(machine(2), disks=(DiskArgument(place, 9, 8),)))
    cold = [json.loads(word) for word in words if word.startswith("{")]
    plugging = monitor.plug_disk(place, 9, None, 8)
    assert cold == [dict(command.arguments) for command in plugging[2:]]
    assert [(command.name, command.fd) for command in plugging[:2]] == [("add-fd", 8), ("add-fd", 9)]
    backing = cold[0]["backing"]
    assert (backing["read-only"], backing["backing"]) == (True, None)
    assert backing["file"]["filename"] == f"/dev/fdset/{place.base_set_number}"
    assert f"fd=8,set={place.base_set_number}" in words
    dropped = [command.arguments.get("fdset-id") for command in drop_disk(place, is_based=True)]
    assert dropped == [None, place.set_number, place.base_set_number]


def test_a_disk_is_made_once_and_its_contents_stay(folder):
    path = live.ensure("lab", "db", replace(DATA, format="raw"))
    with path.open("r+b") as file:
        file.write(b"precious")
    assert live.ensure("lab", "db", replace(DATA, format="raw")).read_bytes()[:8] == b"precious"
    assert path.stat().st_mode & 0o707 == 0o600, "a group without members may be named"
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("kind", ["raw", "qcow2"])
def test_a_disk_grows_and_does_not_shrink(folder, kind):
    disk = replace(DATA, format=kind)
    live.ensure("lab", "db", disk)
    live.ensure("lab", "db", replace(disk, size_bytes=96 << 20))
    (kept,) = live.kept()
    assert kept.size_bytes == 96 << 20
    assert kept.taken_bytes < 1 << 20
    with pytest.raises(HostError, match="has 96M and is declared with 64M: it is not made smaller"):
        live.ensure("lab", "db", disk)


def test_a_preallocated_disk_takes_its_room_at_once(folder):
    live.ensure("lab", "db", replace(DATA, is_full=True))
    assert live.kept()[0].taken_bytes >= 64 << 20


def test_half_a_disk_is_no_disk(folder):
    (folder / "lab" / "db").mkdir(parents=True)
    (folder / "lab" / "db" / ".data.qcow2.part").write_bytes(b"half")
    assert live.kept() == ()
    live.ensure("lab", "db", DATA)
    assert [path.name for path in (folder / "lab" / "db").glob("data*")] == ["data.qcow2"]


def test_a_disk_that_cannot_be_made_leaves_nothing(folder):
    with pytest.raises(HostError, match="qemu-img create"):
        live.ensure("lab", "db", replace(DATA, size_bytes=1 << 62, is_full=True))
    assert list((folder / "lab" / "db").glob("data*")) == []


def test_disks_are_listed_by_fabric_and_removed_with_their_folders(folder):
    for fabric in ("lab", "other"):
        live.ensure(fabric, "db", DATA)
    assert [each.fabric for each in live.kept("lab")] == ["lab"]
    assert live.kept("../disks") == ()
    live.remove(live.kept("lab")[0])
    assert [path.name for path in folder.iterdir()] == ["other"]


def test_descriptors_are_closed_with_the_stack(folder):
    live.ensure("lab", "db", DATA)
    with ExitStack() as stack:
        descriptor = live.open_disk("lab", "db", Plugged(DATA, 0, 0), stack).fd
        assert descriptor > 2
