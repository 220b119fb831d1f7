"""What a snapshot of disks alone says of the file systems on them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vnet.hv.freeze import Freeze
from vnet.hv.live import snapshot_making
from vnet.hv.live.freezing import NOTHING_TO_FREEZE
from vnet.hv.snapshot import Consistency, Saved, Snapshot

FROZEN = {
    "bare": NOTHING_TO_FREEZE,
    "mounted": Freeze(True),
    "refuses": Freeze(False, "no"),
    "thawed-itself": Freeze(True),
}


def test_where_nothing_is_mounted_disks_are_at_rest_as_backups_say(monkeypatch: pytest.MonkeyPatch) -> None:
    thawed: list[str] = []

    async def freeze(vm: str) -> Freeze:
        return FROZEN[vm]

    async def thaw(vm: str) -> bool:
        thawed.append(vm)
        return vm == "mounted"

    monkeypatch.setattr(snapshot_making, "freeze", freeze)
    monkeypatch.setattr(snapshot_making, "thaw", thaw)
    snapshot = Snapshot("1", "lab", "s", 1.0, tuple(Saved(vm, Consistency.CRASH, ()) for vm in FROZEN))
    guests: Any = {vm: vm for vm in FROZEN}
    savings: Any = {vm: SimpleNamespace(memory_bytes=0, pause_s=0.0) for vm in FROZEN}
    making = snapshot_making._Making(Path("/nowhere"), snapshot, guests, savings)

    async def freeze_and_thaw() -> None:
        await making._freeze()
        await making._thaw()

    asyncio.run(freeze_and_thaw())
    told = {each.vm: each.consistency.value for each in making._told().members}
    assert told == {"bare": "frozen", "mounted": "frozen", "refuses": "crash", "thawed-itself": "crash"}
    assert thawed == ["mounted", "thawed-itself"]
