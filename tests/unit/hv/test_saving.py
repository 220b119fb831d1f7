from __future__ import annotations

import asyncio

import pytest

from vnet.base.errors import HostError
from vnet.hv import monitor, saving
from vnet.hv.disk import Disk, plugged
from vnet.hv.live.saving import clear
from vnet.hv.monitor import Command
from vnet.hv.saving import Course, Stage
from vnet.hv.snapshot import Build


def answer(status: str, remaining: int = 0, passes: int = 0) -> dict[str, object]:
    return {"status": status, "ram": {"remaining": remaining, "dirty-sync-count": passes}}


def test_emulated_guests_are_not_copied_while_they_run() -> None:
    assert saving.copies_while_it_runs(Build("QEMU emulator version 7.2.22", "kvm"))
    assert not saving.copies_while_it_runs(Build("QEMU emulator version 9.0.0", "tcg"))


def test_nothing_begun_is_a_course_that_has_ended() -> None:
    assert saving.course({}) == Course(Stage.NONE)
    assert saving.course({}).has_ended


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_qemu_does_no_more_after_an_end(status: str) -> None:
    assert saving.course(answer(status)).has_ended


def test_little_that_is_left_is_near_and_many_passes_are_endless() -> None:
    assert saving.course(answer("active", 1 << 20, 1)).is_near
    assert not saving.course(answer("active", 1 << 30, 1)).is_near
    assert not saving.course(answer("active", 0, 0)).is_near
    assert saving.course(answer("active", 1 << 30, saving.PASSES + 1)).is_endless
    assert not saving.course(answer("pre-switchover", 0, saving.PASSES + 1)).is_endless


@pytest.mark.parametrize("told", [None, [], {"status": "sideways"}, {"status": "active", "ram": 3}])
def test_what_is_no_answer_is_refused(told: object) -> None:
    with pytest.raises(HostError, match="does not tell"):
        saving.course(told)


def test_memory_of_a_template_is_part_of_what_is_saved() -> None:
    capabilities = saving.begin(7)[0].arguments["capabilities"]
    assert {"capability": "x-ignore-shared", "state": False} in capabilities  # type: ignore[operator]
    assert {"capability": "pause-before-switchover", "state": True} in capabilities  # type: ignore[operator]
    assert [each.fd for each in saving.begin(7)] == [None, None, 7, None]


def test_all_disks_are_kept_in_one_transaction_or_none_is() -> None:
    disks = plugged((Disk("a", 512), Disk("b", 512)), 1)
    (command,) = saving.keep_disks(disks, "id")
    assert [each["data"] for each in command.arguments["actions"]] == [  # type: ignore[attr-defined]
        {"device": "disk0", "name": "id"},
        {"device": "disk1", "name": "id"},
    ]
    assert saving.keep_disks((), "id") == ()


class Stuck:
    """A QEMU that was cancelled when it had just decided to wait for what will not come."""

    def __init__(self) -> None:
        self.asked: list[Command] = []

    async def execute(self, command: Command) -> object:
        self.asked.append(command)
        if command == monitor.QUERY_MIGRATE:
            return {"status": "cancelled" if saving.WAKE_CANCELLED in self.asked else "cancelling"}
        return {"status": "postmigrate", "running": False} if command == monitor.QUERY_STATUS else {}


def test_a_qemu_that_waits_for_ever_once_it_was_cancelled_is_woken_and_the_guest_goes_on() -> None:
    qemu = Stuck()
    asyncio.run(clear(qemu, (), "id", runs=True))  # type: ignore[arg-type]
    assert qemu.asked[-1] == monitor.CONTINUE
    assert saving.CLOSE in qemu.asked, "else who reads what it writes waits for its end"
