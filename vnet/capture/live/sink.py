"""Where the bytes of a capture go: a file, or standard output for Wireshark."""

from __future__ import annotations

import os
import select
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from vnet.base.errors import HostError


class Sink(Protocol):
    """Takes whole blocks."""

    def write(self, block: bytes) -> bool:
        """Whether the whole block is out; when not, nothing of it is."""
        ...

    @property
    def error(self) -> HostError | None:
        """The first thing that went wrong."""
        ...

    @property
    def closed_by_reader(self) -> bool:
        """Whether nobody reads any more, which ends a capture well."""
        ...

    def close(self) -> None:
        """Give the descriptor back."""
        ...


@dataclass(slots=True)
class FileSink:
    """A regular file, overwritten as tcpdump does.

    When the disk is full, what was written of the block is cut off again, so the file stays readable
    to its end, and the next block is tried anew: space may have been freed.
    """

    path: Path
    error: HostError | None = None
    closed_by_reader: bool = False
    _fd: int = field(init=False)
    _whole_bytes: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        try:
            self._fd = os.open(self.path, flags, 0o600)
        except OSError as error:
            raise HostError(f"cannot write {self.path}: {error.strerror}") from error

    def write(self, block: bytes) -> bool:
        """Append the block, all of it or nothing."""
        try:
            _write_all(self._fd, block)
        except BrokenPipeError:
            self.closed_by_reader = True  # the path is a named pipe
            return False
        except OSError as error:
            self.error = self.error or HostError(f"cannot write {self.path}: {error.strerror}")
            self._cut_off_half_a_block()
            return False
        self._whole_bytes += len(block)
        return True

    def _cut_off_half_a_block(self) -> None:
        """A device or a pipe given by name cannot be cut; its reader sees the torn block."""
        with suppress(OSError):
            os.ftruncate(self._fd, self._whole_bytes)
            os.lseek(self._fd, self._whole_bytes, os.SEEK_SET)

    def close(self) -> None:
        """Close the file; a late refusal (a quota, a network file system) counts as an error."""
        try:
            os.close(self._fd)
        except OSError as error:
            self.error = self.error or HostError(f"cannot write {self.path}: {error.strerror}")


@dataclass(slots=True)
class PipeSink:
    """An open descriptor, usually standard output: each block is out at once, so Wireshark is live.

    The descriptor is not closed: it belongs to the caller.
    """

    fd: int = 1
    error: HostError | None = None
    closed_by_reader: bool = False

    def write(self, block: bytes) -> bool:
        """Write the block, waiting for the reader."""
        try:
            _write_all(self.fd, block)
        except BrokenPipeError:
            self.closed_by_reader = True
            return False
        except OSError as error:
            self.error = self.error or HostError(f"cannot write to standard output: {error.strerror}")
            return False
        return True

    def close(self) -> None:
        """Nothing: the descriptor is the caller's."""


def open_sink(target: str) -> FileSink | PipeSink:
    """The sink that `-w TARGET` names; `-` is standard output."""
    return PipeSink() if target == "-" else FileSink(Path(target))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # the caller's pipe does not wait by itself
            select.select((), (fd,), ())
