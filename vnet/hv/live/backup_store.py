"""A store of backups: a folder with a folder for each entry. Without vnet it is files that one can copy.

An entry counts from the moment when its `manifest.json` is there, which is put last. Until then it has an
`unfinished.json`, which says of whom it was to be.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base.errors import HostError, InputError
from vnet.hv import backup, qemu_img
from vnet.hv.backup import Manifest, SavedDisk
from vnet.hv.live import image_tool
from vnet.hv.live.host_files import flush, opened, part_of, replace_file, sha256_of

MANIFEST = "manifest.json"
UNFINISHED = "unfinished.json"
_REMOVED = ".removed-"
"""What the names of folders begin with that are entries no more."""
_FILE_SYSTEMS_OWN = "lost+found"
_LABEL = "vnet-backups.json"


@dataclass(frozen=True, slots=True)
class Entry:
    """What is in a folder of the store. `trouble` says why it cannot be restored as it is."""

    manifest: Manifest
    is_complete: bool
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class Store:
    """A store on this host, or mounted on it. `id` tells it from others."""

    path: Path
    id: str

    @classmethod
    def opened(cls, path: Path) -> Store:
        """The store in a folder. Raises InputError if it is none."""
        try:
            return cls(path, str(json.loads((path / _LABEL).read_text())["id"]))
        except FileNotFoundError:
            why = f"it has no {_LABEL}" if path.exists() else "there is no such folder"
            raise InputError(
                f"there are no backups in {path}: {why}; `vnet backup create --to` makes a store, "
                "`--store` names another"
            ) from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise HostError(f"the store {path} cannot be read: {error}") from error

    @classmethod
    def made(cls, path: Path) -> Store:
        """The same, made if the folder is empty or not there."""
        if (path / _LABEL).exists():
            return cls.opened(path)
        try:
            path.mkdir(parents=True, exist_ok=True, mode=0o700)
            ours = (_FILE_SYSTEMS_OWN, part_of(path / _LABEL).name)
            if any(each.name not in ours for each in path.iterdir()):
                raise InputError(
                    f"{path} is not empty and no store of backups: name an empty folder, or a new one"
                )
            store = cls(path, secrets.token_hex(4))
            replace_file(path / _LABEL, json.dumps({"format": backup.FORMAT, "id": store.id}) + "\n")
        except OSError as error:
            raise HostError(f"cannot make a store of backups in {path}: {error.strerror}") from error
        return store

    def folder(self, id_: str) -> Path:
        """Where an entry is. Raises InputError for what can be none."""
        return self.path / backup.check_id(id_)

    def file(self, manifest: Manifest, disk: SavedDisk) -> Path:
        """Where a disk of an entry is."""
        return self.folder(manifest.id) / backup.check_id(disk.file)

    def entries(self) -> Iterator[Entry]:
        """All there are, those of a VM in the order in which they were taken."""
        found = [_entry(folder) for folder in self.path.iterdir() if _is_entry(folder)]
        yield from sorted(
            found, key=lambda each: (each.manifest.vm, each.manifest.taken_at, each.manifest.id)
        )

    def complete(self) -> Mapping[str, Manifest]:
        """Those that count, by name."""
        return complete_of(self.entries())

    def entry(self, id_: str) -> Entry:
        """One. Raises InputError if there is none of that name."""
        folder = self.folder(id_)
        if not _is_entry(folder):
            raise InputError(
                f"there is no backup {id_} in {self.path}; `vnet backup ls` tells which there are"
            )
        return _entry(folder)

    def begin(self, manifest: Manifest, key: bytes | None) -> None:
        """Make an entry that does not count yet, with empty files."""
        folder = self.folder(manifest.id)
        folder.mkdir(mode=0o700)
        self.note(manifest)
        for disk in manifest.disks:
            path = self.file(manifest, disk)
            how = os.O_CREAT | os.O_EXCL | os.O_WRONLY
            with opened(path, how) as descriptor, open(descriptor, "wb", closefd=False) as file:
                file.write(_empty_luks(key) if key is not None else b"")

    def note(self, manifest: Manifest) -> None:
        """Say what an unfinished entry is to be."""
        replace_file(self.folder(manifest.id) / UNFINISHED, backup.encode(manifest))

    def finish(self, manifest: Manifest) -> None:
        """From here on it counts, also after a power cut."""
        folder = self.folder(manifest.id)
        replace_file(folder / MANIFEST, backup.encode(manifest))
        (folder / UNFINISHED).unlink(missing_ok=True)

    def remove(self, id_: str) -> None:
        """Remove an entry for good; interrupted, none of it counts, and the next removal takes the rest."""
        folder = self.folder(id_)
        gone = folder.with_name(f"{_REMOVED}{id_}")
        with suppress(FileNotFoundError):
            folder.rename(gone)
        for each in self.path.glob(f"{_REMOVED}*"):
            shutil.rmtree(each, ignore_errors=True)
        if gone.exists():
            raise HostError(f"{gone} could not be removed whole: remove it by hand")


def complete_of(entries: Iterable[Entry]) -> Mapping[str, Manifest]:
    """Those of them that count, by name."""
    found = (each for each in entries if each.is_complete and not each.trouble)
    return {each.manifest.id: each.manifest for each in found}


def sweep(path: Path) -> None:
    """Removes what a daemon that was killed has left in a store; of what is not the store's own, nothing."""
    part_of(path / _LABEL).unlink(missing_ok=True)
    if not (path / _LABEL).exists():
        return
    for gone in path.glob(f"{_REMOVED}*"):
        shutil.rmtree(gone, ignore_errors=True)
    for folder in (each for each in path.iterdir() if each.is_dir() and each.name != _FILE_SYSTEMS_OWN):
        for name in (MANIFEST, UNFINISHED):
            part_of(folder / name).unlink(missing_ok=True)
        if (folder / MANIFEST).exists():
            (folder / UNFINISHED).unlink(missing_ok=True)
        with suppress(OSError):  # unless there is something in it
            folder.rmdir()


def measured(store: Store, manifest: Manifest) -> Manifest:
    """The manifest with sizes and sums of its files, which are on the disk and not only in memory by then."""
    disks = tuple(_measured(store.file(manifest, disk), disk) for disk in manifest.disks)
    return replace(manifest, disks=disks)


def _empty_luks(key: bytes) -> bytes:
    """A LUKS volume with nothing in it; it grows as it is written to."""
    descriptor = os.memfd_create("luks", os.MFD_CLOEXEC)
    with open(descriptor, "rb") as file:
        image_tool.run(qemu_img.create_luks(descriptor, key))
        return file.read()


def _measured(path: Path, disk: SavedDisk) -> SavedDisk:
    flush(path)
    return replace(disk, file_bytes=path.stat().st_size, sha256=sha256_of(path))


def _entry(folder: Path) -> Entry:
    """What a folder holds; of one that cannot be read, that."""
    is_complete = (folder / MANIFEST).exists()
    try:
        text = (folder / (MANIFEST if is_complete else UNFINISHED)).read_text()
        manifest = backup.decode(text)
        if manifest.id != folder.name:
            raise HostError(f"it says that it is {manifest.id}")
        return Entry(manifest, is_complete)
    except (OSError, UnicodeDecodeError, HostError) as error:
        return Entry(backup.unknown(folder.name), is_complete, str(error))


def _is_entry(folder: Path) -> bool:
    is_there = (folder / MANIFEST).exists() or (folder / UNFINISHED).exists()
    return is_there and not folder.name.startswith(_REMOVED)
