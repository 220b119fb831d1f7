"""Folders as tar archives: packed for a guest, unpacked from one that may want to write elsewhere.

`tarfile` of Python 3.11 unpacks whatever an archive says. So this unpacks by itself, and only what cannot
leave the folder: regular files, folders, and links that stay inside. Symbolic links are made last, when
nothing is written any more that could go through one.
"""

from __future__ import annotations

import shutil
import tarfile
from collections.abc import Iterator, Mapping
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Protocol

from vnet.base.errors import HostError, InputError, PeerError

_BLOCK_BYTES = 1 << 16


class Sink(Protocol):
    """Where an archive goes."""

    def write(self, data: bytes, /) -> object:
        """Take the next bytes."""
        ...


def pack(folder: Path, sink: Sink) -> None:
    """Write a folder's contents as an archive of root's.

    Raises: InputError for what no archive should carry, such as a device.
    """
    with tarfile.open(fileobj=sink, mode="w|", format=tarfile.GNU_FORMAT) as archive:  # type: ignore[call-overload]
        archive.add(folder, ".", filter=_of_root)


def _of_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    if not (member.isreg() or member.isdir() or member.islnk() or member.issym()):
        raise InputError(f"{member.name} is neither a file, a folder nor a link: it cannot be copied")
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member


def unpack(archive: BinaryIO, size_bytes: int, folder: Path) -> tuple[str, ...]:
    """Fill a new, empty folder. Returns the symbolic links left out because they lead out of it.

    Raises: PeerError for an archive that names what does not lie in the folder, or becomes more than it is.
    """
    try:
        with tarfile.open(fileobj=archive, mode="r:") as members:
            return _unpack(members, size_bytes, folder)
    except tarfile.TarError as error:
        raise PeerError(f"the guest sent no archive: {error}") from error
    except OSError as error:
        raise HostError(f"cannot unpack {str(error.filename)!r}: {error.strerror}") from error


def _unpack(members: tarfile.TarFile, size_bytes: int, folder: Path) -> tuple[str, ...]:
    modes: dict[Path, int] = {}
    links: dict[tuple[str, ...], str] = {}
    for member in _bounded(members, size_bytes):
        parts = _parts(member.name)
        if member.issym():
            links[parts] = member.linkname
        else:
            _make(members, member, folder, parts)
            modes[folder.joinpath(*parts)] = member.mode & 0o777
    left_out = {parts for parts, target in links.items() if _leads_out(parts, target)}
    for parts in links.keys() - left_out:
        _link(folder, parts, links)
    for path in reversed(modes):  # a folder's last: it may be one that nothing can be written to
        path.chmod(modes[path])
    return tuple("/".join(parts) for parts in sorted(left_out))


def _bounded(members: tarfile.TarFile, size_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Holes, which cost the guest nothing, could fill the host's disk."""
    for member in members:
        size_bytes -= member.size if member.size >= 0 else size_bytes + 1
        if size_bytes < 0:
            raise PeerError(f"the guest's archive says that {member.name!r} is larger than the archive")
        yield member


def _parts(name: str) -> tuple[str, ...]:
    """The name as steps from the folder, none of which leads up."""
    parts = tuple(part for part in name.split("/") if part not in ("", "."))
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise PeerError(
            f"the guest's archive names {name!r}, which does not lie in the folder: nothing is copied"
        )
    return parts


def _make(members: tarfile.TarFile, member: tarfile.TarInfo, folder: Path, parts: tuple[str, ...]) -> None:
    if member.isdir():
        folder.joinpath(*parts).mkdir(parents=True, exist_ok=True)
        return
    if not parts or not (member.isreg() or member.islnk()):
        raise PeerError(f"{member.name!r} is neither a file, a folder nor a link: nothing is copied")
    path = _parent(folder, parts) / parts[-1]
    if member.islnk():
        path.hardlink_to(folder.joinpath(*_parts(member.linkname)))
        return
    content = members.extractfile(member)
    assert content is not None
    with path.open("xb") as file:
        shutil.copyfileobj(content, file, _BLOCK_BYTES)


def _link(folder: Path, parts: tuple[str, ...], links: Mapping[tuple[str, ...], str]) -> None:
    if any(parts[:end] in links for end in range(len(parts))):
        raise PeerError(f"the guest's archive has a link below a link: {'/'.join(parts)!r}")
    _parent(folder, parts).joinpath(parts[-1]).symlink_to(links[parts])


def _parent(folder: Path, parts: tuple[str, ...]) -> Path:
    parent = folder.joinpath(*parts[:-1])
    parent.mkdir(parents=True, exist_ok=True)
    return parent


def _leads_out(parts: tuple[str, ...], target: str) -> bool:
    """Whether a link may lead out. It may step up at its begin only: a name can be a link, and behind one a
    step up leads anywhere."""
    steps = [part for part in target.split("/") if part not in ("", ".")]
    ups = sum(1 for _ in takewhile(lambda part: part == "..", steps))
    plain = bool(parts and target) and not target.startswith("/") and "\0" not in target
    return not plain or ups >= len(parts) or ".." in steps[ups:]
