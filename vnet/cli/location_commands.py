"""Commands about the locations of disks: ls, add, rm."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.boot import DEFAULT_LOCATION
from vnet.base.errors import Fault, HostError, InputError
from vnet.cli.client import Client, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, mib, rows, tell

if TYPE_CHECKING:
    from vnet.topology.inventory import Vm

_COLUMNS = (
    Column("LOCATION", lambda row: row["location"]),
    Column("FOLDER", lambda row: row["folder"]),
    Column("FREE", lambda row: "-" if row["trouble"] else mib(row["free_bytes"])),
    Column("DISKS", lambda row: "-" if row["trouble"] else str(row["disks"])),
    Column("TROUBLE", lambda row: row["trouble"] or "-"),
)
_WHERE = path("disk-locations")


def register(above: typer.Typer) -> None:
    """Add these commands to `vnet disk`."""
    group = typer.Typer(no_args_is_help=True, help="Locations of disks: folders of this host.")
    above.add_typer(group, name="location")
    command(group)(ls)
    command(group)(add)
    command(group)(rm)


def ls(settings: Settings) -> None:
    """List the locations of this host, with what is free there and how many disks lie there."""
    rows(settings.daemon().get(_WHERE), _COLUMNS, settings.output)


def tell_missing(client: Client) -> None:
    """Of locations that cannot be looked into: there may be disks that nobody sees now."""
    for row in client.get(_WHERE):
        if row["trouble"]:
            tell(f"location {row['location']}: {row['trouble']}; disks there are not seen")


def add(
    settings: Settings,
    called: Annotated[str, typer.Argument(metavar="LOCATION", help="What topologies call it.")],
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Of root's; others may not write to it.")],
) -> None:
    """Name a folder, on another file system for instance, where disks may lie.

    vnet makes a folder of its own in it, once: if that is missing later, nothing is mounted there.
    """
    made = settings.daemon().post(_WHERE, {"name": called, "folder": str(folder.absolute())})
    found = f"; {made['disks']} disks lie there already" if made["disks"] else ""
    tell(f"{called}: {made['folder']}, {mib(made['free_bytes'])} free{found}")
    if made["in_memory"]:
        tell(f"{made['folder']} is in memory: disks there are lost when this host is started anew")


def rm(
    settings: Settings,
    called: Annotated[str, typer.Argument(metavar="LOCATION")],
    lost: Annotated[
        bool, typer.Option("--lost", help="Also one that is missing: what lies there is given up.")
    ] = False,
) -> None:
    """Forget a location at which no disks lie."""
    removed = settings.daemon().delete(path("disk-locations", called), lost="yes" if lost else None)
    tell(f"{called}: removed; {removed['folder']} stays")


def refuse_unknown(client: Client, vms: Iterable[Vm]) -> None:
    """Raise InputError for locations that the daemon of this host does not know, if there is one to ask."""
    found = {
        (vm.spec, disk.name): disk for vm in vms for disk in vm.disks if disk.location != DEFAULT_LOCATION
    }
    known = _known(client) if found else None
    faults = [
        Fault(
            disk.at,
            f"vms.{vm}.disks",
            f"this host has no location {disk.location} for disks",
            f"`vnet disk location add {disk.location} FOLDER` names a folder of it",
        )
        for (vm, _), disk in found.items()
        if known is not None and disk.location not in known
    ]
    if faults:
        raise InputError(tuple(faults))


def _known(client: Client) -> set[str] | None:
    """What it knows; None if nobody answers, or this user may not ask."""
    try:
        return {row["location"] for row in client.get(_WHERE)} if client.alive() else None
    except HostError:
        return None
