"""What a file with an image is, told by its own bytes, and whether vnet may have anything to do with it.

Formats of disks can name other files: a backing file, a data file, extents. Whoever reads such an image as
root reads any file of the host, so the first bytes are looked at here before a program is let at the rest.

Source: QEMU 7.2, docs/interop/qcow2.txt; block/vmdk.c (VMDK4Header, vmdk_open_vmdk4, vmdk_parent_open);
block/vdi.c; block/vpc.c; MS-VHDX 2.2.1; ECMA-119, 8.1.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vnet.base.boot import ImageFormat
from vnet.base.errors import HostError
from vnet.hv import qcow2

HEAD_BYTES = 64 << 10
"""So much of the begin of a file is looked at."""
TAIL_BYTES = 512
"""And so much of its end."""

IN_TOPOLOGY = "`format: raw`"
"""How an image is said to be a raw disk where it is declared."""
AT_IMPORT = "`--format raw`"
"""And where it is imported."""

_VMDK_DESCRIPTOR = slice(0x200, 0x200 + 20 * 512)
"""Where QEMU looks for a parent's name, whatever the header says."""

_NOT_IMAGES = {
    b"\x1f\x8b": "compressed: unpack it first (gunzip)",
    b"\xfd7zXZ\0": "compressed: unpack it first (unxz)",
    b"\x28\xb5\x2f\xfd": "compressed: unpack it first (unzstd)",
    b"BZh": "compressed: unpack it first (bunzip2)",
    b"PK\x03\x04": "a zip archive: unpack it first",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"COWD": "an ESX disk in pieces: export it as one file (streamOptimized)",
    b"# Disk DescriptorFile": "the description of a VMDK whose contents lie in other files: "
    "export it as one file (streamOptimized)",
    b"LUKS\xba\xbe": "encrypted (LUKS)",
    b"QED\0": "in the format QED: convert it to qcow2 first",
    b"WithoutFreeSpace": "in the format of Parallels: convert it to qcow2 first",
    b"WithouFreSpacExt": "in the format of Parallels: convert it to qcow2 first",
    b"<": "a text such as a web page: the download may have failed",
    b"\x7fELF": "a program",
}


@dataclass(frozen=True, slots=True)
class Ends:
    """The first `HEAD_BYTES` and the last `TAIL_BYTES` of a file, as far as it has them."""

    head: bytes
    tail: bytes
    size_bytes: int


def recognise(ends: Ends, name: str, declared: str = "", how: str = IN_TOPOLOGY) -> ImageFormat:
    """The format of an image.

    Args:
        ends: of its file.
        name: what messages call it.
        declared: what somebody says that it is, or "". A raw disk may contain anything, and is one that bears
            no sign of a disk only if it is said to be.
        how: that is said, in words.

    Raises:
        HostError: it is none, not what it is said to be, or refers to other files.
    """
    if not ends.size_bytes:
        raise HostError(f"{name} is empty")
    found = _by_signs(ends)
    if found is None and declared == ImageFormat.RAW.value:
        return ImageFormat.RAW
    if found is None:
        raise HostError(f"{name} is no image: {_why_not(ends, how)}")
    if declared and found.value != declared:
        raise HostError(f"{name} is said to be {declared}, and is {found.value}")
    _refuse(ends, found, name)
    return found


def _by_signs(ends: Ends) -> ImageFormat | None:
    return next((kind for kind, is_one in _SIGNS.items() if is_one(ends)), None)


def _is_qcow2(ends: Ends) -> bool:
    return ends.head.startswith(qcow2.MAGIC) and int.from_bytes(ends.head[4:8], "big") >= 2


def _is_vpc(ends: Ends) -> bool:
    return ends.head.startswith(b"conectix") or ends.tail.startswith(b"conectix")


def _is_raw(ends: Ends) -> bool:
    """A partition table, or a file system without one."""
    head = ends.head
    return head[510:512] == b"\x55\xaa" or head[512:520] == b"EFI PART" or head[1080:1082] == b"\x53\xef"


_SIGNS: dict[ImageFormat, Callable[[Ends], bool]] = {
    ImageFormat.QCOW2: _is_qcow2,
    ImageFormat.VMDK: lambda ends: ends.head.startswith(b"KDMV"),
    ImageFormat.VHDX: lambda ends: ends.head.startswith(b"vhdxfile"),
    ImageFormat.VDI: lambda ends: ends.head[0x40:0x44] == b"\x7f\x10\xda\xbe",
    ImageFormat.VPC: _is_vpc,
    ImageFormat.ISO: lambda ends: ends.head[32769:32774] == b"CD001",
    ImageFormat.RAW: _is_raw,
}
"""In this order: a medium that also boots from a stick has the signs of a disk too."""


def _why_not(ends: Ends, how: str) -> str:
    if ends.head[257:262] == b"ustar":
        return "it is a tar archive; if it is an OVA, unpack it and take its disk"
    for magic, why in _NOT_IMAGES.items():
        if ends.head.startswith(magic):
            return f"it is {why}"
    return f"it has neither a format that vnet knows nor partitions; a raw disk without any needs {how}"


def _refuse(ends: Ends, kind: ImageFormat, name: str) -> None:
    """Raises HostError for all that vnet does not let near a program that would follow it."""
    faults = _FAULTS.get(kind)
    found = list(faults(ends)) if faults else []
    if found:
        raise HostError(f"{name} is refused: {'; '.join(found)}")


def _faults_of_qcow2(ends: Ends) -> Iterator[str]:
    if len(ends.head) < qcow2.HEAD_BYTES:
        yield "it is cut off in its header"
        return
    head = qcow2.head(ends.head, "it")
    if head.has_backing_file:
        yield "it has a backing file, another image that it is only the difference to; make it one: " + _ALONE
    if head.has_data_file:
        yield f"its contents lie in another file; make it one: {_ALONE}"
    if head.is_corrupt:
        yield "it is marked as corrupt; try `qemu-img check -r all`"
    if head.is_encrypted:
        yield "it is encrypted"


_ALONE = "`qemu-img convert -O qcow2 OLD NEW`"


def _faults_of_vmdk(ends: Ends) -> Iterator[str]:
    head = ends.head
    capacity = struct.unpack_from("<Q", head, 12)[0] if len(head) >= 20 else 0
    description = head[_VMDK_DESCRIPTOR]
    if not capacity:
        yield "its contents lie in other files; export it as one file (streamOptimized)"
    if b"parentFileNameHint" in description:
        yield "it is only the difference to another disk; export it as one file (streamOptimized)"


def _faults_of_vpc(ends: Ends) -> Iterator[str]:
    """Every one ends with the footer that some begin with too."""
    if not ends.tail.startswith(b"conectix"):
        yield "it is cut off"


def _faults_of_vdi(ends: Ends) -> Iterator[str]:
    """Its blocks lie one after the other behind the header, which says how many there are."""
    if len(ends.head) < 0x188:
        yield "it is cut off in its header"
        return
    data, block = (struct.unpack_from("<I", ends.head, at)[0] for at in (0x158, 0x178))
    allocated = struct.unpack_from("<I", ends.head, 0x184)[0]
    if ends.size_bytes < data + allocated * block:
        yield "it is cut off"


_FAULTS: dict[ImageFormat, Callable[[Ends], Iterator[str]]] = {
    ImageFormat.QCOW2: _faults_of_qcow2,
    ImageFormat.VMDK: _faults_of_vmdk,
    ImageFormat.VDI: _faults_of_vdi,
    ImageFormat.VPC: _faults_of_vpc,
}
