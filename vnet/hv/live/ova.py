"""Reads an OVA, or an OVF descriptor with its files: checked by its manifest, its disks made qcow2 files.

A disk is copied out of the archive first, and hashed on the way; what is converted is the copy. As root the
converting is done by a user without rights, who reaches the folder of this import and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError, InputError
from vnet.hv import image_file, package, qemu_img
from vnet.hv.live import image_tool
from vnet.hv.live.host_files import parts_of
from vnet.hv.live.image_import import ends_of
from vnet.hv.package import Member, Sum
from vnet.hv.qemu_img import Image

Told = Callable[[str], None]
"""Is told how far it is."""
_BLOCK = 1 << 20
_SAID_RAW = f"{image_file.AT_IMPORT} of `vnet import disk`"
_COPY, _MADE = "source", "made.qcow2"
_ROOM_LEFT_BYTES = 64 << 20
"""What an import leaves free of its file system: a small file may be a large disk."""


@dataclass(frozen=True, slots=True)
class Package:
    """An OVA that is open. `sums` is what its manifest says; None if it has none."""

    path: str
    descriptor: Member
    members: tuple[Member, ...]
    sums: Mapping[str, Sum] | None = field(default=None)

    def text(self) -> str:
        """The descriptor, which its manifest agrees with."""
        data = _read(self.descriptor)
        if self.sums is not None:
            package.refuse_unnamed(self.sums, [self.descriptor.name], self.path)
            told = self.sums[self.descriptor.name]
            _refuse_other(hashlib.new(told.function, data).hexdigest(), told, self.descriptor.name, self.path)
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: its descriptor is not UTF-8 text: {error}") from error


def read(path: Path) -> Package:
    """What a package consists of. Raises InputError for what is none, or is not to be trusted."""
    try:
        members = _beside(path) if path.suffix.lower() == ".ovf" else tuple(_in_archive(path))
    except tarfile.TarError as error:
        raise InputError(f"{path} is no OVA, or is cut off: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    descriptor = package.descriptor_of(members, str(path))
    manifest = package.manifest_of(members, descriptor, str(path))
    told = None
    if manifest is not None:
        told = package.sums(_read(manifest).decode("utf-8", "replace"), str(path))
    return Package(str(path), descriptor, members, told)


def _in_archive(path: Path) -> Iterator[Member]:
    size_bytes, names = path.stat().st_size, set[str]()
    with tarfile.open(path, "r:") as archive:
        for count, entry in enumerate(archive):
            package.refuse_name(entry.name, str(path))
            if not entry.isreg() or entry.issparse() or entry.name in names:
                raise InputError(f"{path} is refused: {entry.name!r} is there twice, or is no plain file")
            if count >= package.MEMBERS_MAX:
                raise InputError(f"{path} is refused: it has more than {package.MEMBERS_MAX} files")
            if entry.offset_data + entry.size > size_bytes:
                raise InputError(f"{path} is cut off: {entry.name!r} is not whole")
            names.add(entry.name)
            yield Member(entry.name, str(path), entry.offset_data, entry.size)


def _beside(path: Path) -> tuple[Member, ...]:
    """The descriptor, and the files of its folder which it can mean; never through a link."""
    found = sorted(each for each in path.parent.iterdir() if each.is_file() and not each.is_symlink())
    names = [each for each in found if each.suffix.lower() != ".ovf" or each.name == path.name]
    return tuple(Member(each.name, str(each), 0, each.stat().st_size) for each in names)


def _read(member: Member) -> bytes:
    with open(member.path, "rb") as file:
        file.seek(member.offset)
        return file.read(member.size_bytes)


def _refuse_other(found: str, told: Sum, name: str, path: str) -> None:
    if found != told.digest:
        raise InputError(
            f"{path} is damaged or was changed: {name} has the {told.function.upper()} {found}, "
            f"its manifest says {told.digest}"
        )


# ---- disks -----------------------------------------------------------------------------------


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """A folder that becomes `target` if all goes well; otherwise nothing of it stays.

    Raises: InputError if something is there that it would replace.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise InputError(f"{target} is there already: name a folder that is not, or an empty one")
    part = target.with_name(f".vnet-import-{os.urandom(6).hex()}")
    try:
        part.mkdir(mode=0o755)
    except OSError as error:
        raise InputError(f"cannot make a folder in {target.parent}: {error.strerror}") from error
    try:
        yield part
        part.rename(target)  # an empty folder is replaced
    except OSError as error:
        raise HostError(f"cannot write {target}: {error.strerror or error}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def unpack(opened: Package, name: str, size_bytes: int, target: Path, told: Told) -> None:
    """Makes a qcow2 file of a disk of the package.

    Args:
        size_bytes: what the descriptor says that a guest sees.
        target: in the folder of the import.

    Raises:
        InputError: it is not there, is not what its manifest or the descriptor say, or refers to other files.
        HostError: it cannot be converted, or there is no room.
    """
    member = package.member(opened.members, name, opened.path)
    if opened.sums is not None:
        package.refuse_unnamed(opened.sums, [name], opened.path)
    _make(opened, member, size_bytes, target, told)


def bring(path: Path, target: Path, form: str, told: Told) -> int:
    """Makes a qcow2 file of a disk in a file of any format that is read. Returns what a guest sees of it.

    Args:
        form: what the file is said to be, or "". A raw disk without partitions has to be said to be one.

    Raises: as `unpack`.
    """
    try:
        member = Member(path.name, str(path), 0, path.stat().st_size)
        return _make(Package("", member, (member,)), member, None, target, told, form)
    except OSError as error:
        raise HostError(f"cannot make a disk of {path}: {error.strerror or error}") from error


def _make(
    opened: Package, member: Member, size_bytes: int | None, target: Path, told: Told, form: str = ""
) -> int:
    folder = parts_of(target)
    shutil.rmtree(folder, ignore_errors=True)  # of one that was killed
    folder.mkdir(mode=0o700)
    try:
        _copy(opened, member, folder / _COPY, told)
        label = f"{opened.path}: {member.name}" if opened.path else member.path
        kind = image_file.recognise(ends_of(folder / _COPY), label, form, _SAID_RAW)
        made_bytes = _convert(kind, size_bytes, folder, member.name, told)
        (folder / _MADE).chmod(0o600)
        (folder / _MADE).rename(target)
        return made_bytes
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy(opened: Package, member: Member, target: Path, told: Told) -> None:
    expected = (opened.sums or {}).get(member.name)
    digest = hashlib.new(expected.function if expected else "sha256")
    with open(member.path, "rb") as source, target.open("xb") as copy:
        source.seek(member.offset)
        left = member.size_bytes
        while left:
            data = source.read(min(left, _BLOCK))
            if not data:
                raise InputError(f"{opened.path} became shorter while it was read")
            digest.update(data)
            copy.write(data)
            left -= len(data)
            told(f"{member.name}, {100 - 100 * left // member.size_bytes} % read")
    if expected:
        _refuse_other(digest.hexdigest(), expected, member.name, opened.path)


def _convert(kind: ImageFormat, wanted_bytes: int | None, folder: Path, name: str, told: Told) -> int:
    """Never larger than the disk that it is said to be, nor than there is room for. Returns its size."""
    if kind is ImageFormat.ISO:
        raise InputError(f"{name} is a medium for a drive and no disk")
    room = shutil.disk_usage(folder).free - _ROOM_LEFT_BYTES
    if room <= 0:
        raise HostError(f"no room to import {name}: the file system of {folder.parent} is full")
    source = Image(folder / _COPY, kind.value)
    size_bytes = _size_bytes(source)
    if wanted_bytes not in (None, size_bytes):
        raise InputError(f"{name} is a disk of {size_bytes} bytes, its descriptor says {wanted_bytes}")
    limit_bytes = min(size_bytes + size_bytes // 64 + (16 << 20), room)
    if kind in qemu_img.CHECKED:  # what is missing of a disk would be read as zeros
        image_tool.run(qemu_img.check(source))
    call = qemu_img.convert(source, folder / _MADE).within(limit_bytes)
    image_tool.run(call, lambda done: told(f"{name}, {done:.0f} % converted"))
    return size_bytes


def _size_bytes(source: Image) -> int:
    return int(json.loads(image_tool.run(qemu_img.info(source)).output)["virtual-size"])
