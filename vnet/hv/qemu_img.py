"""The commands of qemu-img that images and disks need. It never finds out a format or a backing file itself.

A qcow2 file of a VM can be written by the VM's QEMU, its header too. So whoever opens one with more rights
than that QEMU says what lies behind it, and takes nothing from the header: `alone` and `above`.

Source: QEMU 7.2, qemu-img(1); docs/interop/qemu-qmp-ref (BlockdevOptionsQcow2).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError

Options = Mapping[str, object]


def convert(source: Path, source_format: str, target: Path) -> tuple[str, ...]:
    """Makes qcow2 of a disk; prints how far it is."""
    words = ("qemu-img", "convert", "-p", "-f", source_format, "-O", "qcow2")
    return (*words, "-o", "lazy_refcounts=off,compat=1.1", str(source), str(target))


CHECKED = frozenset({ImageFormat.QCOW2, ImageFormat.VDI, ImageFormat.VMDK, ImageFormat.VHDX})
"""The formats that qemu-img can check."""


def check(path: Path, kind: str = "qcow2") -> tuple[str, ...]:
    """Says whether a disk is whole: exit code 2 means that it is not, 3 that it only wastes room.

    Without it a VMDK that is cut off is read as if zeros followed.
    """
    return ("qemu-img", "check", "-q", "-f", kind, str(path))


def info(path: Path, kind: str) -> tuple[str, ...]:
    """Tells what a file's header says, in JSON, without a look at other files."""
    return ("qemu-img", "info", "-U", "--output=json", "-f", kind, str(path))


def overlay(path: Path, base: Path, size_bytes: int) -> tuple[str, ...]:
    """Makes a disk that is the difference to `base`, of its size or larger."""
    words = ("qemu-img", "create", "-q", "-f", "qcow2", "-o", "lazy_refcounts=off", "-F", "qcow2")
    return (*words, "-b", str(base), str(path), str(size_bytes))


def resize(path: Path, base: Path, size_bytes: int) -> tuple[str, ...]:
    """Makes a disk larger that is the difference to `base`."""
    return ("qemu-img", "resize", "-q", opened(above(path, base)), str(size_bytes))


def alone(path: Path, kind: str = "qcow2") -> Options:
    """A disk with nothing behind it, whatever its header says."""
    file = {"driver": "file", "filename": str(path)}
    return {"driver": kind, "file": file} | ({"backing": None} if kind == "qcow2" else {})


def above(path: Path, base: Path) -> Options:
    """A disk that is the difference to `base`, whatever its header says."""
    return {**alone(path), "backing": {**alone(base), "read-only": True}}


def opened(options: Options) -> str:
    """The name of an image for qemu-img that is opened just so."""
    return f"json:{json.dumps(options)}"


def copy(source: Options, kind: str, target: Path, base: Path | None = None) -> tuple[str, ...]:
    """Makes a copy of a disk, without its snapshots and without what was never written; prints how far it is.

    With a `base` the copy, as the disk, is the difference to it.
    """
    behind = ("-B", str(base), "-F", "qcow2") if base else ()
    options = ("-o", "lazy_refcounts=off,compat=1.1") if kind == "qcow2" else ()
    return ("qemu-img", "convert", "-p", "-U", "-O", kind, *options, *behind, opened(source), str(target))


_PERCENT = re.compile(rb"\(\s*([0-9.]+)/100%\)")


def percent(output: bytes) -> float | None:
    """How far a conversion is, by what it printed last."""
    found = _PERCENT.findall(output)
    return float(found[-1]) if found else None


def explained(program: str, code: int, errors: str, *, path: Path) -> HostError:
    """What a program's end means; a full file system is the only thing that the image is not to blame for."""
    said = errors.strip().splitlines()
    if "No space left on device" in errors:
        return HostError(f"no room for the image: the file system of {path} is full. Make room and try again")
    return HostError(f"`{program}` failed ({code}): {said[-1] if said else 'it said nothing'}")
