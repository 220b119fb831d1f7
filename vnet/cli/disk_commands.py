"""Commands about disks: ls, rm."""

from __future__ import annotations

from typing import Annotated

import typer

from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, mib, rows, tell

_COLUMNS = (
    Column("FABRIC", lambda row: row["fabric"]),
    Column("VM", lambda row: row["vm"]),
    Column("DISK", lambda row: row["disk"]),
    Column("SIZE", lambda row: mib(row["size_bytes"])),
    Column("TAKEN", lambda row: mib(row["taken_bytes"])),
    Column("USE", lambda row: row["use"] + (", damaged" if row["damage"] else "")),
    Column("KEY", lambda row: "yes" if row["encrypted"] else "no"),
    Column("BASE", lambda row: row["base"][:12] or "-"),
    Column("FORMAT", lambda row: row["format"], wide=True),
    Column("PATH", lambda row: row["path"], wide=True),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="Disks of VMs: list, remove.")
    app.add_typer(group, name="disk")
    command(group)(ls)
    command(group)(rm)


def ls(settings: Settings) -> None:
    """List the disks of all fabrics, also of those that are down; with -n those of one."""
    rows(settings.daemon().get(path("disks"), fabric=settings.name), _COLUMNS, settings.output)


def rm(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM")],
    disk: Annotated[str, typer.Argument(metavar="DISK")],
) -> None:
    """Remove a disk with all that is on it, for good."""
    removed = settings.daemon().delete(path("fabrics", settings.fabric, "vms", vm, "disks", disk))
    tell(f"{removed['path']}: removed, {mib(removed['taken_bytes'])} are free again")
