"""Commands about disks: ls, rm, move."""

from __future__ import annotations

from typing import Annotated

import typer

from vnet.cli import location_commands
from vnet.cli.client import data, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, document, mib, rows, tell

_COLUMNS = (
    Column("FABRIC", lambda row: row["fabric"]),
    Column("VM", lambda row: row["vm"]),
    Column("DISK", lambda row: row["disk"]),
    Column("SIZE", lambda row: mib(row["size_bytes"])),
    Column("TAKEN", lambda row: mib(row["taken_bytes"])),
    Column("USE", lambda row: row["use"] + (", damaged" if row["damage"] else "")),
    Column("KEY", lambda row: "yes" if row["encrypted"] else "no"),
    Column("BASE", lambda row: (row["base"][:12] or "-") + (", gone" if row["base_gone"] else "")),
    Column("LOCATION", lambda row: row["location"]),
    Column("FORMAT", lambda row: row["format"], wide=True),
    Column("PATH", lambda row: row["path"], wide=True),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="Disks of VMs: list, remove, move; where they lie.")
    app.add_typer(group, name="disk")
    command(group)(ls)
    command(group)(rm)
    command(group)(move)
    location_commands.register(group)


def ls(settings: Settings) -> None:
    """List the disks of all fabrics, also of those that are down; with -n those of one."""
    client = settings.daemon()
    rows(client.get(path("disks"), fabric=settings.name), _COLUMNS, settings.output)
    location_commands.tell_missing(client)


def rm(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM")],
    disk: Annotated[str, typer.Argument(metavar="DISK")],
    location: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which one, if there is one at several.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", metavar="FORMAT", help="Which one, if there are two: qcow2, raw."),
    ] = None,
) -> None:
    """Remove a disk with all that is on it, for good."""
    where = path("fabrics", settings.fabric, "vms", vm, "disks", disk)
    removed = settings.daemon().delete(where, location=location, format=kind)
    tell(f"{removed['path']}: removed, {mib(removed['taken_bytes'])} are free again")


def move(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM", help="It must be stopped.")],
    disk: Annotated[str, typer.Argument(metavar="DISK")],
    location: Annotated[
        str, typer.Argument(metavar="LOCATION", help="`vnet disk location ls` lists them; default is one.")
    ],
) -> None:
    """Move a disk, with the snapshots in it, to another location of this host.

    Broken off, it stays where it is. The topology has to declare the new location before the VM is started.
    """
    where = path("fabrics", settings.fabric, "vms", vm, "disks", disk, "move")
    moved = settings.daemon().run("POST", where, {"location": location}, settings.report)
    if settings.output in (Format.JSON, Format.YAML):
        document(data(moved), settings.output)
    else:
        tell(f"{moved['path']}: moved; declare `location: {location}` for {disk} of {vm}, then `vnet up`")
