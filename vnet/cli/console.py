"""A terminal on a guest's serial console: bytes both ways until Ctrl-]."""

from __future__ import annotations

import os
import select
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vnet.base.errors import HostError
from vnet.cli.output import tell

LEAVE = b"\x1d"
"""Ctrl-], as in telnet and virsh."""


def attach(path: Path, vm: str) -> None:
    """Copy between standard input and output and the console's unix socket."""
    with _connected(path) as console, _raw(sys.stdin.fileno()):
        tell(f"console of {vm}; Ctrl-] leaves\r")
        copy(console, sys.stdin.fileno(), sys.stdout.fileno())
    tell("")


@contextmanager
def _connected(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as console:
        try:
            console.connect(str(path))
        except OSError as error:
            raise HostError(
                f"cannot open the console {path}: {error.strerror}; does another `vnet console` hold it?"
            ) from error
        yield console


@contextmanager
def _raw(fd: int) -> Iterator[None]:
    """Every key to the guest, Ctrl-C too; a pipe instead of a terminal is left as it is."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    tty.setraw(fd)
    try:
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def copy(console: socket.socket, keys: int, screen: int) -> None:
    """Until Ctrl-], the end of the input, or the end of the guest."""
    while True:
        ready, _, _ = select.select([console.fileno(), keys], [], [])
        if console.fileno() in ready:
            output = console.recv(65536)
            if not output:
                return
            os.write(screen, output)
        if keys in ready:
            typed = os.read(keys, 4096)
            before, leave, _ = typed.partition(LEAVE)
            console.sendall(before)
            if leave or not typed:
                return
