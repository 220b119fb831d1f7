"""Restores backups, and tries whether they could be: reads every byte of them."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base.errors import HostError, VnetError
from vnet.hv import backup, monitor, qemu_img
from vnet.hv import backup_commands as commands
from vnet.hv.backup import Manifest, SavedDisk
from vnet.hv.backup_commands import File
from vnet.hv.disk import Disk, plugged
from vnet.hv.live import base_note, image_store, image_tool, locations, root_disk
from vnet.hv.live import disk as disks
from vnet.hv.live.backup import Moved, check_key, wait
from vnet.hv.live.backup_room import refuse_restore_without_room
from vnet.hv.live.backup_store import Store
from vnet.hv.live.host_files import flush, opened, sha256_of
from vnet.hv.live.qmp import Monitor
from vnet.hv.live.threads import finished
from vnet.hv.live.worker import working
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stored


@dataclass(frozen=True, slots=True)
class Into:
    """Where a saved disk goes: a disk of a VM that does not run. A root disk is the difference to an image,
    which `image` is called in the topology; a disk that is one of an image there is one of it again."""

    saved: SavedDisk
    fabric: str
    vm: str
    disk: Disk
    base: Stored | None = None
    image: str = ""

    @property
    def path(self) -> Path:
        """Its file."""
        return disks.path_of(self.fabric, self.vm, self.disk)

    def based(self) -> Into:
        """With the image that the disk there is the difference to, if it is one: the note beside it stays."""
        note = base_note.base_of(self.path) if self.path.exists() else None
        return self if note is None else replace(self, base=base_note.image_of(self.path), image=note.name)


async def restore(
    store: Store, wanted: Manifest, key: bytes | None, places: Sequence[Into], rate_bytes: int, moved: Moved
) -> None:
    """Write disks as they were; each is there whole or not at all, under its name.

    Raises: InputError when the chain is not complete or the key is wrong.
    """
    entries = await asyncio.to_thread(store.complete)
    chains = [backup.disk_chain(wanted.id, into.saved.name, entries) for into in places]
    for into in places:
        await asyncio.to_thread(disks.refuse_elsewhere, into.fabric, into.vm, into.disk)
    for link in {link.id: link for links in chains for link in links}.values():
        check_key(link, key)
    sources = [
        (into.saved, into.disk.location, [store.file(link, link.disk(into.saved.name)) for link in links])
        for into, links in zip(places, chains, strict=True)
    ]
    opening = key if wanted.is_encrypted else None
    await asyncio.to_thread(refuse_restore_without_room, sources, opening)
    for into, links in zip(places, chains, strict=True):
        for link in links:
            await asyncio.to_thread(_refuse_damaged, store, link, into.saved.name)
    with contextlib.ExitStack() as stack:
        made = [(stack.enter_context(disks.made_beside(into.path)), into) for into in places]
        for part, into in made:
            await finished(_make, part, into)
        async with working(max(into.disk.file_bytes for into in places)) as worker:
            if opening is not None:
                await worker.monitor.execute(commands.add_key(opening))
            await _copy(worker.monitor, store, chains, made, rate_bytes, moved)
        for part, _ in made:  # before it gets its name
            await asyncio.to_thread(flush, part)


def _make(part: Path, into: Into) -> None:
    wanted = _as_saved(into)
    if into.base is None:
        locations.make_folder(part.parent)
        disks.make(part, into.path, wanted)
    else:
        root_disk.make(part, into.path, wanted.size_bytes, into.base, into.image)


def _as_saved(into: Into) -> Disk:
    """The disk in its size of then; it grows when its VM is started."""
    wanted = into.disk
    return replace(wanted, size_bytes=into.saved.size_bytes, is_root=into.base is not None)


def _refuse_damaged(store: Store, link: Manifest, name: str) -> None:
    """What is written to a disk is what was saved, or nothing is."""
    saved = link.disk(name)
    trouble = _sums(store.file(link, saved), saved)
    if trouble:
        raise HostError(f"{link.id} is damaged, nothing was restored: {saved.file}: {trouble}")


async def _copy(
    qmp: Monitor,
    store: Store,
    chains: Sequence[Sequence[Manifest]],
    made: Sequence[tuple[Path, Into]],
    rate_bytes: int,
    moved: Moved,
) -> None:
    """All disks side by side."""
    jobs, index = [], 0
    targets = plugged([_as_saved(into) for _, into in made], 0)
    for (part, into), target, links in zip(made, targets, chains, strict=True):
        files = []
        for link in links:
            file = File(index, link.is_encrypted, is_read_only=True)
            index += 1
            with opened(store.file(link, link.disk(into.saved.name)), os.O_NOFOLLOW) as fd:
                await qmp.execute(file.add_fd(fd))
            files.append(file)
        await qmp.execute(commands.open_chain(files))
        with opened(part, os.O_RDWR | os.O_NOFOLLOW) as fd, _opened_base(into) as base_fd:
            key = disks.key_of(into.fabric, into.vm, target.disk)
            await qmp.execute_all(monitor.open_disk(target, fd, key, base_fd))
        rate = rate_bytes // len(made)
        await qmp.execute(commands.write_back(files[-1].node, target.node, target.index, rate))
        jobs.append(commands.job(target.index))
    await wait(qmp, jobs, moved)


@contextlib.contextmanager
def _opened_base(into: Into) -> Iterator[int | None]:
    if into.base is None:
        yield None
        return
    with opened(image_store.path_of(into.base), os.O_NOFOLLOW) as descriptor:
        yield descriptor


# ---- verifying ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Found:
    """What is wrong with an entry, if anything. `is_opened`: its disks were looked into."""

    id: str
    read_bytes: int
    is_opened: bool
    troubles: tuple[str, ...] = ()


def verify(store: Store, id_: str, key: bytes | None) -> Found:
    """Read all of an entry: its sums, the structure of its disks, whether its parents are there.

    What is encrypted is looked into if there is a key. Raises InputError if there is no such entry.
    """
    entry = store.entry(id_)
    if not entry.is_complete:
        return Found(id_, 0, False, ("it is not complete",))
    if entry.trouble:
        return Found(id_, 0, False, (f"manifest.json: {entry.trouble}",))
    manifest, troubles = entry.manifest, list[str]()
    is_opened = not manifest.is_encrypted or key is not None
    try:
        backup.chain(id_, store.complete())
        if key is not None:
            check_key(manifest, key)
    except VnetError as error:
        troubles.append(str(error))
        is_opened = is_opened and not manifest.is_encrypted
    read = 0
    for disk in manifest.disks:
        read += disk.file_bytes
        trouble = _sums(store.file(manifest, disk), disk)
        if not trouble and is_opened:
            trouble = _structure(store.file(manifest, disk), key if manifest.is_encrypted else None)
        troubles += [f"{disk.file}: {trouble}"] if trouble else []
    return Found(id_, read, is_opened, tuple(troubles))


def _sums(path: Path, disk: SavedDisk) -> str:
    try:
        size = path.stat().st_size
        if size != disk.file_bytes:
            return f"it has {size} bytes, the manifest says {disk.file_bytes}"
        return "" if sha256_of(path) == disk.sha256 else "its SHA-256 is not that of the manifest"
    except OSError as error:
        return str(error.strerror)


def _structure(path: Path, key: bytes | None) -> str:
    """What `qemu-img check` finds wrong with a file."""
    image = Image(path, is_in_luks=key is not None)
    try:
        image_tool.run(qemu_img.check(image, key=key, accept=(0,), shared=True))
        return ""
    except HostError as error:
        return str(error)
