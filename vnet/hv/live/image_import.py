"""Puts a file into the host's store of images: copied, looked at, converted, checked, and only then there.

A file is copied first, and what is looked at is the copy, so nobody can exchange it meanwhile. Programs that
understand its format run with no rights, a user of their own, and nothing but the copy in reach: an image
that makes them do what they should not gains nothing. What is broken off leaves nothing.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import shutil
import stat
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError, InputError, VnetError
from vnet.hv import image_file, qemu_img, stored
from vnet.hv.image_file import Ends
from vnet.hv.live import image_store as store
from vnet.hv.live import image_tool
from vnet.hv.live.host_files import flush, opened, pieces, sha256_of
from vnet.hv.live.workshop import workshop
from vnet.hv.qemu_img import Image
from vnet.hv.stored import Stored

SIZE_MAX_BYTES = 16 << 40
"""Of what a guest sees, as of other disks."""
_COPY = "source"
_TOLD_EVERY_S = 1.0

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be imported. `sha256` and `format` are what is declared of it, or ""; `how` says how a raw
    disk is said to be one."""

    path: Path
    sha256: str = ""
    format: str = ""
    cloud_init: bool = False
    how: str = image_file.IN_TOPOLOGY


async def put(wanted: Wanted, progress: Progress) -> Stored:
    """The image in the store, put there unless it is there already.

    Raises:
        InputError: there is no such file.
        HostError: it is no image, refused, damaged, not the one that is wanted, or there is no room.
    """
    async with workshop(paths.image_store()) as folder:
        sha256 = await _copied(wanted.path, folder / _COPY, progress)
        stored.refuse_pin(str(wanted.path), wanted.sha256, sha256)
        ends = ends_of(folder / _COPY)
        kind = image_file.recognise(ends, str(wanted.path), wanted.format, wanted.how)
        there = await _there(stored.identify(sha256, kind))
        if there is not None:
            return there
        kept = await _made(folder, kind, wanted.path, progress)
        kept_sha256 = sha256 if kept.name == _COPY else await asyncio.to_thread(sha256_of, kept)
        own = Own(str(wanted.path), wanted.cloud_init)
        return await asyncio.to_thread(_keep, kept, kind, (sha256, kept_sha256), own)


@dataclass(frozen=True, slots=True)
class Own:
    """What an image is made of, in words, and what is to be known of it (see `Stored`)."""

    origin: str
    cloud_init: bool = False
    is_base: bool = False


async def put_own(own: Own, make: Callable[[Path], Awaitable[None]]) -> Stored:
    """The image in the store that `make` writes, a qcow2 file with nothing behind it.

    The same contents are the same image. Raises: HostError if it cannot be made, or there is no room.
    """
    async with workshop(paths.image_store()) as folder:
        kept = folder / "disk.qcow2"
        await make(kept)
        sha256 = await asyncio.to_thread(sha256_of, kept)
        there = await _there(stored.identify(sha256, ImageFormat.QCOW2))
        if there is not None:
            return there
        return await asyncio.to_thread(_keep, kept, ImageFormat.QCOW2, (sha256, sha256), own)


async def _there(image_id: str) -> Stored | None:
    """The image, unless it is damaged: it is replaced then, its contents are known to be the same."""
    try:
        image = store.by_id(image_id)
        return image and await asyncio.to_thread(store.sound, image)
    except VnetError:
        return None


def ends_of(path: Path) -> Ends:
    """What is looked at of a file. Raises InputError if there is no such file."""
    try:
        with path.open("rb") as file:
            found = os.fstat(file.fileno())
            if not stat.S_ISREG(found.st_mode):
                raise InputError(f"{path} is no file")
            head = file.read(image_file.HEAD_BYTES)
            file.seek(max(0, found.st_size - image_file.TAIL_BYTES))
            return Ends(head, file.read(image_file.TAIL_BYTES), found.st_size)
    except OSError as error:
        raise InputError(f"cannot read the image {path}: {error.strerror}") from error


async def _copied(source: Path, target: Path, progress: Progress) -> str:
    """Copies a file, holes as holes. Returns its SHA-256."""
    ends_of(source)
    broken_off = threading.Event()
    work = asyncio.create_task(asyncio.to_thread(_copy, source, target, progress, broken_off))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        broken_off.set()
        await asyncio.wait([work])
        raise


