"""Tells a service manager how the daemon is: sd_notify(3), without its library.

Where nobody asked for it (no NOTIFY_SOCKET) nothing is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Mapping


class Notifier:
    """Says what it is told to the socket that the environment names."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        self.watchdog_s = _watchdog_s(environment)
        """How long the service manager waits for a sign of life; None for ever."""

    def tell(self, *lines: str) -> None:
        """`READY=1`, `STATUS=…`, `STOPPING=1`, `WATCHDOG=1`. A service manager that is gone is no error."""
        if self._address[:1] not in ("/", "@"):
            return
        address = self._address.replace("@", "\0", 1) if self._address.startswith("@") else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.send("\n".join(lines).encode())

    async def live(self) -> None:
        """For ever: a sign of life, twice as often as is asked for. It comes from the loop that serves
        everything: one that hangs gives none."""
        while self.watchdog_s is not None:
            self.tell("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_s / 2)


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Source: sd_watchdog_enabled(3)."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    try:
        span_s = int(environment.get("WATCHDOG_USEC", "0")) / 1e6
    except ValueError:
        return None
    return span_s if span_s > 0 else None
