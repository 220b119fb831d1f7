"""Which queueing disciplines this kernel has."""

from __future__ import annotations

import ctypes
import os
import threading

from vnet.base.errors import HostError

_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1
_OPTIONS = {
    "tbf": {"rate": 1_000_000, "burst": 1 << 14, "limit": 1 << 16},
    "netem": {"delay": 1000},
}


def has(kind: str) -> bool:
    """Whether the kernel has it, or the module that it then loads.

    It is given to the loopback of a network namespace that ends with the thread that asks.
    """
    found: list[bool | HostError] = []
    asking = threading.Thread(target=_ask, args=(kind, found))
    asking.start()
    asking.join()
    if isinstance(found[0], HostError):
        raise found[0]
    return found[0]


def _ask(kind: str, found: list[bool | HostError]) -> None:
    from pyroute2 import IPRoute, NetlinkError

    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET):
        reason = os.strerror(ctypes.get_errno())
        found.append(HostError(f"cannot ask the kernel for sch_{kind} in a new network namespace: {reason}"))
        return
    try:
        with IPRoute() as route:
            route.tc("add", kind, _LOOPBACK, **_OPTIONS[kind])
        found.append(True)
    except NetlinkError:
        found.append(False)
