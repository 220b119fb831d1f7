"""One VM in one snapshot, as clients are told of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from vnet.hv.snapshot import Snapshot, is_old


def row(snapshot: Snapshot, vm: str, known: Sequence[Snapshot], now_s: float, head: str) -> Mapping[str, Any]:
    """A row of a list.

    Args:
        known: all snapshots of the fabric. A parent that is not among them, or not of the VM, is none.
        head: the ID of the snapshot that the VM's state descends from.
    """
    saved = snapshot.of(vm)
    names = {each.id: each.name for each in known if vm in each.vms}
    return {
        "fabric": snapshot.fabric,
        "vm": vm,
        "snapshot": snapshot.name,
        "id": snapshot.id,
        "created": datetime.fromtimestamp(snapshot.created_s, UTC).isoformat(timespec="seconds"),
        "age_s": round(max(0.0, now_s - snapshot.created_s), 1),
        "old": is_old(snapshot, now_s),
        "consistency": saved.consistency.value,
        "memory_bytes": saved.memory_bytes,
        "pause_s": saved.pause_s,
        "disks": [asdict(disk) for disk in saved.disks],
        "parent": names.get(saved.parent, ""),
        "current": head == snapshot.id,
        "together_with": [other for other in snapshot.vms if other != vm],
        "description": snapshot.description,
    }
