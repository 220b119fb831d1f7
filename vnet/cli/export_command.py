"""`vnet export`: a VM as an OVA, or a disk of it as a qcow2 file."""

from __future__ import annotations

import hashlib
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.errors import HostError, InputError, PeerError
from vnet.cli.client import Client, path
from vnet.cli.options import Settings, command
from vnet.cli.output import tell


class Form(StrEnum):
    """What `--format` takes."""

    OVA = "ova"
    QCOW2 = "qcow2"


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(export)


def export(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM", show_default=False)],
    target: Annotated[Path, typer.Argument(metavar="FILE", show_default=False)],
    form: Annotated[
        Form | None, typer.Option("--format", help="By default what the file's name ends in.")
    ] = None,
    disk: Annotated[str, typer.Option("--disk", help="Only this disk.", show_default=False)] = "",
    pause: Annotated[bool, typer.Option("--pause", help="Let a VM that runs stand still meanwhile.")] = False,
) -> None:
    """Write a VM to a file.

    All of it as an OVA, or one disk as qcow2. The VM is stopped, or stands still as long as it takes.
    """
    chosen = form or _by_name(target)
    if target.is_symlink() or target.exists():
        raise InputError(f"{target} is there already: remove it first, or name another file")
    if not target.absolute().parent.is_dir():
        raise InputError(f"{target}: its folder is not there")
    client = settings.daemon()
    client.timeout_s = None
    body = {"format": chosen.value, "disk": disk, "pause": pause}
    made = client.run("POST", path("fabrics", settings.fabric, "vms", vm, "export"), body, settings.report)
    if made["note"] and not settings.quiet:
        tell(made["note"])
    try:
        _fetch(client, made, target, settings)
    finally:
        client.delete(path("exports", made["token"]))


def _by_name(target: Path) -> Form:
    for form in Form:
        if target.suffix.lower() == f".{form.value}":
            return form
    raise InputError(f"{target}: name the format with --format ova or --format qcow2")


def _fetch(client: Client, made: dict[str, Any], target: Path, settings: Settings) -> None:
    """Beside and renamed: half a file has another name, and none is left if it breaks off."""
    part = target.with_name(f".vnet-export-{os.urandom(6).hex()}")
    digest, size_bytes, what = hashlib.sha256(), 0, f"write {target}"
    try:
        with open(part, "xb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            for data in client.fetch(path("exports", made["token"])):
                file.write(data)
                digest.update(data)
                size_bytes += len(data)
            file.flush()
            os.fsync(file.fileno())
        if (size_bytes, digest.hexdigest()) != (made["size_bytes"], made["sha256"]):
            raise PeerError(
                f"{target} did not arrive whole: {size_bytes} of {made['size_bytes']} bytes; try again"
            )
        part.rename(target)
    except OSError as error:
        raise HostError(f"cannot write {target}: {error.strerror}") from error
    finally:
        part.unlink(missing_ok=True)
    settings.report(
        {"type": "progress", "status": "done", "what": what, "detail": f"sha256 {made['sha256']}"}
    )
