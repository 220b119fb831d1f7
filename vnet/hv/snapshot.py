"""Snapshots of VMs as values: what is kept of each, whether it can be brought back, which are too old.

A snapshot is of one VM or of several at one moment. What it says of each VM stands alone: it can be restored
and removed without the others.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from enum import StrEnum

from vnet.base.errors import InputError
from vnet.hv.disk import DiskFormat
from vnet.hv.spec import GuestSpec

OLD_AFTER_S = 30 * 86400
"""From this age on a snapshot is pointed out: it keeps every block that was overwritten since."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Consistency(StrEnum):
    """What a restored VM finds."""

    MEMORY = "memory"
    """It goes on where it was."""
    FROZEN = "frozen"
    """It boots from file systems that were brought to rest before."""
    CRASH = "crash"
    """It boots as after a power failure."""
    OFF = "off"
    """It was off."""


@dataclass(frozen=True, slots=True)
class SavedDisk:
    """A disk as it was. It is kept inside the disk's own file."""

    name: str
    format: str
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Build:
    """What loads a saved memory: another build may not understand it. `cpu` is "" where QEMU emulates it."""

    qemu: str
    accel: str
    cpu: str = ""


@dataclass(frozen=True, slots=True)
class Shape:
    """The machine that a saved memory belongs to; `words` stands for all of its command line."""

    cpus: int
    memory_bytes: int
    macs: tuple[int, ...]
    disks: tuple[str, ...]
    words: str


@dataclass(frozen=True, slots=True)
class Saved:
    """One VM in a snapshot. `parent` is the snapshot that its state descended from, "" if from none.

    `build` and `shape` are there if its memory is; `memory_bytes` is what that takes of the file system.
    """

    vm: str
    consistency: Consistency
    disks: tuple[SavedDisk, ...]
    parent: str = ""
    build: Build | None = None
    shape: Shape | None = None
    memory_bytes: int = 0
    pause_s: float = 0.0
    """How long it stood still."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """VMs as they were at one moment. `id` names it among all, and in the files of the disks."""

    id: str
    fabric: str
    name: str
    created_s: float
    members: tuple[Saved, ...]
    description: str = ""

    def of(self, vm: str) -> Saved:
        """What it says of one of its VMs."""
        return next(each for each in self.members if each.vm == vm)

    @property
    def vms(self) -> tuple[str, ...]:
        """The VMs in it."""
        return tuple(each.vm for each in self.members)

    def without(self, vm: str) -> Snapshot:
        """The same, one VM left out."""
        return replace(self, members=tuple(each for each in self.members if each.vm != vm))


def to_json(snapshot: Snapshot) -> str:
    """As it is kept beside its data."""
    return json.dumps(asdict(snapshot), indent=1) + "\n"


def from_json(text: str) -> Snapshot:
    """The other way. Raises ValueError, KeyError or TypeError for what is no snapshot."""
    fields = json.loads(text)
    return Snapshot(**{**fields, "members": tuple(_saved(each) for each in fields["members"])})


def _saved(fields: Mapping[str, object]) -> Saved:
    given: dict[str, object] = dict(fields)
    shape, build, disks = given["shape"], given["build"], given["disks"]
    assert isinstance(disks, list)
    given["consistency"] = Consistency(str(given["consistency"]))
    given["disks"] = tuple(SavedDisk(**each) for each in disks)
    given["build"] = Build(**build) if isinstance(build, dict) else None
    given["shape"] = _shape(shape) if isinstance(shape, dict) else None
    return Saved(**given)  # type: ignore[arg-type]


def _shape(fields: Mapping[str, object]) -> Shape:
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}
    return Shape(**tuples)  # type: ignore[arg-type]


# ---- what can be saved -----------------------------------------------------------------------


def check_name(name: str) -> None:
    """Raises InputError for what is no name of a snapshot."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"{name!r} is no name for a snapshot: letters, digits, '.', '_' and '-', at most 63, and a letter"
            " or digit first"
        )


