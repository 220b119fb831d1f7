"""A fabric's network namespace: made, removed, and worked in.

A namespace belongs to a thread, not to a process: `Namespace.run` does its work in a thread of its
own that enters the namespace for each call, so the rest of the daemon never leaves the host's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import ParamSpec, TypeVar

from pyroute2 import netns

from vnet.base.errors import HostError
from vnet.switch.live.netns import NETNS_DIR, inside

P = ParamSpec("P")
T = TypeVar("T")


def exists(name: str) -> bool:
    """Whether there is a namespace of that name."""
    return (NETNS_DIR / name).exists()


def create(name: str) -> None:
    """Make a namespace that `ip netns` knows."""
    try:
        netns.create(name)
    except OSError as error:
        raise HostError(f"cannot create the network namespace {name}: {error.strerror or error}") from error


def remove(name: str) -> None:
    """Remove a namespace; one that is not there is no error."""
    if not exists(name):
        return
    try:
        netns.remove(name)
    except OSError as error:
        raise HostError(f"cannot remove the network namespace {name}: {error.strerror or error}") from error


class Namespace:
    """Runs functions inside the namespace, one at a time, in a thread."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"netns-{name}")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call a function that blocks inside the namespace."""
        return await finished(self._thread, self._inside, partial(function, *args, **kwargs))

    def run_blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same for a caller that is a thread itself."""
        return self._thread.submit(self._inside, partial(function, *args, **kwargs)).result()

    def _inside(self, call: Callable[[], T]) -> T:
        with inside(self.name):
            return call()

    def close(self) -> None:
        """End the thread; the namespace stays."""
        self._thread.shutdown()


async def finished(
    thread: ThreadPoolExecutor | None, function: Callable[P, T], *args: P.args, **_: P.kwargs
) -> T:
    """Call a function in a thread; a cancelled caller still waits for its end.

    Half-done kernel work helps nobody, and what undoes it must not run beside it.
    """
    call = asyncio.get_running_loop().run_in_executor(thread, partial(function, *args))
    try:
        return await asyncio.shield(call)
    except asyncio.CancelledError:
        await asyncio.wait([call])
        raise
