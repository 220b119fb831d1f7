"""Lines in files of bounded size: the newest in `log.jsonl`, older ones in `log.jsonl.1` and so on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vnet.base import paths

SEGMENT_BYTES = 16 << 20
SEGMENTS = 8
"""128 MiB for a fabric: some 400,000 lines."""
LINE_MAX = 64 << 10
NAME = "log.jsonl"
GONE = 16
"""Fabrics that are gone whose logs are kept."""


class Journal:
    """One directory of them. Raises OSError as the file system does."""

    def __init__(self, directory: Path, segment_bytes: int = SEGMENT_BYTES, segments: int = SEGMENTS) -> None:
        self.directory = directory
        self._segment_bytes, self._segments = segment_bytes, segments
        self._file: BinaryIO | None = None

    def append(self, lines: list[str]) -> None:
        """Add lines without their ends."""
        if self._file is None:
            self._file = self._opened()
        self._file.write("".join(f"{line}\n" for line in lines).encode())
        self._file.flush()
        if self._file.tell() >= self._segment_bytes:
            self._rotate()

    def _opened(self) -> BinaryIO:
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        fd = os.open(self._path(0), os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        file = os.fdopen(fd, "ab")
        size = file.seek(0, os.SEEK_END)
        end = os.pread(fd, LINE_MAX, max(0, size - LINE_MAX))
        torn = len(end) - (end.rfind(b"\n") + 1)
        if torn:  # what was being written when the host stopped
            file.truncate(size - torn)
        return file

    def _path(self, number: int) -> Path:
        return self.directory / (f"{NAME}.{number}" if number else NAME)

    def _rotate(self) -> None:
        self.close()
        for number in reversed(range(self._segments - 1)):
            if self._path(number).exists():
                self._path(number).replace(self._path(number + 1))

    def snapshot(self) -> Iterator[str]:
        """The lines of now, oldest first. The files are opened at once: what comes later is not read."""
        opened: list[tuple[BinaryIO, int]] = []
        for number in reversed(range(self._segments)):
            try:
                file = self._path(number).open("rb")
            except FileNotFoundError:
                continue
            opened.append((file, os.fstat(file.fileno()).st_size))
        return _lines(opened)

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _lines(opened: list[tuple[BinaryIO, int]]) -> Iterator[str]:
    for file, size in opened:
        with file:
            while file.tell() < size:
                line = file.readline()
                if line.endswith(b"\n") and line != b"\n":
                    yield line[:-1].decode(errors="replace")


def kept_logs() -> tuple[str, ...]:
    """The fabrics, there or gone, that there is a log of; the newest last."""
    root = paths.log_dir("")
    found = sorted((path.stat().st_mtime_ns, path.name) for path in root.iterdir()) if root.exists() else []
    return tuple(name for _, name in found)


def forget_oldest() -> None:
    """Remove logs of fabrics that are gone but the newest of them."""
    gone = [name for name in kept_logs() if not paths.fabric_run_dir(name).exists()]
    for name in gone[:-GONE]:
        shutil.rmtree(paths.log_dir(name), ignore_errors=True)
