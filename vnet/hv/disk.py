"""Disks of guests as values: what they are, what QEMU is told of them, what may become of their sizes.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (blockdev-add, add-fd), qemu-img(1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import HostError
from vnet.hv import qemu_img
from vnet.hv.qemu_img import Call, Image

SNAPSHOTS = 64
"""So many of a disk that is written anew between any two fit into its file."""
LONGEST_BYTES = 8 << 40
"""Of a file, unless the disk itself is longer. Source: ext4 has 16 TiB."""
SERIAL_LENGTH = 20
"""Characters of a serial number. Source: Virtual I/O Device 1.2, section 5.2.6.2 (VIRTIO_BLK_T_GET_ID)."""


class DiskFormat(Enum):
    """How a disk lies in its file."""

    QCOW2 = "qcow2"
    RAW = "raw"


@dataclass(frozen=True, slots=True, order=True)
class Disk:
    """A disk of one VM, whose contents outlive the VM's starts.

    `size_bytes` is what the guest sees, a multiple of 512. `is_full`: all of it is taken from the host's file
    system at once; otherwise as the guest writes. `encrypt`: its file is of no use without its key.
    `location` names a folder of the host, as its administrator has it.
    """

    name: str
    size_bytes: int
    format: str = DiskFormat.QCOW2.value
    is_full: bool = False
    is_root: bool = False
    """Made of the VM's image, as the difference to it; a size of 0 is then the image's."""
    encrypt: bool = False
    location: str = DEFAULT_LOCATION

    @property
    def file_bytes(self) -> int:
        """How long its file may become: what describes a qcow2 file takes less than a sixty-fourth.

        Each snapshot that is kept in it can take as much again.
        """
        once = self.size_bytes + self.size_bytes // 64 + (16 << 20)
        return (
            once if self.format == DiskFormat.RAW.value else max(once, min(SNAPSHOTS * once, LONGEST_BYTES))
        )

    @property
    def file(self) -> str:
        """The name of its file in the VM's folder of disks."""
        return f"{self.name}.{self.format}"


def refuse_encrypted(vm: str, names: Sequence[str]) -> None:
    """Raises HostError for disks that are encrypted: who copies a file does not have its key."""
    if names:
        raise HostError(
            f"{', '.join(names)} of {vm} is encrypted, and a copy would need its key: `vnet backup create"
            f" {vm} --encrypt --key-file FILE`, then `vnet backup restore ID --to VM`, whose disk has its own"
        )


_BASE_SETS = 64
"""The first of the sets of images that disks are made of, behind those of disks."""


def create(disk: Disk, path: Path, key: bytes | None) -> Call:
    """What makes a disk."""
    options = f"preallocation={'falloc' if disk.is_full else 'off'}"
    if disk.format == DiskFormat.QCOW2.value:
        options += ",lazy_refcounts=off"
    if disk.encrypt:
        options += f",{qemu_img.encryption()}"
    return qemu_img.create(path, disk.format, options, disk.size_bytes, key)


def grow(disk: Disk, path: Path, key: bytes | None) -> Call:
    """What makes a disk larger."""
    image = Image(path, disk.format, is_encrypted=disk.encrypt)
    return qemu_img.resize(image, disk.size_bytes, is_full=disk.is_full, key=key)


def refuse_to_shrink(disk: Disk, path: str, size_bytes: int) -> None:
    """Raises HostError for a disk that is larger than it is declared: what lies behind would be lost."""
    if 0 < disk.size_bytes < size_bytes:
        raise HostError(why_not_smaller(f"the disk {path}", size_bytes, disk.size_bytes, "vnet disk rm"))


def why_not_smaller(disk: str, has_bytes: int, declared_bytes: int, remove: str) -> str:
    """Why a disk is refused that is larger than it is declared; `remove` is the command for who means it."""
    had = _mib(has_bytes)
    return (
        f"{disk} has {had} and is declared with {_mib(declared_bytes)}: it is not made smaller, its end would"
        f" be lost. Declare {had}, or remove it: `{remove}`"
    )


def _mib(size_bytes: int) -> str:
    return f"{size_bytes >> 20}M"


@dataclass(frozen=True, slots=True)
class Plugged:
    """A disk as QEMU has it: the `index`-th of its guest, in a slot of its own behind the NICs'."""

    disk: Disk
    index: int
    slot: int

    @property
    def node(self) -> str:
        """What its contents are called in QEMU."""
        return f"disk{self.index}"

    @property
    def set_number(self) -> int:
        """Of the descriptor by which QEMU has its file."""
        return self.index + 1

    @property
    def base_set_number(self) -> int:
        """Of that by which QEMU has the image that the disk is made of."""
        return _BASE_SETS + self.index

    @property
    def key(self) -> str:
        """What the key of an encrypted one is called in QEMU."""
        return f"key{self.index}"

    def blockdev(self, *, is_based: bool = False) -> Mapping[str, object]:
        """For `-blockdev` and `blockdev-add`. What its file says of an image behind it is not believed.

        With `is_based` it is the difference to one, as root disks always are.
        """
        file = {"driver": "file", "filename": f"/dev/fdset/{self.set_number}", "aio": "threads"}
        locked = {"encrypt": {"format": "luks", "key-secret": self.key}} if self.disk.encrypt else {}
        own = {"driver": self.disk.format, "node-name": self.node, "discard": "unmap", "file": file}
        return {**own, **locked, **self._behind(is_based or self.disk.is_root)}

    def _behind(self, is_based: bool) -> Mapping[str, object]:
        if is_based:
            return {"backing": self._base()}
        return {"backing": None} if self.disk.format == DiskFormat.QCOW2.value else {}

    def _base(self) -> Mapping[str, object]:
        file = {"driver": "file", "filename": f"/dev/fdset/{self.base_set_number}", "aio": "threads"}
        return {
            "driver": DiskFormat.QCOW2.value,
            "node-name": f"{self.node}-base",
            "read-only": True,
            "file": {**file, "read-only": True},
            "backing": None,
        }

    def device(self) -> Mapping[str, str]:
        """For `-device` and `device_add` alike. Guests see the name as the disk's serial number.

        What cannot be written is kept while the guest stands still; of what cannot be read it is told.
        """
        return {
            "driver": "virtio-blk-pci",
            "id": f"blk{self.index}",
            "drive": self.node,
            "bus": f"slot{self.slot}",
            "serial": self.disk.name[:SERIAL_LENGTH],
            "werror": "stop",
            "rerror": "report",
        }


def plugged(disks: Sequence[Disk], nics: int) -> tuple[Plugged, ...]:
    """The disks in their slots."""
    return tuple(Plugged(disk, index, nics + index) for index, disk in enumerate(disks))
