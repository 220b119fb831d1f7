"""`vnet import compose`, `containerlab`: machines and networks of others as a topology file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Annotated, Any

import typer

from vnet.base.errors import UsageError
from vnet.cli import files
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, tell

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
File = Annotated[str, typer.Argument(metavar="FILE", help="The file; - is standard input.")]


def add(group: typer.Typer) -> None:
    """Add these commands to `vnet import`."""
    for each in (compose, containerlab):
        command(group)(each)


def compose(settings: Settings, given: File) -> None:
    """Print the topology that a Compose file stands for.

    Its services become micro guests. Variables are those of the environment; -n gives its name.
    """
    from vnet.topology.foreign.compose import imported

    _from_yaml(settings, given, imported)


def containerlab(settings: Settings, given: File) -> None:
    """Print the topology that a containerlab file stands for.

    Its nodes become micro guests, its links networks. -n gives its name.
    """
    from vnet.topology.foreign.containerlab import imported

    _from_yaml(settings, given, imported)


def _from_yaml(settings: Settings, file: str, imported: Callable[..., dict[str, Any]]) -> None:
    fabric = name(settings)
    show(settings, imported(_called(file), files.text_of(file), os.environ, fabric))


def _called(file: str) -> str:
    return "(stdin)" if file == "-" else file


def name(settings: Settings) -> str:
    """What `-n` calls the fabric; empty if it does not. Raises UsageError for what is no name."""
    if settings.file:
        raise UsageError(f"-f {settings.file[0]}: what is imported is given without -f")
    if settings.name and not _NAME.fullmatch(settings.name):
        raise UsageError(
            f"-n {settings.name}: a fabric's name has lowercase letters, digits and -, at most 24"
        )
    return settings.name or ""


def show(settings: Settings, found: dict[str, Any]) -> None:
    """Print a topology that was made, once it has been read as one."""
    check(found)
    document(found, Format.JSON if settings.output is Format.JSON else Format.YAML)
    told(settings, found)


def check(found: dict[str, Any]) -> None:
    """Raises InputError if what was made is no topology (addresses that lie nowhere, a port twice)."""
    import yaml

    from vnet.topology.load import load_text

    load_text(yaml.safe_dump(found, sort_keys=False, allow_unicode=True), "(result)", {})


def told(settings: Settings, found: dict[str, Any]) -> None:
    """Say that something is to be looked at."""
    for key, what in (("x-left-out", "left out"), ("x-notes", "to look at")):
        if found.get(key) and not settings.quiet:
            tell(f"{what}: {len(found[key])}, see {key}")
