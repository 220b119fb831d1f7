"""What QEMU and guests tell, read from answers as they came; and that nobody waits for a QEMU that hangs."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from vnet.base.errors import HostError, PeerError
from vnet.hv import vitals
from vnet.hv.disk import Disk
from vnet.hv.latency import BOUNDS_NS
from vnet.hv.live.vitals import PATIENCE_S, Look
from vnet.hv.monitor import Command
from vnet.hv.vitals import Vitals

BACKEND = "/machine/peripheral/blk0/virtio-backend"
STATS = {
    "stats": {
        "stat-swap-out": 4096,
        "stat-available-memory": 35069952,
        "stat-free-memory": 28213248,
        "stat-major-faults": 3,
        "stat-total-memory": 62488576,
        "stat-swap-in": (1 << 64) - 1,
        "stat-disk-caches": 5619712,
    },
    "last-update": 1795948225,
}


def device(*, counted: bool = True, reads: int = 3) -> Mapping[str, Any]:
    bins = [0, 0, reads, *[0] * (len(BOUNDS_NS) - 2)]
    one = {"boundaries": list(BOUNDS_NS), "bins": bins}
    names = ("rd", "wr", "flush")
    stats: dict[str, Any] = {f"{name}_operations": reads for name in names}
    stats |= {f"{name}_bytes": 512 * reads for name in names}
    stats |= {f"failed_{name}_operations": 1 for name in names}
    stats |= {f"{name}_total_time_ns": 1_000_000 for name in names}
    stats |= {f"{name}_latency_histogram": one for name in names} if counted else {}
    return {"qdev": BACKEND, "node-name": "disk0", "stats": stats, "parent": {"stats": {}}}


class Qemu:
    """Stands for a monitor: answers, refuses, or hangs."""

    def __init__(self) -> None:
        self.asked: list[Command] = []
        self.counted = False
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.gone = False

    async def execute(self, command: Command) -> object:
        self.asked.append(command)
        await self.hangs.wait()
        if self.gone:
            raise PeerError("QEMU went away")
        match command.name, command.arguments.get("property"):
            case "qom-get", "guest-stats":
                return STATS
            case "qom-set", "guest-stats-polling-interval":
                return {}
            case "qom-get", "serial":
                return "data"
            case "query-balloon", _:
                return {"actual": 64 << 20}
            case "query-blockstats", _:
                return [device(counted=self.counted), {"node-name": "inner", "stats": {}}]
            case "block-latency-histogram-set", _:
                self.counted = True
                return {}
        raise HostError(f"no such command: {command}")


def test_memory_is_as_the_guest_tells_and_what_it_does_not_know_is_0() -> None:
    found = vitals.memory_of(STATS)
    assert found is not None
    assert (found.total_bytes, found.available_bytes, found.swapped_out_bytes) == (62488576, 35069952, 4096)
    assert found.swapped_in_bytes == 0
    assert found.used_bytes == 62488576 - 35069952


def test_a_guest_that_has_not_told_anything_has_told_nothing() -> None:
    assert vitals.memory_of({"stats": {}, "last-update": 0}) is None


def test_a_kernel_that_does_not_know_what_is_available_tells_what_is_free() -> None:
    stats = {name: value for name, value in STATS["stats"].items() if name != "stat-available-memory"}  # type: ignore[attr-defined]
    found = vitals.memory_of({"stats": stats, "last-update": 1})
    assert found is not None
    assert found.available_bytes == 28213248


def test_a_disk_is_named_by_its_serial_number_and_a_long_name_by_its_beginning() -> None:
    long = Disk("a-name-of-more-than-twenty-letters", 512)
    disks = (Disk("data2", 512), Disk("data", 512), long)
    assert vitals.name_of("data", BACKEND, disks) == "data"
    assert vitals.name_of(long.name[:20], BACKEND, disks) == long.name
    assert vitals.name_of("other", BACKEND, disks) == "other"
    assert vitals.name_of("", BACKEND, disks) == "blk0"


def test_vitals_survive_the_way_to_the_command_line() -> None:
    (one,) = vitals.devices_of([device()])
    found = Vitals(vitals.memory_of(STATS), 5, (vitals.disk_of("data", one),), 1.5)
    assert vitals.from_json(asdict(found)) == found
    assert vitals.from_json(asdict(Vitals())) == Vitals()


def look(qemu: Qemu, times: int = 1) -> Vitals:
    async def ask() -> Vitals:
        one = Look(qemu)  # type: ignore[arg-type]
        for _ in range(times):
            found = await one.look((Disk("data", 512),))
            await asyncio.sleep(0.21)
        return found

    return asyncio.run(ask())


def test_the_first_look_has_answers_counted_by_time_and_the_next_one_tells_them() -> None:
    first, second = look(Qemu()), look(Qemu(), times=2)
    assert first.disks[0].reads.count == 0
    assert (second.disks[0].name, second.disks[0].reads.count, second.disks[0].failed) == ("data", 3, 3)
    assert second.left_bytes == 64 << 20


def test_counting_begins_once_and_not_again() -> None:
    qemu = Qemu()
    look(qemu, times=3)
    names = [each.name for each in qemu.asked]
    assert (names.count("block-latency-histogram-set"), names.count("qom-set")) == (1, 1)


def test_what_a_guest_told_before_it_was_asked_is_not_believed() -> None:
    assert look(Qemu()).memory is None
    assert look(Qemu(), times=2).memory is not None


def test_a_qemu_that_hangs_keeps_nobody_waiting_and_its_last_answer_stays() -> None:
    async def ask() -> tuple[Vitals, float, int]:
        qemu = Qemu()
        one = Look(qemu)  # type: ignore[arg-type]
        for _ in range(2):
            await one.look(())
            await asyncio.sleep(0.21)
        qemu.hangs.clear()
        asked = len(qemu.asked)
        began = time.monotonic()
        for _ in range(4):
            found = await one.look(())
        taken_s, more = time.monotonic() - began, len(qemu.asked) - asked
        one.end()
        return found, taken_s, more

    found, taken_s, more = asyncio.run(ask())
    assert found.memory is not None
    assert found.silent_s >= 3 * PATIENCE_S
    assert taken_s < 4 * PATIENCE_S + 3
    assert more == 1, "one question is under way, not four"


def test_a_qemu_that_goes_away_tells_nothing_new() -> None:
    async def ask() -> Vitals:
        qemu = Qemu()
        one = Look(qemu)  # type: ignore[arg-type]
        for _ in range(2):
            await one.look(())
            await asyncio.sleep(0.21)
        qemu.gone = True
        return await one.look(())

    assert asyncio.run(ask()).memory is not None
