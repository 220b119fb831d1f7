"""The head of a qcow2 file, as far as vnet reads it itself. Of a VM's disk its QEMU writes it: nothing in it
is believed then but its size.

Source: QEMU 7.2, docs/interop/qcow2.txt ("Header").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vnet.base.errors import HostError

HEAD_BYTES = 104
MAGIC = b"QFI\xfb"
_CORRUPT, _DATA_FILE = 1 << 1, 1 << 2


@dataclass(frozen=True, slots=True)
class Head:
    """`size_bytes` is what a guest sees. `has_data_file`: contents lie in another file.

    `has_backing_file`: it is only the difference to another image. `snapshots` is how many are kept in it.
    """

    size_bytes: int
    is_encrypted: bool
    has_data_file: bool
    has_backing_file: bool
    is_corrupt: bool
    snapshots: int


def head(data: bytes, name: str) -> Head:
    """What the first bytes of a file say. Raises HostError if they are not of a qcow2 file."""
    if data[:4] != MAGIC or len(data) < HEAD_BYTES:
        raise HostError(f"{name} is not in qcow2 format (any more): its VM may have written over its head")
    fields = struct.unpack(">4xIQ8xQI24xI8xQ", data[:80])
    version, backing, size_bytes, crypt, snapshots, features = fields
    features = features if version >= 3 else 0
    return Head(
        size_bytes,
        is_encrypted=crypt != 0,
        has_data_file=bool(features & _DATA_FILE),
        has_backing_file=backing != 0,
        is_corrupt=bool(features & _CORRUPT),
        snapshots=snapshots,
    )


def refuse_data_file(data: bytes, name: str) -> None:
    """Raises HostError for a file that sends its reader to another one."""
    if head(data, name).has_data_file:
        raise HostError(f"{name} says that its contents lie in another file; vnet makes no such disks")
