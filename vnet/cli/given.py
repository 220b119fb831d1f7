"""What is piped into a command, for a command that runs elsewhere.

The whole of it is read before anything starts: the guest's agent takes a command with all its input.
"""

from __future__ import annotations

import os
import select
import sys

from vnet.base.errors import InputError
from vnet.cli.output import tell

MAX_BYTES = 8 << 20
"""It is held in the guest's memory."""
SILENCE_S = 2.0
"""A pipe that nobody writes to or closes for so long is worth a word."""


def standard_input() -> bytes:
    """All of standard input; nothing of a terminal, whose user types no input beforehand.

    Raises: InputError when it is longer than a guest may be sent.
    """
    if sys.stdin is None or sys.stdin.isatty():
        return b""
    return read_all(sys.stdin.fileno())


def read_all(fd: int, max_bytes: int = MAX_BYTES, silence_s: float = SILENCE_S) -> bytes:
    """Until the end; says once that it waits."""
    ready, _, _ = select.select([fd], [], [], silence_s)
    if not ready:
        tell("waiting for the end of standard input; `</dev/null` gives the command none")
    data = bytearray()
    while block := os.read(fd, 1 << 16):
        data += block
        if len(data) > max_bytes:
            raise InputError(
                f"standard input is longer than the {max_bytes >> 20} MiB that a guest can be sent"
            )
    return bytes(data)
