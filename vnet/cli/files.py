"""Which topology file is meant, and what its fabric is called, without loading it.

Lookup: `-f FILE` (`-` is standard input; several are parts of one topology), else `$VNET_FILE`, else the only
`vnet.yaml` or `NAME.vnet.yaml` in the working directory.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vnet.base.errors import InputError, UsageError

_NAME = re.compile(r"""^(?:\{\s*)?["']?name["']?\s*:\s*["']?([A-Za-z0-9][A-Za-z0-9._-]*)""", re.MULTILINE)
_NAMES_FILES = re.compile(r"\b(images|boot)\b")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_][A-Za-z0-9_]*)")


@dataclass(frozen=True, slots=True)
class Given:
    """A topology as it was given: its file, and the texts of all that it includes, by path."""

    file: str
    text: str
    included: Mapping[str, str] = field(default_factory=dict)


def find(given: Sequence[str]) -> list[str]:
    """The files meant; none when none is given and the working directory has none.

    Raises: UsageError when several would do.
    """
    if given:
        return list(given)
    if os.environ.get("VNET_FILE"):
        return [os.environ["VNET_FILE"]]
    found = _candidates()
    if len(found) > 1:
        raise UsageError(f"which topology? name one with -f FILE: {', '.join(map(str, found))}")
    return list(map(str, found))


def _candidates() -> list[Path]:
    return sorted({*Path().glob("vnet.yaml"), *Path().glob("*.vnet.yaml")})


def read(given: Sequence[str]) -> Given:
    """The topology meant, with what it includes; several files are what a file that includes them is."""
    found = find(given)
    if not found:
        raise UsageError("no topology: give one with -f FILE, or set VNET_FILE, or go where a vnet.yaml is")
    if len(found) == 1:
        file, text = "(stdin)" if found[0] == "-" else found[0], text_of(found[0])
    else:
        file, text = "(command line)", f"include: {json.dumps(found)}\n"
    return Given(file, text, _included(file, text))


def text_of(file: str) -> str:
    """The text of a file; `-` is standard input. Raises InputError if there is none."""
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text: {error}") from error
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}") from error


def _included(file: str, text: str) -> Mapping[str, str]:
    if "include" not in text and "cloud_init" not in text:
        return {}
    from vnet.topology.include import gather  # only here: reading YAML takes its time to import

    return gather(file, text, _text_if_there)


def _text_if_there(path: str) -> str | None:
    """The text of a file that a topology names; whoever loads the topology says which are missing."""
    file = str(Path(path).expanduser())
    return text_of(file) if file == "-" or Path(file).is_file() else None


def source(given: Sequence[str], name: str | None = None) -> dict[str, Any]:
    """The topology meant, as the daemon is sent it: with the variables it mentions and no others.

    Raises: UsageError when the fabric is asked for by another name than the file gives it.
    """
    found = read(given)
    if name and name != fabric_name(found):
        raise UsageError(
            f"-n {name}, but {found.file} declares the fabric {fabric_name(found)}: leave -n away"
        )
    env = mentioned("\n".join((found.text, *found.included.values())), os.environ)
    return {"file": found.file, "text": found.text, "included": dict(found.included), "env": env}


def mentioned(text: str, environment: Mapping[str, str]) -> dict[str, str]:
    """The environment variables that a text mentions, and the folder of files if it may name any."""
    found = {name: environment[name] for name in _VARIABLE.findall(text) if name in environment}
    return found | {"PWD": str(Path.cwd())} if _NAMES_FILES.search(text) else found


def fabric_name(given: Given) -> str:
    """The fabric's name: what stands at `name:` in the first column, else what the file is called."""
    for text in (given.text, *given.included.values()):
        found = _NAME.search(text)
        if found:
            return found[1]
    return Path(given.file).name.removesuffix(".yaml").removesuffix(".vnet")


def meant(name: str | None, given: Sequence[str]) -> str:
    """The fabric that `-n`, `-f` or the working directory mean; `-` is "the only one that is up"."""
    if name:
        return name
    if not given and not os.environ.get("VNET_FILE") and len(_candidates()) != 1:
        return "-"
    return fabric_name(read(given))
