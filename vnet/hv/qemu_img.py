"""What qemu-img is to do, as values. `vnet.hv.live.image_tool` is the one place that runs it.

A VM's QEMU can write its disks' files, their headers too, and so can who has taken it over. So no file is
opened by what another says: an `Image` names all that is opened, and `backing: null` ends it. There is no way
to pass over a qcow2 file's external data file; a file with one is refused (`vnet.hv.qcow2`).

Source: QEMU 7.2, qemu-img(1); docs/interop/qemu-qmp-ref (BlockdevOptionsQcow2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError

SHORT_S = 600.0
"""For what looks at a disk's tables."""
LONG_S = 24 * 3600.0
"""For what reads all of a disk; whoever waits can break it off."""
FILE_MAX_BYTES = 16 << 40
"""Of what is made or grown unless less is said. Source: ext4 has no larger files."""


@dataclass(frozen=True, slots=True)
class Image:
    """A file that is there. `base` is the qcow2 file that it is the difference to, which is only read."""

    path: Path
    kind: str = ImageFormat.QCOW2.value
    base: Path | None = None
    is_written: bool = False
    is_encrypted: bool = False
    """Its contents are, with the call's key."""
    is_in_luks: bool = False
    """All of the file is, with the call's key."""

    def opened(self, name: str, base_name: str | None = None) -> str:
        """What names it on the command line: it and what is behind it, by descriptors, and nothing else."""
        node = _node(name, self.kind, self.is_written, is_in_luks=self.is_in_luks)
        if self.is_encrypted:
            node["encrypt"] = {"format": "luks", "key-secret": KEY}
        if base_name is not None:
            node["backing"] = _node(base_name, ImageFormat.QCOW2.value, is_written=False)
        return f"json:{json.dumps(node)}"


def _node(name: str, kind: str, is_written: bool, *, is_in_luks: bool = False) -> dict[str, object]:
    file: dict[str, object] = {"driver": "file", "filename": name, "read-only": not is_written}
    if is_in_luks:
        file = {"driver": "luks", "key-secret": KEY, "file": file}
    return {"driver": kind, "read-only": not is_written, "file": file, "backing": None}


@dataclass(frozen=True, slots=True)
class Target:
    """A file that is made, or if there is a `descriptor`, the one that it is of."""

    path: Path
    descriptor: int | None = None


@dataclass(frozen=True, slots=True)
class BaseOf:
    """The descriptor of an image's base, where qemu-img wants a plain name."""

    image: Image


Word = str | Image | Target | BaseOf


@dataclass(frozen=True, slots=True)
class Call:
    """One run of qemu-img. The files among its words are opened for it."""

    verb: str
    words: tuple[Word, ...]
    key: bytes | None = field(default=None, repr=False)
    new_key: bytes | None = field(default=None, repr=False)
    """That of what is made, if it is another."""
    limit_bytes: int = FILE_MAX_BYTES
    """How long a file may become."""
    timeout_s: float = SHORT_S
    accept: tuple[int, ...] = (0,)

    @property
    def text(self) -> str:
        """How it reads in an error."""
        return f"qemu-img {self.verb} {' '.join(_text(word) for word in self.words)}"

    @property
    def images(self) -> tuple[Image, ...]:
        """The files that are there."""
        return tuple(word for word in self.words if isinstance(word, Image))

    @property
    def targets(self) -> tuple[Target, ...]:
        """The files that are made."""
        return tuple(word for word in self.words if isinstance(word, Target))

    def within(self, limit_bytes: int) -> Call:
        """The same with less room."""
        return replace(self, limit_bytes=limit_bytes)


def _text(word: Word) -> str:
    if isinstance(word, BaseOf):
        return str(word.image.base)
    return word if isinstance(word, str) else str(word.path)


# ---- what can be done --------------------------------------------------------------------------

_OPTIONS = "lazy_refcounts=off,compat=1.1"
_LUKS = {"iter-time": "100", "hash-alg": "sha512"}
"""Keys are long: QEMU need not try for long. It measures how fast it is by 32,768 rounds of the hash and sees
nothing where they take less than a tick of the kernel's, as they mostly do with SHA-256: so it is the slower
hash."""
KEY, NEW_KEY = "key", "new-key"
"""What a call's keys are called in it."""
CHECKED = frozenset({ImageFormat.QCOW2, ImageFormat.VDI, ImageFormat.VMDK, ImageFormat.VHDX})
"""The formats that qemu-img can check."""


def encryption(key: str = KEY) -> str:
    """The options of a disk that is encrypted with this key."""
    return f"encrypt.format=luks,encrypt.key-secret={key}," + _luks("encrypt.")


def _luks(prefix: str = "") -> str:
    return ",".join(f"{prefix}{name}={value}" for name, value in _LUKS.items())


