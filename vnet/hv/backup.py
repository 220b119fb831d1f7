"""Backups as values: what an entry of a store says of itself, what it needs, what the next one begins from.

An entry is a folder with `manifest.json` and one file for each disk. A file is qcow2, compressed with zstd;
an encrypted one is that within LUKS. An increment's file has the clusters that were written since its parent.

What has been written since a backup is counted by a dirty bitmap of QEMU's which has the backup's name.
Nothing ever clears one: a backup begins its own at its moment, its parent's is removed once it is complete.
So a backup that fails, at whatever step, leaves the count from its parent as it was.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from enum import Enum
from typing import Any

from vnet.base.errors import HostError, InputError
from vnet.hv.freeze import Freeze
from vnet.hv.retention import Point

FORMAT = 1
"""Of manifests. One that says more is of a later vnet."""

ASKED_FOR = "asked for"
FIRST = "the first one here"
"""Reasons to copy a disk whole that need no mention."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,120}")
"""Of entries and their files: no path leads out of the store."""


class Kind(Enum):
    """Whether an entry can be restored alone. Of an increment at least one disk cannot."""

    FULL = "full"
    INCREMENTAL = "incremental"


@dataclass(frozen=True, slots=True)
class SavedDisk:
    """A disk in an entry. `format`, `is_full` and `is_encrypted` are those of the VM's disk.

    `file` is its name in the entry's folder; `file_bytes` and `sha256` are of that file. `whole_because` says
    why all of it is there, and not only what was written since the entry's parent.
    """

    name: str
    size_bytes: int
    format: str
    is_full: bool
    is_encrypted: bool
    file: str
    whole_because: str = ""
    file_bytes: int = 0
    sha256: str = ""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an entry says of itself.

    `declared` is the VM as it was declared, `topology` the files of its fabric: what a host needs that has
    never heard of it. `check` is a salted MAC of all else by the key, "" of an entry that is not encrypted.
    """

    id: str
    store: str
    fabric: str
    vm: str
    kind: Kind
    parent: str | None
    taken_at: datetime
    freeze: Freeze
    disks: tuple[SavedDisk, ...]
    is_encrypted: bool = False
    declared: Mapping[str, Any] = field(default_factory=dict)
    topology: Mapping[str, str] = field(default_factory=dict)
    vnet: str = ""
    qemu: str = ""
    check: str = ""

    @property
    def point(self) -> Point:
        """It as retention sees it, in this host's time zone."""
        return Point(self.id, self.taken_at.astimezone(), self.parent)

    @property
    def file_bytes(self) -> int:
        """What its files have in all."""
        return sum(disk.file_bytes for disk in self.disks)

    def disk(self, name: str) -> SavedDisk:
        """Its disk of that name. Raises InputError."""
        found = next((disk for disk in self.disks if disk.name == name), None)
        if found is None:
            known = ", ".join(disk.name for disk in self.disks)
            raise InputError(f"the backup {self.id} has no disk {name}; its disks: {known}")
        return found


def new_id(vm: str, taken_at: datetime, suffix: str) -> str:
    """A name that sorts by time within a VM: `db-20261129T103000-3fa9`, in UTC."""
    return f"{vm}-{taken_at:%Y%m%dT%H%M%S}-{suffix}"


def check_id(text: str) -> str:
    """The name of an entry, or of a file in one. Raises InputError for what is no plain name."""
    if not _NAME.fullmatch(text):
        raise InputError(f"{text!r} is not the name of a backup; `vnet backup ls` tells which there are")
    return text


# ---- as text -----------------------------------------------------------------------------------


def plain(manifest: Manifest) -> dict[str, Any]:
    """What is written, and printed with `-o json`."""
    fields = asdict(manifest) | {"kind": manifest.kind.value, "taken_at": manifest.taken_at.isoformat()}
    return {"format": FORMAT, **fields}


def encode(manifest: Manifest) -> str:
    """The text of a manifest."""
    return json.dumps(plain(manifest), indent=2, ensure_ascii=False) + "\n"


def decode(text: str) -> Manifest:
    """A manifest from its text. Raises HostError saying what is wrong with it."""
    try:
        raw = json.loads(text)
        form = raw.pop("format")
        if form != FORMAT:
            raise HostError(f"it has format {form}, this vnet knows {FORMAT}")
        disks = tuple(SavedDisk(**disk) for disk in raw["disks"])
        for name in (raw["id"], *(disk.file for disk in disks)):
            check_id(name)
        taken_at = datetime.fromisoformat(raw["taken_at"])
        known = {"kind": Kind(raw["kind"]), "taken_at": taken_at, "freeze": Freeze(**raw["freeze"])}
        return Manifest(**{**raw, **known, "disks": disks})
    except (ValueError, TypeError, KeyError, AttributeError, InputError) as error:
        raise HostError(f"it is damaged: {error}") from error


def signed(manifest: Manifest) -> bytes:
    """What `check` is a MAC of."""
    return encode(replace(manifest, check="")).encode()


