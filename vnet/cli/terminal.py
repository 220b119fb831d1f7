"""A terminal whose keys are read one by one, and that is always given back as it was."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vnet.base.errors import Exit

ENDED_BY = (signal.SIGTERM, signal.SIGHUP)


class Ended(SystemExit):
    """A signal ends the program: what is open is closed on the way out."""


def is_interactive() -> bool:
    """Whether somebody sits there who can press keys and whose terminal can move its cursor."""
    return sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"


@contextmanager
def single_keys() -> Iterator[int]:
    """Keys come one by one and unseen for the duration of the body; gives the descriptor to read them from.

    Ctrl-C stays a signal. SIGTERM and SIGHUP raise `Ended` in the body.
    """
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    handlers = {each: signal.signal(each, _end) for each in ENDED_BY}
    try:
        tty.setcbreak(fd, termios.TCSADRAIN)
        yield fd
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _end(number: int, frame: FrameType | None) -> None:
    raise Ended(Exit.INTERRUPTED)


def typed(fd: int, *others: int, timeout_s: float) -> bytes:
    """What has been typed, as soon as something was or one of the other descriptors has news; b"" if not.

    Raises: Ended when the terminal has gone away.
    """
    ready, _, _ = select.select([fd, *others], [], [], timeout_s)
    if fd not in ready:
        return b""
    try:
        data = os.read(fd, 256)
    except OSError as error:  # EIO: its other end was closed
        raise Ended(Exit.INTERRUPTED) from error
    if not data:
        raise Ended(Exit.INTERRUPTED)
    return data
