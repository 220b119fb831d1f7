"""The head of a qcow2 file, as far as vnet reads it itself. Guests' QEMUs write it: nothing in it is believed
but its size.

Source: QEMU 7.2, docs/interop/qcow2.txt ("Header").
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from vnet.base.errors import HostError

HEAD_BYTES = 104
_MAGIC = b"QFI\xfb"
_DATA_FILE = 1 << 2


@dataclass(frozen=True, slots=True)
class Head:
    """`size_bytes` is what a guest sees. `has_data_file`: contents lie in another file.

    `snapshots` is how many are kept in the file.
    """

    size_bytes: int
    is_encrypted: bool
    has_data_file: bool
    snapshots: int


def head(data: bytes, name: str) -> Head:
    """What the first bytes of a file say. Raises HostError if they are not of a qcow2 file."""
    if data[:4] != _MAGIC or len(data) < HEAD_BYTES:
        raise HostError(f"{name} is not in qcow2 format (any more): its VM may have written over its head")
    version, size_bytes, crypt, snapshots, features = struct.unpack(">4xI16xQI24xI8xQ", data[:80])
    return Head(size_bytes, crypt != 0, version >= 3 and bool(features & _DATA_FILE), snapshots)


def refuse_data_file(data: bytes, name: str) -> None:
    """Raises HostError for a file that sends its reader to another one."""
    if head(data, name).has_data_file:
        raise HostError(f"{name} says that its contents lie in another file; vnet makes no such disks")
