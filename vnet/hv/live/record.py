"""What is kept of a started guest beside its folder, so that a later manager finds it again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from vnet.base import paths


@dataclass(frozen=True, slots=True)
class Record:
    """One guest with a process, or on the way to one.

    The file lies in a folder of root's, not in the guest's own: QEMU cannot change it. `ready` is set
    once the guest has its NICs and addresses; a guest found without it is half-made and is ended. `booting`
    is set while it boots again, and has lost its addresses.
    `start_ticks` is 0 until the process is known.
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
    origin: str = ""
    """The wish (`snapshot_files.Next`) that it was started from."""
    saving: str = ""
    """The snapshot that is being made of it; it may stand still for that."""
    saving_runs: bool = False
    """Whether it is to go on afterwards."""

    def write(self, path: Path) -> None:
        """Replaces the file; a crash leaves the old one or the new one."""
        beside = path.with_suffix(".new")
        beside.write_text(json.dumps(asdict(self)))
        beside.rename(path)


def record_path(fabric: str, name: str) -> Path:
    """Where the record of a guest lies."""
    folder = paths.vm_run_dir(fabric, name)
    return folder.with_name(f"{folder.name}.json")


def read(path: Path) -> Record | None:
    """The record, or None if there is none that can be read."""
    try:
        fields = json.loads(path.read_text())
        return Record(**{**fields, "cgroups": tuple(fields["cgroups"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def names(fabric: str) -> tuple[str, ...]:
    """The guests of a fabric that have a record."""
    folder = paths.fabric_run_dir(fabric) / "vms"
    return tuple(sorted(path.stem for path in folder.glob("*.json")))
