"""Work inside another network namespace, on the calling thread."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnet.base.errors import HostError

_CLONE_NEWNET = 0x40000000
NETNS_DIR = Path("/var/run/netns")


def _setns(fd: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.setns(fd, _CLONE_NEWNET):
        raise HostError(f"enter the network namespace: {os.strerror(ctypes.get_errno())}")


@contextmanager
def inside(name: str | None) -> Iterator[None]:
    """Run the body with this thread in the named namespace; None stays where it is.

    setns(2) moves only the calling thread, so other threads of the daemon are not affected.
    """
    if name is None:
        yield
        return
    try:
        target = os.open(NETNS_DIR / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"no network namespace {name}: {error.strerror}") from error
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _setns(target)
        try:
            yield
        finally:
            _setns(home)
    finally:
        os.close(target)
        os.close(home)
