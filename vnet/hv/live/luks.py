"""LUKS on this host: made by qemu-img, which gets the key by a descriptor and never on its command line."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from vnet.base.errors import HostError

_TIMEOUT_S = 600.0
_ITERATION_MS = 100
"""How long QEMU may take to try a key; those that are made here cannot be guessed anyway."""
_TRIES = 10
_MOODY = "Unable to get accurate CPU usage"
"""qemu-img measures how fast it is and at random cannot (seen with 7.2): it is asked again."""


@contextmanager
def secret_fd(key: bytes) -> Iterator[int]:
    """A descriptor that the key can be read from; it lies in memory only."""
    descriptor = os.memfd_create("key", os.MFD_CLOEXEC)
    try:
        os.write(descriptor, key)
        yield descriptor
    finally:
        os.close(descriptor)


def secret_words(descriptor: int, name: str = "key") -> tuple[str, ...]:
    """What tells a command of QEMU's where the key is."""
    return ("--object", f"secret,id={name},file=/proc/self/fd/{descriptor}")


def create(path: Path, key: bytes) -> None:
    """Make an empty LUKS volume of a file that is there; it grows as it is written to."""
    options = f"key-secret=key,iter-time={_ITERATION_MS}"
    with secret_fd(key) as fd:
        run(("qemu-img", "create", "-q", "-f", "luks", *secret_words(fd), "-o", options, str(path), "0"), fd)


def run(command: Sequence[str], *fds: int) -> str:
    """What a command of QEMU's says on standard output. Raises HostError."""
    for _ in range(_TRIES):
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, pass_fds=fds)
        except (OSError, subprocess.SubprocessError) as error:
            raise HostError(f"`{' '.join(command)}` failed: {error}; install qemu-utils") from error
        if done.returncode == 0:
            return done.stdout
        if _MOODY not in done.stderr:
            break
    raise HostError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
