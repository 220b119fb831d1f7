"""The daemon is killed in the middle of operations on VMs: they are completed or undone, and nothing is left.

A few steps of a few operations; `make kills` tries every step of every one.
"""

from __future__ import annotations

import pytest

from tests.kills.commands import QuickLab
from tests.kills.exam import daemons, kill, steps_of
from tests.kills.operations import FABRIC, OPERATIONS
from tests.vm.fabric_lab import lab

CHOSEN = {
    "start-clone": ("after process qemu-system-x86_64", "after QMP device_add"),
    "stop": ("before QMP quit",),
    "disk-create": ("after process qemu-img",),
    "image-import": ("after process qemu-img",),
    "plug": ("after QMP netdev_add",),
    "unplug": ("after QMP device_del",),
}
BY_NAME = {operation.name: operation for operation in OPERATIONS}


@pytest.fixture(scope="module")
def host():
    with lab(kind=QuickLab) as made, daemons(made) as by:
        yield made, by
        made.vnet("down", "-n", FABRIC, "--disks")


@pytest.mark.parametrize("name", CHOSEN)
def test_an_operation_whose_daemon_is_killed_is_completed_or_undone(host, name: str) -> None:
    operation = BY_NAME[name]
    found = [line.partition(" ") for line in steps_of(*host, operation)]
    for step in CHOSEN[name]:
        number = next(int(number) for number, _, what in found if what.startswith(step))
        killed = kill(*host, operation, number)
        assert killed.died, f"{step} did not come again"
        assert not killed.wrong, killed
