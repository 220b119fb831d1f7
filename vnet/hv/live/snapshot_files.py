"""Where snapshots are kept on this host: one folder for each, the truth about it beside its data.

    FABRIC/ID/manifest.json      what `vnet.hv.snapshot` says of it
    FABRIC/ID/VM.memory          the memory of a VM, if it was saved
    FABRIC/ID/VM.uefi-vars       what its firmware keeps, if it does
    FABRIC/.saving-ID/           one that is being made, or whose daemon was killed
    FABRIC/.head/VM              the snapshot that the VM's state descends from
    FABRIC/.next/TOKEN.json      what VMs begin with when they are started the next time

All of it is root's alone: memory contains what the guest knows. A snapshot is there once its folder has its
name. The contents of disks are inside the disks' own files, under the snapshot's ID.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from vnet.base import paths
from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import HostError
from vnet.hv import snapshot as values
from vnet.hv.live.host_files import flush, remove_parts, replace_file
from vnet.hv.snapshot import Snapshot

_SAVING = ".saving-"
_MANIFEST = "manifest.json"


@contextmanager
def explained(action: str, folder: Path) -> Iterator[None]:
    """Raises HostError for an OSError in the body."""
    try:
        yield
    except OSError as error:
        hint = "; free space, for instance with `vnet snapshot prune`" if error.errno == 28 else ""
        raise HostError(f"cannot {action} {folder}: {error.strerror or error}{hint}") from error


# ---- being made ------------------------------------------------------------------------------


def begin(snapshot: Snapshot) -> Path:
    """The folder of one that is being made; it says what has to be undone if this daemon is killed."""
    folder = paths.snapshots_dir(snapshot.fabric) / f"{_SAVING}{snapshot.id}"
    with explained("make", folder):
        folder.parent.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        folder.parent.mkdir(exist_ok=True, mode=0o700)
        folder.mkdir(mode=0o700)
        replace_file(folder / _MANIFEST, values.to_json(snapshot))
    return folder


def commit(folder: Path, snapshot: Snapshot) -> None:
    """From here on it is there: complete, and on the disk."""
    with explained("write", folder):
        for file in _of_vms(folder):
            flush(file)
        replace_file(folder / _MANIFEST, values.to_json(snapshot))
        folder.rename(folder_of(snapshot))
        flush(folder.parent)


def give_up(folder: Path) -> None:
    """Removes one that was not finished, or just was."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.rmtree(folder.with_name(folder.name.removeprefix(_SAVING)), ignore_errors=True)
    _tidy(folder.parent.name)


def half_made(fabric: str) -> tuple[tuple[Path, Snapshot | None], ...]:
    """Those whose daemon was killed, as far as it had told what it was about to do."""
    found = sorted(paths.snapshots_dir(fabric).glob(f"{_SAVING}*"))
    return tuple((folder, _read(folder)) for folder in found)


# ---- there -----------------------------------------------------------------------------------


def known(fabric: str | None = None) -> tuple[Snapshot, ...]:
    """All snapshots, or those of one fabric, the oldest first. Memory of suspended VMs is none."""
    return tuple(each for each in _all(fabric) if each.name)


def _all(fabric: str | None = None) -> tuple[Snapshot, ...]:
    folders = paths.snapshots_dir(fabric or "*")
    found = map(_read, folders.parent.glob(f"{folders.name}/[!.]*"))
    return tuple(sorted(filter(None, found), key=lambda each: (each.fabric, each.created_s)))


def find(fabric: str, snapshot_id: str) -> Snapshot | None:
    """The one of that ID, or None."""
    return _read(paths.snapshots_dir(fabric) / snapshot_id)


def rewrite(snapshot: Snapshot) -> None:
    """Changes what is said of one; without VMs it is removed, and memory that belongs to none with it."""
    folder = folder_of(snapshot)
    if not snapshot.members:
        shutil.rmtree(folder, ignore_errors=True)
        _tidy(snapshot.fabric)
        return
    with explained("write", folder):
        replace_file(folder / _MANIFEST, values.to_json(snapshot))
        for file in _of_vms(folder):
            if file.stem not in snapshot.vms:
                file.unlink()


def memory(snapshot: Snapshot, vm: str) -> Path:
    """Where the memory of one of its VMs is."""
    return folder_of(snapshot) / f"{vm}.memory"


def variables(folder: Path, vm: str) -> Path:
    """Where what the firmware of a VM keeps is, in the folder of a snapshot."""
    return folder / f"{vm}.{UEFI_VARIABLES}"


def folder_of(snapshot: Snapshot) -> Path:
    """That of one that is there."""
    return paths.snapshots_dir(snapshot.fabric) / snapshot.id


def head(fabric: str, vm: str) -> str:
    """The ID of the snapshot that a VM's state descends from, "" if from none."""
    with suppress(OSError):
        return (paths.snapshots_dir(fabric) / ".head" / vm).read_text()
    return ""


