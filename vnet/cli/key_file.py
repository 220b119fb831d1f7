"""Keys of backups as a user gives them: a file or the environment, never a command line that all can read."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from vnet.base.errors import InputError
from vnet.hv.secret import MAX_BYTES, check_key

FILE_VARIABLE = "VNET_BACKUP_KEY_FILE"
KEY_VARIABLE = "VNET_BACKUP_KEY"


def key_given(file: str | None) -> bytes | None:
    """The key of `--key-file`, else of the environment; None if there is none. Raises InputError."""
    named = file or os.environ.get(FILE_VARIABLE)
    if named:
        return _read(Path(named))
    text = os.environ.get(KEY_VARIABLE)
    return check_key(text.encode(), KEY_VARIABLE) if text else None


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            key = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read the key {path}: {error.strerror}") from error
    if stat.S_ISREG(mode) and mode & 0o077:
        raise InputError(f"{path} can be read by others ({mode & 0o777:o}): `chmod 600 {path}`")
    return check_key(key, str(path))


def make_key_file(path: Path) -> None:
    """Make one at random. Raises InputError if the file is there: its backups would be lost."""
    from vnet.hv.live.keys import make_key, write_new

    try:
        write_new(path, make_key())
    except FileExistsError:
        raise InputError(f"{path} is there already; a key is never replaced: name another file") from None
    except OSError as error:
        raise InputError(f"cannot make {path}: {error.strerror}") from error