def refuse_raw(spec: GuestSpec) -> None:
    """Raises InputError for a VM with a disk that keeps no earlier contents."""
    raw = [each.name for each in spec.disks if each.format != DiskFormat.QCOW2.value]
    if raw:
        raise InputError(
            f"{spec.name}: of disks with `format: raw` there are no snapshots: {', '.join(raw)}. Declare"
            " `format: qcow2` for a new disk and copy what is on it; `vnet suspend` takes any format"
        )


def refuse_taken(name: str, vms: Iterable[str], known: Sequence[Snapshot]) -> None:
    """Raises InputError if one of the VMs has a snapshot of that name already."""
    for vm in vms:
        if any(each.name == name and vm in each.vms for each in known):
            raise InputError(f"{vm} has a snapshot {name} already: another name, or `vnet snapshot rm` first")


# ---- whether its memory can be loaded --------------------------------------------------------


def obstacles(saved: Saved, build: Build, shape: Shape) -> tuple[str, ...]:
    """Why a saved memory cannot be loaded into the machine that would be started now; nothing if it can."""
    if saved.build is None or saved.shape is None:
        return ("its memory was not saved",)
    return (*_other_build(saved.build, build), *_other_shape(saved.shape, shape))


def _other_build(then: Build, now: Build) -> Iterable[str]:
    if then.qemu != now.qemu:
        yield f"it was saved by {then.qemu}, this is {now.qemu}"
    if then.accel != now.accel:
        yield f"it was saved under {then.accel}, this host runs VMs under {now.accel}"
    elif then.cpu != now.cpu:
        yield "it was saved on another model of CPU"


def _other_shape(then: Shape, now: Shape) -> Iterable[str]:
    if then.cpus != now.cpus:
        yield f"it had {then.cpus} CPUs, it is declared with {now.cpus}"
    if then.memory_bytes != now.memory_bytes:
        yield f"it had {then.memory_bytes >> 20}M of memory, it is declared with {now.memory_bytes >> 20}M"
    if then.macs != now.macs:
        yield f"it had {len(then.macs)} NICs, it is declared with {len(now.macs)} or with other MAC addresses"
    if then.disks != now.disks:
        had, has = (", ".join(each) or "none" for each in (then.disks, now.disks))
        yield f"it had the disks {had}, it is declared with {has}"
    if replace(then, words="") == replace(now, words="") and then.words != now.words:
        yield "its machine is put together otherwise than then (another version of vnet?)"


# ---- a family of snapshots -------------------------------------------------------------------


def of_vm(snapshots: Iterable[Snapshot], vm: str) -> tuple[Snapshot, ...]:
    """Those with a VM in them, the oldest first."""
    return tuple(sorted((each for each in snapshots if vm in each.vms), key=lambda each: each.created_s))


def adopted(snapshots: Iterable[Snapshot], gone: Snapshot, vm: str) -> tuple[Snapshot, ...]:
    """Those that descended from one that is removed, now from the one before it."""
    parent = gone.of(vm).parent
    return tuple(
        replace(each, members=tuple(_reparented(member, vm, gone.id, parent) for member in each.members))
        for each in snapshots
        if vm in each.vms and each.of(vm).parent == gone.id
    )


def _reparented(member: Saved, vm: str, gone: str, parent: str) -> Saved:
    return replace(member, parent=parent) if (member.vm, member.parent) == (vm, gone) else member


def to_prune(
    snapshots: Iterable[Snapshot], vm: str, now_s: float, keep_last: int | None, older_than_s: float | None
) -> tuple[Snapshot, ...]:
    """The snapshots of a VM that are no longer wanted, the oldest first.

    Args:
        keep_last: so many of the newest stay in any case.
        older_than_s: only what is older goes.
    """
    family = of_vm(snapshots, vm)
    loose = family[: max(0, len(family) - (keep_last or 0))]
    return tuple(each for each in loose if older_than_s is None or now_s - each.created_s > older_than_s)


def is_old(snapshot: Snapshot, now_s: float) -> bool:
    """Whether it is old enough to be pointed out."""
    return now_s - snapshot.created_s > OLD_AFTER_S
