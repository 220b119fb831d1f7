"""Netlink sockets whose refusals name what was tried."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pyroute2 import IPRoute, NetlinkError

from vnet.base.errors import HostError


@contextmanager
def netlink_to(action: str, hint: str = "") -> Iterator[IPRoute]:
    """A socket in the network namespace of the calling thread, for what completes "cannot …".

    Raises: HostError with the kernel's reason, and `hint` behind it.
    """
    more = f"; {hint}" if hint else ""
    try:
        with IPRoute() as netlink:
            yield netlink
    except NetlinkError as error:
        reason = os.strerror(error.code) if error.code else str(error)
        raise HostError(f"cannot {action}: {reason}{more}") from error
    except OSError as error:
        raise HostError(f"cannot {action}: {error.strerror or error}{more}") from error
