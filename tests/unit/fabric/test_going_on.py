"""VMs that stand still for want of room go on once there is some."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from vnet.base.errors import HostError
from vnet.fabric.events import Kind
from vnet.fabric.live import going_on
from vnet.hv.disk import Disk
from vnet.hv.spec import GuestState, GuestStatus

GUEST = SimpleNamespace(name="db", disks=(Disk("data", 1 << 20),))


class Guests:
    def __init__(self, refuses=()):
        self.refuses, self.resumed = refuses, []

    async def status(self, name):
        return GuestStatus(name, GuestState.PAUSED, awaits_room=name.startswith("full"))

    async def resume(self, name):
        self.resumed.append(name)
        if name in self.refuses:
            raise HostError("stands still again")


def look(monkeypatch, guests, *, room):
    told = []
    names = [SimpleNamespace(name=name) for name in ("full-1", "full-2", "paused")]
    registry = SimpleNamespace(
        store=SimpleNamespace(guests=lambda fabric: names),
        events=SimpleNamespace(tell=lambda kind, *rest: told.append((kind, rest[2]))),
    )
    fabric = SimpleNamespace(parts=SimpleNamespace(guests=guests), record=SimpleNamespace(name="lab"))
    monkeypatch.setattr(going_on, "has_room", lambda guest: room)
    asyncio.run(going_on.turn(registry, fabric))
    return told


def test_without_room_nobody_goes_on(monkeypatch):
    guests = Guests()
    assert look(monkeypatch, guests, room=False) == [] and guests.resumed == []


def test_with_room_those_that_wait_for_it_go_on_and_one_that_cannot_keeps_no_other_waiting(monkeypatch):
    guests = Guests(refuses=("full-1",))
    assert look(monkeypatch, guests, room=True) == [(Kind.VM_RESUMED, "full-2")]
    assert guests.resumed == ["full-1", "full-2"]


def test_what_is_free_is_asked_of_the_disks_file_system(monkeypatch, tmp_path):
    monkeypatch.setenv("VNET_STATE_DIR", str(tmp_path))
    (tmp_path / "disks").mkdir()
    monkeypatch.setattr(going_on, "ROOM_BYTES", 1)
    assert going_on.has_room(GUEST)
    monkeypatch.setattr(going_on, "ROOM_BYTES", 1 << 62)
    assert not going_on.has_room(GUEST)
