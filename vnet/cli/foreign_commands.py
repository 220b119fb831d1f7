"""`vnet import libvirt`, `compose`, `containerlab`, `ova`, `disk`: what others have, for a fabric."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import UsageError
from vnet.cli import files
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, mib, tell

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,22}[a-z0-9])?")
File = Annotated[str, typer.Argument(metavar="FILE", help="The file; - is standard input.")]


def add(group: typer.Typer) -> None:
    """Add these commands to `vnet import`."""
    for each in (libvirt, compose, containerlab, ova, disk):
        command(group)(each)


def libvirt(
    settings: Settings,
    domains: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="One domain or network in XML each; - is standard input."),
    ],
) -> None:
    """Print the topology of domains of libvirt.

    And of their networks: `virsh dumpxml DOMAIN`, `virsh net-dumpxml NETWORK`. -n gives its name.
    """
    from vnet.topology.foreign.libvirt import imported

    fabric = name(settings) or "libvirt"
    show(settings, imported({_called(file): files.text_of(file) for file in dict.fromkeys(domains)}, fabric))


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


def ova(
    settings: Settings,
    given: Annotated[
        str, typer.Argument(metavar="FILE", help="An .ova, or an .ovf with its files beside it.")
    ],
    into: Annotated[
        Path | None,
        typer.Option("--into", metavar="DIR", help="Make this folder, with its disks and the topology."),
    ] = None,
) -> None:
    """Print the topology that an OVA stands for.

    With --into its disks are made too. Its checksums are verified. -n gives the topology's name.
    """
    from vnet.cli.ova import into_folder, opened

    appliance = opened(given, name(settings))
    if into is None:
        show(settings, appliance.document)
    else:
        into_folder(given, appliance, into, settings.report)
        told(settings, appliance.document)


def disk(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM", show_default=False)],
    called: Annotated[str, typer.Argument(metavar="DISK", show_default=False)],
    given: Annotated[Path, typer.Argument(metavar="FILE", help="qcow2, raw, VMDK, VDI, VHD, VHDX.")],
    form: Annotated[str, typer.Option("--format", help="If it cannot be seen, as of many raw disks.")] = "",
    location: Annotated[str, typer.Option(metavar="NAME", help="Where it is to lie.")] = DEFAULT_LOCATION,
) -> None:
    """Make a disk of a VM out of a file.

    Before the VM is started with it; the fabric need not be up. The topology declares the disk, with the
    file's size or more.
    """
    if settings.fabric == "-":
        raise UsageError("of which fabric? name it with -n NAME or -f FILE")
    client = settings.daemon()
    client.timeout_s = None
    where = path("fabrics", settings.fabric, "vms", vm, "disks", called, "contents")
    body = {"path": str(given.absolute()), "format": form, "location": location}
    made = client.run("POST", where, body, settings.report)
    tell(f"{vm}: the disk {called} has {mib(made['size_bytes'])}; declare it with as much or more")


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
