"""Learning that an interface of the namespace came, went, or gained or lost its carrier."""

from __future__ import annotations

import errno
import socket

from vnet.switch.live.netns import inside

RTMGRP_LINK = 1
"""Multicast group of link messages (linux/rtnetlink.h)."""
_READ_BYTES = 1 << 16


class LinkMonitor:
    """A netlink socket in a namespace; `fd` becomes readable when a link changed.

    What changed is not read from the messages: they may be lost when there are many, the state cannot.
    """

    def __init__(self, netns: str | None) -> None:
        with inside(netns):
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, 0)
        self._socket.bind((0, RTMGRP_LINK))

    @property
    def fd(self) -> int:
        """To be watched by the event loop."""
        return self._socket.fileno()

    def drain(self) -> None:
        """Throw away what has come in; a full buffer (ENOBUFS) says no more than that."""
        while True:
            try:
                self._socket.recv(_READ_BYTES)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise

    def close(self) -> None:
        """Stop listening."""
        self._socket.close()
