"""Keys as descriptors: QEMU and qemu-img read them there, never on their command lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def secret_fd(key: bytes) -> Iterator[int]:
    """A descriptor that the key can be read from; it lies in memory only."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key)
        yield descriptor
    finally:
        os.close(descriptor)