def set_head(fabric: str, vm: str, snapshot_id: str) -> None:
    """Notes what a VM's state descends from."""
    folder = paths.snapshots_dir(fabric) / ".head"
    with explained("write", folder):
        folder.mkdir(exist_ok=True, mode=0o700)
        if snapshot_id:
            replace_file(folder / vm, snapshot_id)
        else:
            (folder / vm).unlink(missing_ok=True)


def remove_all(fabric: str) -> None:
    """Removes all of a fabric whose disks are removed too."""
    folder = paths.snapshots_dir(fabric)
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):  # unless there are those of others
        folder.parent.rmdir()


def sweep(fabric: str) -> None:
    """Removes what a killed daemon left: halves of files, memory of suspended VMs that none begins with."""
    for folder in paths.snapshots_dir(fabric).glob("*/"):
        remove_parts(folder)
    wanted = {wish.snapshot for wish in wishes(fabric)}
    for each in _all(fabric):
        if not each.name and each.id not in wanted:
            shutil.rmtree(folder_of(each), ignore_errors=True)
    _tidy(fabric)


# ---- what a start begins with ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Next:
    """What VMs begin with at their next start: a snapshot to be restored, or where they were suspended.

    `token` names this one wish: a VM that was started from it has it in its record.
    """

    token: str
    fabric: str
    snapshot: str
    vms: tuple[str, ...]
    memory: bool
    is_suspended: bool = False


def wish(fabric: str, snapshot: str, vms: Iterable[str], *, memory: bool, suspended: bool = False) -> Next:
    """Notes it, in place of what was noted of these VMs before. From here on it will be done."""
    made = Next(secrets.token_hex(8), fabric, snapshot, tuple(vms), memory, suspended)
    before = wishes(fabric)
    folder = paths.snapshots_dir(fabric) / ".next"
    with explained("write", folder):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(folder / f"{made.token}.json", json.dumps(asdict(made)))
    for old in before:
        for vm in set(old.vms) & set(made.vms):
            fulfilled(old, vm)
    return made


def wishes(fabric: str) -> tuple[Next, ...]:
    """All that is noted of a fabric's VMs, the latest last."""
    files = paths.snapshots_dir(fabric).glob(".next/*.json")
    found = sorted(files, key=lambda file: file.stat().st_mtime_ns)
    return tuple(filter(None, map(_next, found)))


def next_of(fabric: str, vm: str) -> Next | None:
    """What a VM begins with, or None: it boots."""
    return next((each for each in reversed(wishes(fabric)) if vm in each.vms), None)


def refuse_kept_memory(fabric: str, vm: str) -> None:
    """Raises HostError for a VM with whose disks nothing may be done: memory that is kept belongs to them."""
    if next_of(fabric, vm) is not None:
        raise HostError(
            f"{vm} is suspended, and its disks belong to the memory that is kept: `vnet start {vm}` first,"
            f" then `vnet stop {vm}` if it is to stand still"
        )


_FULFILLING = threading.Lock()
"""Those who are restored together come back side by side, in threads."""


def fulfilled(wanted: Next, vm: str) -> None:
    """It was done for a VM, or is no longer wanted. Where it was suspended is forgotten then."""
    with _FULFILLING:
        _strike_out(wanted, vm)


def _strike_out(wanted: Next, vm: str) -> None:
    file = paths.snapshots_dir(wanted.fabric) / ".next" / f"{wanted.token}.json"
    current = _next(file)
    if current is None:
        return
    left = replace(current, vms=tuple(each for each in current.vms if each != vm))
    if left.vms:
        with explained("write", file):
            replace_file(file, json.dumps(asdict(left)))
    else:
        file.unlink(missing_ok=True)
        if wanted.is_suspended:
            shutil.rmtree(paths.snapshots_dir(wanted.fabric) / wanted.snapshot, ignore_errors=True)
        _tidy(wanted.fabric)


def _next(file: Path) -> Next | None:
    with suppress(OSError, ValueError, TypeError):
        fields = json.loads(file.read_text())
        return Next(**{**fields, "vms": tuple(fields["vms"])})
    return None


# ---- files -----------------------------------------------------------------------------------


def _of_vms(folder: Path) -> tuple[Path, ...]:
    return tuple(file for ending in ("memory", UEFI_VARIABLES) for file in folder.glob(f"*.{ending}"))


def _read(folder: Path) -> Snapshot | None:
    with suppress(OSError, ValueError, TypeError, KeyError):
        return values.from_json((folder / _MANIFEST).read_text())
    return None


def _tidy(fabric: str) -> None:
    """Removes the fabric's folder if nothing is left in it."""
    folder = paths.snapshots_dir(fabric)
    if not any(any(folder.glob(each)) for each in ("[!.]*", f"{_SAVING}*", ".next/*.json")):
        remove_all(fabric)