def check(
    image: Image, *, key: bytes | None = None, accept: tuple[int, ...] = (0, 3), shared: bool = False
) -> Call:
    """Says whether a disk is whole: exit code 2 means that it is not, 3 that it only wastes room.

    Without it a VMDK that is cut off is read as if zeros followed.
    """
    words = ("-q", *(("-U",) if shared else ()), image)
    return Call("check", words, key, timeout_s=LONG_S, accept=accept)


def info(image: Image) -> Call:
    """Tells what a file's header says, in JSON, without a look at other files."""
    return Call("info", ("-U", "--output=json", image))


def measure(image: Image, key: bytes | None = None) -> Call:
    """Tells in JSON how many bytes a disk's contents take, unpacked: `required`, by its tables."""
    return Call("measure", ("--output=json", "-O", "qcow2", image), key)


def create(path: Path, kind: str, options: str, size_bytes: int, key: bytes | None = None) -> Call:
    """Makes a disk with nothing in it."""
    return Call("create", ("-q", "-f", kind, "-o", options, Target(path), str(size_bytes)), key)


def create_luks(descriptor: int, key: bytes) -> Call:
    """Makes an empty LUKS volume in a file."""
    options = f"key-secret={KEY},{_luks()}"
    return Call("create", ("-q", "-f", "luks", "-o", options, Target(Path("luks"), descriptor), "0"), key)


def overlay(path: Path, base: Path, size_bytes: int) -> Call:
    """Makes a disk that is the difference to `base`, which is named in it for who looks, and not opened."""
    words = ("-q", "-u", "-f", "qcow2", "-o", _OPTIONS, "-F", "qcow2", "-b", str(base))
    return Call("create", (*words, Target(path), str(size_bytes)))


def resize(image: Image, size_bytes: int, *, is_full: bool = False, key: bytes | None = None) -> Call:
    """Makes a disk larger."""
    how = f"--preallocation={'falloc' if is_full else 'off'}"
    return Call("resize", ("-q", how, replace(image, is_written=True), str(size_bytes)), key)


def snapshot(image: Image, how: str, name: str, key: bytes | None = None) -> Call:
    """Keeps (`-c`), takes back (`-a`) or drops (`-d`) the contents under a name."""
    return Call("snapshot", ("-q", how, name, replace(image, is_written=True)), key)


def remove_bitmap(image: Image, name: str, key: bytes | None = None) -> Call:
    """Forgets which parts were written to."""
    return Call("bitmap", ("--remove", replace(image, is_written=True), name), key)


def convert(
    image: Image, path: Path, kind: str = "qcow2", options: Sequence[str] = (), *, shared: bool = False
) -> Call:
    """Makes a whole disk of one, without its snapshots; prints how far it is.

    `shared`: others may have it open for writing.
    """
    own = ("-o", _OPTIONS) if kind == "qcow2" and "-o" not in options else ()
    words = ("-p", *(("-U",) if shared else ()), "-O", kind, *own, *options, image, Target(path))
    return Call("convert", words, timeout_s=LONG_S)


def convert_encrypted(image: Image, path: Path, key: bytes, new_key: bytes) -> Call:
    """The same of one that is encrypted, to one with another key."""
    options = ("-o", f"{_OPTIONS},{encryption(NEW_KEY)}")
    return replace(convert(image, path, options=options, shared=True), key=key, new_key=new_key)


def copy_difference(image: Image, path: Path) -> Call:
    """Copies what a disk has other than its base, and nothing of the base, to a new `overlay` of it."""
    into = Image(path, base=image.base, is_written=True)
    words = ("-p", "-U", "-n", "-O", "qcow2", "-B", BaseOf(image), "-F", "qcow2", image, into)
    return Call("convert", words, timeout_s=LONG_S)


# ---- what it said ------------------------------------------------------------------------------

_PERCENT = re.compile(rb"\(\s*([0-9.]+)/100%\)")


def percent(output: bytes) -> float | None:
    """How far a conversion is, by what it printed last."""
    found = _PERCENT.findall(output)
    return float(found[-1]) if found else None


def named(errors: str, names: Mapping[str, Path]) -> str:
    """What it said, with the files' own names in place of the descriptors'."""
    for name in sorted(names, key=len, reverse=True):
        errors = errors.replace(name, str(names[name]))
    return errors


def explained(call: Call, code: int, errors: str) -> HostError:
    """What its end means; a full file system is the only thing that the image is not to blame for."""
    files: tuple[Image | Target, ...] = (*call.targets, *call.images)
    path = files[0].path if files else "a file"
    if "No space left on device" in errors:
        return HostError(f"no room for {path}: its file system is full. Make room and try again")
    said = errors.strip().splitlines()
    return HostError(f"`{call.text}` failed ({code}): {said[-1] if said else 'it said nothing'}")
