"""Makes a file of a VM that goes elsewhere: a qcow2 file of a disk, or an OVA of all of them.

What is made lies in a folder of its own until it has been fetched. A disk that is the difference to an image
becomes a whole one. A disk's header is written by the VM's QEMU: no file that it names is believed.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import secrets
import shutil
import tarfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from vnet.base import paths
from vnet.hv import ovf, qemu_img
from vnet.hv.disk import refuse_encrypted
from vnet.hv.live import base_note, disk, image_store, image_tool
from vnet.hv.live.host_files import sha256_of
from vnet.hv.ovf import ExportedDisk, ExportedVm
from vnet.hv.qemu_img import Image

Told = Callable[[str], None]
KEPT_S = 900.0
"""So long what was made is kept for who does not fetch it."""
_being_made: set[str] = set()
_USTAR_MAX_BYTES = 8 << 30
_STREAM = ("-o", "subformat=streamOptimized")


@dataclass(frozen=True, slots=True)
class Source:
    """A disk that is to be exported. `base` is the image that it is the difference to, if it is one."""

    name: str
    path: Path
    format: str
    size_bytes: int
    base: Path | None = None

    @property
    def image(self) -> Image:
        """How it is opened: with what vnet knows to lie behind it, and nothing else."""
        return Image(self.path, self.format, self.base)


@dataclass(frozen=True, slots=True)
class Made:
    """A file that waits to be fetched, by its token."""

    token: str
    path: Path
    size_bytes: int
    sha256: str


def source(fabric: str, vm: str, name: str) -> Source:
    """A disk of a VM. Raises HostError if it is not there (the VM was never started), or is damaged."""
    found = [each for each in disk.kept(fabric) if (each.vm, each.name) == (vm, name)]
    if not found:
        raise disk.not_there(vm, name)
    refuse_encrypted(vm, [each.name for each in found if each.is_encrypted])
    path = found[0].path
    image = base_note.image_of(path)
    behind = image_store.path_of(image) if image else None
    return Source(name, path, found[0].format, found[0].size_bytes, behind)


async def pack_disk(given: Source, vm: str, *, shared: bool, told: Told) -> Made:
    """A qcow2 file of a disk, with nothing behind it. `shared`: a QEMU that stands still has it open."""
    async with _folder() as folder:
        path = folder / f"{vm}-{given.name}.qcow2"
        await _convert(given, path, "qcow2", shared=shared, told=told)
        return await _made(folder, path)


async def flatten(given: Source, target: Path, told: Told) -> None:
    """A qcow2 file of a disk that nobody writes to, with nothing behind it; of the same it is the same."""
    await _convert(given, target, "qcow2", shared=True, told=told)


async def pack(vm: ExportedVm, given: Sequence[Source], *, shared: bool, told: Told) -> Made:
    """An OVA: descriptor, manifest, and each disk as a stream-optimised VMDK."""
    async with _folder() as folder:
        disks = []
        for each in given:
            path = folder / f"{vm.name}-{each.name}.vmdk"
            await _convert(each, path, "vmdk", _STREAM, shared=shared, told=told)
            disks.append(ExportedDisk(each.name, path.name, each.size_bytes, path.stat().st_size))
        whole = replace(vm, disks=tuple(disks))
        path = folder / f"{vm.name}.ova"
        told("packing")
        await asyncio.to_thread(_archive, whole, folder, path)
        return await _made(folder, path)


def _archive(vm: ExportedVm, folder: Path, path: Path) -> None:
    files = [folder / each.file for each in vm.disks]
    text = ovf.descriptor(vm).encode()
    sums = {f"{vm.name}.ovf": hashlib.sha256(text).hexdigest()}
    sums |= {each.name: sha256_of(each) for each in files}
    large = any(each.stat().st_size >= _USTAR_MAX_BYTES for each in files)
    form = tarfile.GNU_FORMAT if large else tarfile.USTAR_FORMAT  # as others write them too
    with tarfile.open(path, "w", format=form) as archive:
        _add(archive, f"{vm.name}.ovf", io.BytesIO(text), len(text))
        data = ovf.manifest(sums).encode()
        _add(archive, f"{vm.name}.mf", io.BytesIO(data), len(data))
        for each in files:
            with each.open("rb") as file:
                _add(archive, each.name, file, each.stat().st_size)
            each.unlink()


def _add(archive: tarfile.TarFile, name: str, file: IO[bytes], size_bytes: int) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size_bytes, 0o644, int(time.time())
    archive.addfile(entry, file)


# ---- what waits to be fetched ----------------------------------------------------------------


def find(token: str) -> Path | None:
    """What was made under a token, if it is still there."""
    if not token.isalnum():
        return None
    return next(iter((paths.exports_dir() / token).glob("*")), None)


def forget(token: str) -> None:
    """It was fetched, or is not wanted any more."""
    if token.isalnum():
        shutil.rmtree(paths.exports_dir() / token, ignore_errors=True)


def sweep() -> None:
    """Removes what a daemon has made and is no more: nobody asks for it again."""
    shutil.rmtree(paths.exports_dir(), ignore_errors=True)


def _forget_old() -> None:
    """What nobody has fetched."""
    for folder in paths.exports_dir().glob("*/"):
        if folder.name not in _being_made and time.time() - folder.stat().st_mtime > KEPT_S:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.asynccontextmanager
async def _folder() -> AsyncIterator[Path]:
    """Private; gone when the work fails or is broken off."""
    _forget_old()
    folder = paths.exports_dir() / secrets.token_hex(8)
    folder.mkdir(mode=0o700, parents=True)
    _being_made.add(folder.name)
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        _being_made.discard(folder.name)


async def _made(folder: Path, path: Path) -> Made:
    path.chmod(0o600)
    digest = await asyncio.to_thread(sha256_of, path)
    return Made(folder.name, path, path.stat().st_size, digest)


# ---- converting ------------------------------------------------------------------------------


async def _convert(
    given: Source, target: Path, kind: str, options: Sequence[str] = (), *, shared: bool, told: Told
) -> None:
    """Broken off, it ends. Without `shared` a VM that is started meanwhile is refused the disk."""
    call = qemu_img.convert(given.image, target, kind, options, shared=shared)
    await image_tool.execute(call, lambda done: told(f"disk {given.name}: {done:.0f} %"))
