"""Where the bytes of a capture go: a file, or standard output for Wireshark."""

from __future__ import annotations

import os
import select
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from vnet.base.errors import HostError
from vnet.capture.ring import Ring, RingLimits, blocks, earlier_files, file_name


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


class RingSink:
    """Files one after the other, the oldest of which go. Takes whole blocks of pcapng.

    Args:
        path: what the files are called after.
        limits: when the next one begins, and how many are kept.
        goes_on: whether files that an earlier capture left are counted with its own.
    """

    def __init__(self, path: Path, limits: RingLimits, goes_on: bool = False) -> None:
        self.path, self._ring = path, Ring(limits)
        self._files = deque(earlier_files(path) if goes_on else ())
        self._number = self._files[-1][0] if self._files else 0
        self._refusal: HostError | None = None
        self._file = self._opened()

    @property
    def error(self) -> HostError | None:
        """Why there is no next file, or the first thing that went wrong with the one that is written."""
        return self._refusal or self._file.error

    @property
    def closed_by_reader(self) -> bool:
        """Files have no reader that could go away."""
        return False

    def _opened(self) -> FileSink:
        """The next file, in the place of the oldest: on a full disk that makes room for it."""
        kept = self._ring.limits.files
        while kept and len(self._files) >= max(kept, 2):
            self._files.popleft()[1].unlink(missing_ok=True)
        opened = FileSink(file_name(self.path, self._number + 1, datetime.now()))
        if self._ring.preamble and not opened.write(self._ring.preamble):
            opened.close()
            opened.path.unlink(missing_ok=True)
            raise opened.error or HostError(f"cannot write {opened.path}")
        self._number += 1
        self._files.append((self._number, opened.path))
        while kept and len(self._files) > kept:
            self._files.popleft()[1].unlink(missing_ok=True)
        return opened

    def _goes_on(self, now_s: float) -> bool:
        """Whether there is a next file; without one nothing is written, and the next packet tries again."""
        try:
            opened = self._opened()
        except HostError as error:
            self._refusal = error
            return False
        self._file.close()
        self._file, self._refusal = opened, None
        self._ring.began(now_s)
        return True

    def write(self, block: bytes) -> bool:
        """Write the block, or several that belong together; False if one found no room."""
        written = [self._write(each) for each in blocks(block)]
        return all(written)

    def _write(self, block: bytes) -> bool:
        now_s = time.monotonic()
        if self._ring.begins(block, now_s) and not self._goes_on(now_s):
            return False
        if not self._file.write(block):
            return False
        self._ring.wrote(block, now_s)
        return True

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def open_sink(target: str, ring: RingLimits | None = None) -> FileSink | PipeSink | RingSink:
    """The sink that `-w TARGET` names; `-` is standard output."""
    if target == "-":
        return PipeSink()
    return RingSink(Path(target), ring) if ring else FileSink(Path(target))


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BlockingIOError:  # the caller's pipe does not wait by itself
            select.select((), (fd,), ())
