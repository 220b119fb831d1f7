"""Topology files that a command edits: found, read and written back."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from vnet.base.errors import HostError, InputError, UsageError
from vnet.cli import files
from vnet.cli.client import path
from vnet.cli.options import Settings

if TYPE_CHECKING:
    from vnet.fabric.store import Source


def source_and_name(settings: Settings) -> tuple[Source, str]:
    """The file that is given, or that of the fabric that -n names; and what that fabric is called."""
    from vnet.fabric.store import Source

    file = settings.file
    if settings.name and not file:
        file = (settings.daemon().get(path("fabrics", settings.name))["file"],)
        if not Path(file[0]).exists():
            raise InputError(
                f"{settings.name} is from {file[0]}, which is not here: name the file with -f FILE"
            )
    given = files.read(file)
    source = Source(given.file, given.text, dict(os.environ), given.included)
    return source, settings.name or files.fabric_name(given)


def write_texts(texts: Mapping[str, str]) -> None:
    """Put the new texts in place of the files; each of them as a whole or not at all."""
    for file in texts:
        if file.startswith("("):
            raise UsageError(f"{file} is no file that could be written; name one with -f FILE")
    for file, text in texts.items():
        _replace(Path(file), text)


def _replace(file: Path, text: str) -> None:
    """Keeps the file's mode, and its ends of lines."""
    import tempfile  # only here: it takes its time to import

    try:
        old = file.read_bytes()
        if b"\r\n" in old:
            if old.count(b"\r\n") != old.count(b"\n"):
                raise InputError(f"{file} ends its lines in two ways; make it one first")
            text = text.replace("\n", "\r\n")
        target = file.resolve()
        with tempfile.NamedTemporaryFile(
            "wb", dir=target.parent, prefix=f".{file.name}.", delete=False
        ) as new:
            new.write(text.encode())
        Path(new.name).chmod(stat.S_IMODE(target.stat().st_mode))
        Path(new.name).replace(target)
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}") from error
