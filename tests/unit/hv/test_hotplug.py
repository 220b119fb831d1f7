"""What QEMU's monitor is told to change a machine that runs, and how its answers are read."""

from __future__ import annotations

import pytest

from vnet.base.errors import HostError
from vnet.hv import hotplug
from vnet.hv.built import built_for
from vnet.hv.disk import Disk, Plugged

MIB = 1 << 20
PRESENT = {"type": "max-x86_64-cpu", "vcpus-count": 1, "props": {"core-id": 0}, "qom-path": "/machine/x[0]"}


def free(core):
    return {"type": "max-x86_64-cpu", "vcpus-count": 1, "props": {"core-id": core, "thread-id": 0}}


def test_cpus_are_added_where_they_are_free_the_first_ones_first():
    (command, other) = hotplug.plug_cpus([free(3), free(2), free(1), PRESENT], 2)
    assert command.name == "device_add"
    assert command.arguments == {"driver": "max-x86_64-cpu", "core-id": 1, "thread-id": 0}
    assert other.arguments["core-id"] == 2


def test_more_cpus_than_there_are_places_for_are_refused():
    with pytest.raises(HostError, match="place for 1 more CPUs, not for 2"):
        hotplug.plug_cpus([free(1), PRESENT], 2)


def test_what_qemu_has_is_read_from_its_lists():
    listed = [{"name": "nic0", "type": "child<virtio-net-pci>"}, {"name": "type", "type": "string"}]
    assert hotplug.devices(listed) == {"nic0", "type"}
    assert hotplug.devices("nothing") == frozenset()
    assert hotplug.cpus([free(1), PRESENT]) == 1
    assert hotplug.mac("52:54:00:00:00:0a") == 0x52540000000A
    assert hotplug.formats([{"node-name": "disk0", "drv": "qcow2"}]) == {"disk0": "qcow2"}


def test_memory_comes_into_the_slot_that_is_kept_for_it_and_takes_only_what_is_asked_for():
    backend, device = hotplug.add_memory(built_for(1, 96 * MIB, 1, "tcg"), 160 * MIB)
    assert backend.arguments["size"] == 1 << 30
    assert backend.arguments["reserve"] is False
    assert (device.arguments["bus"], device.arguments["requested-size"]) == ("slot7", 160 * MIB)


def test_how_much_memory_was_added_is_that_of_our_own_device():
    other = {"type": "dimm", "data": {"id": "dimm0", "size": 5}}
    assert hotplug.added_memory([other]) is None
    assert hotplug.added_memory([other, {"type": "virtio-mem", "data": {"id": "memory", "size": 7}}]) == 7


def test_a_disk_is_let_go_of_with_its_file():
    names = [command.name for command in hotplug.drop_disk(Plugged(Disk("data", MIB), 0, 1))]
    assert names == ["blockdev-del", "remove-fd"]