def _copy(source: Path, target: Path, progress: Progress, broken_off: threading.Event) -> str:
    digest, at = hashlib.sha256(), 0
    told_s = time.monotonic()
    with opened(source) as reading, opened(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL) as writing:
        size_bytes = os.fstat(reading).st_size
        try:
            os.ftruncate(writing, size_bytes)
            for offset, data in pieces(reading, len(_ZEROS)):
                _update_with_zeros(digest, offset - at)
                digest.update(data)
                _write(writing, data, offset)
                at = offset + len(data)
                if broken_off.is_set():
                    return ""
                if time.monotonic() - told_s > _TOLD_EVERY_S:
                    told_s = time.monotonic()
                    progress(f"{source.name}: {100 * at // size_bytes} % copied")
        except OSError as error:
            raise _refused(error, source, target) from error
        _update_with_zeros(digest, size_bytes - at)
    return digest.hexdigest()


_ZEROS = bytes(1 << 20)


def _update_with_zeros(digest: hashlib._Hash, count: int) -> None:
    while count > 0:
        digest.update(_ZEROS[: min(count, len(_ZEROS))])
        count -= len(_ZEROS)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(descriptor, view, offset)
        view, offset = view[written:], offset + written


def _refused(error: OSError, source: Path, target: Path) -> HostError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(
            f"no room to import {source}: the file system of {target.parent.parent} is full. "
            "Make room (`vnet image rm --unused`, `vnet disk ls`) and try again"
        )
    return HostError(f"cannot copy {source} to {target.parent.parent}: {error.strerror}")


async def _made(folder: Path, kind: ImageFormat, source: Path, progress: Progress) -> Path:
    """The file to be kept: the copy itself, or a qcow2 file made of it."""
    copy, made = folder / _COPY, folder / "disk.qcow2"
    if kind is ImageFormat.ISO:
        return copy
    image = Image(copy, kind.value)
    if kind in qemu_img.CHECKED:
        await _check(image, source)
    if kind is ImageFormat.QCOW2:
        return copy
    progress(f"{source.name}: converting from {kind.value}")
    call = qemu_img.convert(image, made)
    await image_tool.execute(call, lambda done: progress(f"{source.name}: {done:.0f} % converted"))
    return made


async def _check(image: Image, source: Path) -> None:
    """Raises HostError for a disk that is damaged."""
    ended = await image_tool.execute(qemu_img.check(image, accept=(0, 1, 2, 3)))
    if ended.code not in (0, 3):
        told = _last_line(ended.errors).replace(str(image.path), str(source))
        raise HostError(f"{source} is damaged: {told or 'its tables contradict each other'}")


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else ""


def _size_bytes(kept: Path, kind: ImageFormat) -> int:
    """What a guest sees of it."""
    if kind is ImageFormat.ISO:
        return kept.stat().st_size
    size_bytes = image_tool.head(kept).size_bytes
    if not 0 < size_bytes <= SIZE_MAX_BYTES:
        raise HostError(
            f"a disk of {size_bytes} bytes is refused: up to {SIZE_MAX_BYTES >> 40} TiB are possible"
        )
    return size_bytes


def _keep(kept: Path, kind: ImageFormat, sums: tuple[str, str], own: Own) -> Stored:
    """Gives a file to root and puts it in its place as an image; from then on it is there.

    `sums` are those of what was imported and of what is kept.
    """
    size_bytes, result = _size_bytes(kept, kind), kept.with_name("result")
    result.mkdir(mode=0o700)
    kept.chmod(0o400)
    image = Stored(
        stored.identify(sums[0], kind),
        kind,
        *sums,
        size_bytes,
        store.stamp_of(kept),
        own.origin,
        int(time.time()),
        own.cloud_init,
        own.is_base,
    )
    kept.rename(result / image.file)
    flush(result / image.file)
    store.write_manifest(image, result)
    target = store.folder_of(image)
    shutil.rmtree(target, ignore_errors=True)  # one that was damaged
    result.rename(target)
    flush(target.parent)
    return image