# ---- chains ------------------------------------------------------------------------------------


def chain(id_: str, entries: Mapping[str, Manifest]) -> tuple[Manifest, ...]:
    """What restoring an entry takes: a full one and the increments up to it, in this order.

    Raises InputError when one is missing.
    """
    missing = gap(id_, entries)
    if missing:
        raise InputError(f"{missing}; `vnet backup ls` tells what is")
    found = [entries[id_]]
    while found[-1].parent is not None:
        found.append(entries[found[-1].parent])
    return tuple(reversed(found))


def gap(id_: str, entries: Mapping[str, Manifest]) -> str:
    """What is missing of an entry's chain, in words; "" if nothing is."""
    passed: list[str] = []
    wanted: str | None = id_
    while wanted is not None:
        if wanted not in entries or wanted in passed:
            needs = f"{passed[-1]} is an increment of {wanted}, which" if passed else wanted
            return f"{needs} is not in this store"
        passed.append(wanted)
        wanted = entries[wanted].parent
    return ""


def disk_chain(id_: str, disk: str, entries: Mapping[str, Manifest]) -> tuple[Manifest, ...]:
    """What restoring one disk of an entry takes: the last entry with all of it, and the increments since."""
    found: list[Manifest] = []
    wanted: str | None = id_
    while wanted is not None:
        if wanted not in entries:
            raise InputError(
                f"{found[-1].id if found else id_} is an increment of {wanted}, which is not in this store"
            )
        found.append(entries[wanted])
        wanted = found[-1].parent if not found[-1].disk(disk).whole_because else None
    return tuple(reversed(found))


# ---- what the next one begins from --------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bitmap:
    """A count of what has been written to a disk. `is_good`: it has missed nothing."""

    name: str
    is_good: bool
    count_bytes: int = 0


def bitmap_name(store: str, id_: str) -> str:
    """The name of the bitmap that counts from an entry of a store."""
    return f"vnet/{store}/{id_}"


def of_store(bitmaps: Sequence[Bitmap], store: str) -> Iterator[Bitmap]:
    """Those that count from entries of one store."""
    return (each for each in bitmaps if each.name.startswith(f"vnet/{store}/"))


@dataclass(frozen=True, slots=True)
class Base:
    """What the next backup begins from: an entry or nothing. `whole` says of disks copied whole, why."""

    parent: str | None
    whole: Mapping[str, str]


def base(
    newest: Manifest | None,
    bitmaps: Mapping[str, Sequence[Bitmap]],
    *,
    is_encrypted: bool,
    full: str = "",
) -> Base:
    """What the next backup of a VM begins from.

    Args:
        newest: the VM's last complete entry in the store.
        bitmaps: those of each of its disks.
        is_encrypted: whether the next one is to be; a chain is all encrypted or not at all.
        full: why it is to be a full one in any case.
    """
    reasons = {disk: _why_whole(disk, newest, found, is_encrypted, full) for disk, found in bitmaps.items()}
    whole = {disk: why for disk, why in reasons.items() if why}
    parent = newest.id if newest is not None and len(whole) < len(bitmaps) else None
    return Base(parent, whole)


def _why_whole(
    disk: str, newest: Manifest | None, bitmaps: Sequence[Bitmap], is_encrypted: bool, full: str
) -> str:
    """Why a disk cannot be an increment; "" if it can."""
    if full:
        return full
    if newest is None:
        return FIRST
    if newest.is_encrypted != is_encrypted:
        return f"{newest.id} is {'' if newest.is_encrypted else 'not '}encrypted"
    if disk not in {each.name for each in newest.disks}:
        return f"{disk} is not in {newest.id}"
    name = bitmap_name(newest.store, newest.id)
    counting = next((each for each in bitmaps if each.name == name), None)
    if counting is None:
        return f"what was written to {disk} since {newest.id} was not counted"
    return (
        "" if counting.is_good else f"the count of what was written to {disk} was lost: its QEMU was killed"
    )


def needs(
    manifest: Manifest, bitmaps: Mapping[str, Sequence[Bitmap]], held: Mapping[str, int]
) -> tuple[tuple[str, int], ...]:
    """What an entry copies of each disk, in bytes: of an increment what was counted since its parent.

    Args:
        bitmaps: those of each disk.
        held: what the files of each disk have taken.
    """
    since = bitmap_name(manifest.store, manifest.parent or "")

    def of(disk: SavedDisk) -> int:
        if disk.whole_because:
            return min(disk.size_bytes, held[disk.name])
        return sum(each.count_bytes for each in bitmaps[disk.name] if each.name == since)

    return tuple((disk.name, of(disk)) for disk in manifest.disks)


def unknown(id_: str) -> Manifest:
    """Stands for an entry whose manifest cannot be read."""
    taken_at = datetime.fromtimestamp(0, UTC)
    return Manifest(id_, "", "", "", Kind.FULL, None, taken_at, Freeze(False), ())
