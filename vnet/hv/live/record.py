"""What is kept of a started guest beside its folder, so that a later manager finds it again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vnet.base import paths
from vnet.hv.built import NOWHERE, Built, Places
from vnet.hv.live import host_files


@dataclass(frozen=True, slots=True)
class Record:
    """One guest with a process, or on the way to one.

    The file lies in a folder of root's, not in the guest's own: QEMU cannot change it. `ready` is set
    once the guest has its NICs and addresses; a guest found without it is half-made and is ended. `booting`
    is set while it boots again, and has lost its addresses; `ending` once it is ended on purpose.
    `start_ticks` is 0 until the process is known. `built` is None of a guest that an earlier version started:
    its machine cannot grow. `links_down` are the interfaces whose cable is pulled.
    """

    uuid: str
    user: int
    accel: str
    warm: bool
    memory_bytes: int
    cgroups: tuple[str, ...]
    start_ticks: int = 0
    ready: bool = False
    booting: bool = False
    ending: bool = False
    origin: str = ""
    """The wish (`snapshot_files.Next`) that it was started from."""
    saving: str = ""
    """The snapshot that is being made of it; it may stand still for that."""
    saving_runs: bool = False
    """Whether it is to go on afterwards."""
    built: Built | None = None
    places: Places = NOWHERE
    links_down: tuple[str, ...] = ()
    halted: bool = False
    """It stands still for a disk, and that was told."""

    def write(self, path: Path) -> None:
        """Replaces the file."""
        host_files.replace_file(path, json.dumps(asdict(self)))


def forget(path: Path) -> None:
    """Removes the file, and what a daemon left that was killed while it wrote."""
    host_files.part_of(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def record_path(fabric: str, name: str) -> Path:
    """Where the record of a guest lies."""
    folder = paths.vm_run_dir(fabric, name)
    return folder.with_name(f"{folder.name}.json")


def read(path: Path) -> Record | None:
    """The record, or None if there is none that can be read."""
    try:
        fields = json.loads(path.read_text())
        return Record(**{**fields, "cgroups": tuple(fields["cgroups"]), **_changeable(fields)})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _changeable(fields: Mapping[str, Any]) -> dict[str, Any]:
    """What can change while a guest runs; records of earlier versions have none of it."""
    built, places = fields.get("built"), fields.get("places") or {}
    return {
        "built": Built(**built) if built else None,
        "places": Places(**{name: tuple(map(tuple, each)) for name, each in places.items()}),
        "links_down": tuple(fields.get("links_down", ())),
    }


def names(fabric: str) -> tuple[str, ...]:
    """The guests of a fabric that have a record."""
    folder = paths.fabric_run_dir(fabric) / "vms"
    return tuple(sorted(path.stem for path in folder.glob("*.json")))
