"""Which topology file is meant, and what its fabric is called, without loading it.

Lookup: `-f FILE` (`-` is standard input), else `$VNET_FILE`, else the only `vnet.yaml` or
`NAME.vnet.yaml` in the working directory.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vnet.base.errors import InputError, UsageError

_NAME = re.compile(r"""^(?:\{\s*)?["']?name["']?\s*:\s*["']?([A-Za-z0-9][A-Za-z0-9._-]*)""", re.MULTILINE)
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


def find(given: Sequence[str]) -> str | None:
    """The file meant, or None when none is given and the working directory has none.

    Raises: UsageError when several would do.
    """
    if len(given) > 1:
        raise UsageError(f"-f is given {len(given)} times; this version reads one topology file at a time")
    if given:
        return given[0]
    if os.environ.get("VNET_FILE"):
        return os.environ["VNET_FILE"]
    found = _candidates()
    if len(found) > 1:
        raise UsageError(f"which topology? name one with -f FILE: {', '.join(map(str, found))}")
    return str(found[0]) if found else None


def _candidates() -> list[Path]:
    return sorted({*Path().glob("vnet.yaml"), *Path().glob("*.vnet.yaml")})


def read(given: Sequence[str]) -> tuple[str, str]:
    """File name and text of the topology meant."""
    file = find(given)
    if file is None:
        raise UsageError("no topology: give one with -f FILE, or set VNET_FILE, or go where a vnet.yaml is")
    if file == "-":
        return "(stdin)", sys.stdin.read()
    try:
        return file, Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error


def source(given: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """The topology meant, as the daemon is sent it: with the variables it mentions and no others.

    Raises: UsageError when the fabric is asked for by another name than the file gives it.
    """
    file, text = read(given)
    if name and name != fabric_name(text, file):
        raise UsageError(
            f"-n {name}, but {file} declares the fabric {fabric_name(text, file)}: leave -n away"
        )
    return {"file": file, "text": text, "env": mentioned(text, os.environ)}


def mentioned(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a text mentions."""
    return {name: environment[name] for name in _VARIABLE.findall(text) if name in environment}


def fabric_name(text: str, file: str) -> str:
    """The fabric's name: what stands at `name:` in the first column, else what the file is called."""
    found = _NAME.search(text)
    return found[1] if found else Path(file).name.removesuffix(".yaml").removesuffix(".vnet")


def meant(name: str | None, given: Sequence[str]) -> str:
    """The fabric that `-n`, `-f` or the working directory mean; `-` is "the only one that is up"."""
    if name:
        return name
    if not given and not os.environ.get("VNET_FILE") and len(_candidates()) != 1:
        return "-"
    file, text = read(given)
    return fabric_name(text, file)
