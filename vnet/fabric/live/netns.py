"""A fabric's network namespace, and a thread that lives in it.

A namespace belongs to a thread, not to a process: `Namespace.run` hands work to the one thread that
has entered it, so the rest of the daemon never leaves the host's namespace.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import ParamSpec, TypeVar

from pyroute2 import netns

from vnet.base.errors import HostError

P = ParamSpec("P")
T = TypeVar("T")

DIRECTORY = Path("/run/netns")
_CLONE_NEWNET = 0x40000000


def exists(name: str) -> bool:
    """Whether there is a namespace of that name."""
    return (DIRECTORY / name).exists()


def create(name: str) -> None:
    """Make a namespace that `ip netns` knows."""
    try:
        netns.create(name)
    except OSError as error:
        raise HostError(f"cannot create the network namespace {name}: {error}") from error


def remove(name: str) -> None:
    """Remove a namespace; one that is not there is no error."""
    if not exists(name):
        return
    try:
        netns.remove(name)
    except OSError as error:
        raise HostError(f"cannot remove the network namespace {name}: {error}") from error


class Namespace:
    """Runs functions in a thread inside the namespace, one at a time."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"netns-{name}")
        try:
            self._thread.submit(enter, name).result()
        except BaseException:
            self._thread.shutdown()
            raise

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks inside the namespace.

        A cancelled caller still waits for the call to end: half-done kernel work helps nobody.
        """
        loop = asyncio.get_running_loop()
        call = loop.run_in_executor(self._thread, partial(function, *args, **kwargs))
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            await asyncio.wait([call])
            raise

    def run_blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a caller that is a thread itself."""
        return self._thread.submit(partial(function, *args, **kwargs)).result()

    def close(self) -> None:
        """End the thread; the namespace stays."""
        self._thread.shutdown()


def enter(name: str) -> None:
    """Move the calling thread into the namespace, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        fd = os.open(DIRECTORY / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise HostError(f"cannot enter the network namespace {name}: {error.strerror}") from error
    try:
        if libc.setns(fd, _CLONE_NEWNET) != 0:
            reason = os.strerror(ctypes.get_errno())
            raise HostError(f"cannot enter the network namespace {name}: {reason} (root is needed)")
    finally:
        os.close(fd)
