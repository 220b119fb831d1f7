"""Commands about images: ls, import, rm, verify, build."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.errors import Exit, UsageError
from vnet.cli import files
from vnet.cli.client import data, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, document, mib, rows, tell

_COLUMNS = (
    Column("NAME", lambda row: row["name"] or "-"),
    Column("ID", lambda row: row["id"][:12]),
    Column("KIND", lambda row: row["kind"] + (", gone" if row["gone"] else "")),
    Column("SIZE", lambda row: mib(row["size_bytes"])),
    Column("TAKEN", lambda row: mib(row["taken_bytes"])),
    Column("USED BY", lambda row: _few(row["users"])),
    Column("FORMAT", lambda row: row["format"] or "-", wide=True),
    Column("SHA256", lambda row: row["sha256"] or "-", wide=True),
    Column("FROM", lambda row: row["origin"], wide=True),
)


def _few(users: list[str]) -> str:
    more = f" and {len(users) - 2} more" if len(users) > 2 else ""
    return (", ".join(users[:2]) + more) or "-"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="Images of VMs: list, import, remove, verify, build.")
    app.add_typer(group, name="image")
    command(group)(ls)
    command(group)(import_)
    command(group)(rm)
    command(group)(verify)
    command(group)(build)


def ls(settings: Settings) -> None:
    """List the images of this host.

    Those without a name came with a topology.
    """
    rows(settings.daemon().get(path("images")), _COLUMNS, settings.output)


def import_(
    settings: Settings,
    source: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A disk, or a medium (ISO 9660).")
    ] = None,
    from_: Annotated[
        str,
        typer.Option("--from", metavar="[FABRIC/]VM[:DISK]", help="A disk of a VM that stands still."),
    ] = "",
    sha256: Annotated[
        str, typer.Option("--sha256", metavar="HEX", help="The SHA-256 that the file must have.")
    ] = "",
    format_: Annotated[
        str, typer.Option("--format", metavar="FORMAT", help="Found out if left out; raw for any disk.")
    ] = "",
    cloud_init: Annotated[
        bool, typer.Option("--cloud-init", help="What is in it takes a cloud-init seed.")
    ] = False,
) -> None:
    """Put a disk or a medium into the store, for any topology of this host.

    Here --name says what it is called from then on; as its file if left out.
    Disks in qcow2, raw, vdi, vmdk, vhdx and vpc are kept as qcow2. A name that is taken means the new
    image from then on; disks that are made of the old one stay so.

    With --from the image is what is on a VM's disk now, `root` or its only one if left out: a template.
    """
    if (source is None) is not bool(from_):
        raise UsageError("name a FILE, or a VM's disk with --from VM[:DISK]")
    if source is None:
        found = settings.daemon().run("POST", path("images"), _own(settings, from_), settings.report)
        _show(settings, found, f"{found['name']}: {mib(found['size_bytes'])}, of {found['origin']}")
        return
    body = {
        "path": str(Path.cwd() / source),
        "name": settings.name or "",
        "sha256": sha256,
        "format": format_,
        "cloud_init": cloud_init,
    }
    found = settings.daemon().run("POST", path("images"), body, settings.report)
    _show(settings, found, f"{found['name']}: {mib(found['size_bytes'])}, SHA-256 {found['sha256']}")


def _own(settings: Settings, origin: str) -> dict[str, Any]:
    """The request for an image of a VM's disk. --name is the image's here, not the fabric's."""
    if not settings.name:
        raise UsageError("say what the image is to be called: --name NAME")
    owner, _, disk = origin.partition(":")
    fabric, _, vm = owner.rpartition("/")
    fabric = fabric or files.meant(None, settings.file)
    return {"from": {"fabric": fabric, "vm": vm, "disk": disk}, "name": settings.name}


def _show(settings: Settings, found: dict[str, Any], text: str) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(data(found), settings.output)
    else:
        tell(text)


def rm(
    settings: Settings,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="Its name, or the begin of its ID.")] = "",
    unused: Annotated[
        bool, typer.Option("--unused", help="All that have no name and that nobody needs.")
    ] = False,
) -> None:
    """Remove an image that nobody needs."""
    if bool(image) == unused:
        raise UsageError("name an image, or say --unused")
    answer = settings.daemon().delete(path("images", "unused" if unused else image))
    removed = answer if unused else [answer]
    for each in removed:
        tell(f"{each['name'] or each['id'][:12]}: removed, {mib(each['taken_bytes'])} are free again")
    if not removed:
        tell("every image has a name, or somebody needs it")


def verify(
    settings: Settings,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="All if left out.")] = "",
) -> int:
    """Read images as a whole, and say whether they are as they were imported.

    The exit code is 1 if one is not.
    """
    answer = settings.daemon().run("POST", path("images", "verify"), {"image": image}, settings.report)
    found = answer["images"]
    fault = Column("FOUND", lambda row: row["fault"] or "as it was imported")
    rows(found, (*_COLUMNS[:3], fault), settings.output)
    return int(Exit.FAILED) if any(each["fault"] for each in found) else 0


def build(
    settings: Settings,
    image: Annotated[str, typer.Argument(metavar="IMAGE", help="micro: vnet's own guest.")],
) -> None:
    """Make one of vnet's own images anew, of the packages that Debian has now."""
    found = settings.daemon().run("POST", path("images", image, "build"), {}, settings.report)
    _show(settings, found, f"{found['name']}: {found['path']}")
