"""A change that its manager did not survive: what is found of each step, and what becomes of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from vnet.base.errors import HostError, TimedOut
from vnet.hv.built import Places, built_for
from vnet.hv.changing import Has
from vnet.hv.disk import Disk
from vnet.hv.live import plugging
from vnet.hv.live.agent_link import AgentLink
from vnet.hv.live.guest import Guest
from vnet.hv.live.plugging import Plugs
from vnet.hv.live.record import Record
from vnet.hv.live.unfinished import Unfinished
from vnet.hv.monitor import Command
from vnet.hv.spec import GuestNic, GuestSpec

MIB = 1 << 20
BUILT = built_for(1, 96 * MIB, 1, "tcg")
DATA, MORE = Disk("data", 8 * MIB), Disk("more", 8 * MIB)
NIC, NEW = GuestNic("a.eth0", "eth0", 1, ()), GuestNic("a.eth1", "eth1", 2, ())
OLD = GuestSpec("lab", "a", "micro", 1, 96 * MIB, (NIC,), (DATA,))
WANTED = replace(OLD, nics=(NIC, NEW), disks=(DATA, MORE))
NOTED = Places((("eth0", 0),), (("data", 0, 1),))


class Machine:
    """A QEMU with devices, each with its MAC or serial, whose guest lets go of all but `stuck` ones."""

    def __init__(self, devices: dict[str, str]) -> None:
        self.devices, self.said, self.stuck, self.leaving = devices, list[str](), "", set[str]()

    async def execute(self, command: Command) -> Any:
        given: dict[str, Any] = dict(command.arguments)
        self.said.append(" ".join([command.name, *map(str, given.values())]))
        match command.name:
            case "qom-list":
                gone, self.leaving = self.leaving, set()
                self.devices = {name: each for name, each in self.devices.items() if name not in gone}
                return [{"name": name} for name in self.devices]
            case "qom-get":
                return self.devices[given["path"].rpartition("/")[2]]
            case "query-named-block-nodes":
                return [{"node-name": f"disk{n}", "drv": "qcow2"} for n in range(2)]
            case "query-hotpluggable-cpus":
                return [{"qom-path": "/machine/cpu"}, {"props": {}}]
            case "device_del" if given["id"] != self.stuck:
                self.leaving.add(given["id"])
            case "device_del" | "netdev_del":
                raise HostError(f"QEMU refused {given['id']}")
        return {}

    async def poll(self, command: Command, done: Any) -> None:
        while not done(await self.execute(command)):  # noqa: ASYNC110
            await asyncio.sleep(0.001)


@pytest.fixture
def found(tmp_path, monkeypatch):
    monkeypatch.setenv("VNET_RUN_DIR", str(tmp_path))
    monkeypatch.setattr(Guest, "monitor", property(lambda guest: guest.machine), raising=True)

    def make(devices: dict[str, str], places: Places = NOTED, *, links_down: tuple[str, ...] = ()):
        guest = Guest(WANTED, lambda event: None)
        guest.machine = Machine(devices)  # type: ignore[attr-defined]
        guest.run_dir.parent.mkdir(parents=True, exist_ok=True)
        guest.keep(
            Record("", 0, "tcg", False, 96 * MIB, (), built=BUILT, places=places, links_down=links_down)
        )
        return Unfinished(guest, Plugs(guest), BUILT, (OLD, WANTED))

    return make


MACS = {"nic0": "00:00:00:00:00:01", "blk0": "data"}


def clear(unfinished: Unfinished) -> Places:
    asyncio.run(unfinished.clear())
    return unfinished.guest.recorded.places


def test_where_nothing_was_under_way_nothing_is_noted_or_taken_out(found):
    unfinished = found(dict(MACS))
    assert clear(unfinished) == NOTED
    assert not [each for each in unfinished.guest.machine.said if each.startswith("device_del")]


def test_what_was_plugged_in_and_is_of_the_change_is_noted(found):
    unfinished = found({**MACS, "nic2": "00:00:00:00:00:02"})
    assert clear(unfinished) == NOTED.with_nic("eth1")
    assert asyncio.run(unfinished.has()) == Has(1, (("eth0", 1), ("eth1", 2)), ("data.qcow2",))
    unfinished = found({**MACS, "blk1": "more"})
    assert clear(unfinished) == NOTED.with_disk("more")
    assert "device_del blk1" not in unfinished.guest.machine.said


def test_what_nobody_knows_is_taken_out_with_what_is_behind_it(found):
    unfinished = found({**MACS, "nic3": "00:00:00:00:00:09", "blk1": "others"})
    assert clear(unfinished) == NOTED
    said = unfinished.guest.machine.said
    assert "device_del nic3" in said and "netdev_del net3" in said
    assert "device_del blk1" in said and "blockdev-del disk1" in said


def test_what_has_gone_is_noted_and_its_cable_is_plugged_in_the_next_time(found):
    unfinished = found({}, links_down=("eth0",))
    assert clear(unfinished) == Places()
    assert unfinished.guest.recorded.links_down == ()


def test_what_goes_while_it_is_looked_at_is_told(found):
    unfinished = found({"nic0": MACS["nic0"]})
    with pytest.raises(HostError, match="has let go of blk0"):
        asyncio.run(unfinished.refuse_gaps())


def test_a_guest_of_an_earlier_version_is_left_alone(found):
    unfinished = found(dict(MACS))
    unfinished.guest.note(built=None)
    with pytest.raises(HostError, match="an earlier version"):
        clear(unfinished)
    assert unfinished.guest.machine.said == []


def test_what_qemu_refuses_to_take_out_is_said_in_its_words_once_it_is_known_to_stay(found, monkeypatch):
    monkeypatch.setattr(plugging, "UNPLUG_TIMEOUT_S", 0.05)
    unfinished = found({**MACS, "nic3": "00:00:00:00:00:09"})
    unfinished.guest.machine.stuck = "nic3"
    with pytest.raises(HostError, match="QEMU refused nic3"):
        clear(unfinished)


def test_who_asks_a_guest_that_another_waits_for_waits_no_longer_than_allowed():
    async def test() -> None:
        link = AgentLink()
        async with link._lock:
            with pytest.raises(TimedOut, match="asked by another"):
                await link.now(OLD, 0.05)

    asyncio.run(test())
