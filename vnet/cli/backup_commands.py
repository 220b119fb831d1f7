"""Commands about backups: create, ls, show, verify, restore, prune, rm, resume, discard, keygen."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.boot import UEFI_VARIABLES
from vnet.base.errors import Exit, InputError, UsageError
from vnet.cli import amount
from vnet.cli.client import Client, RemoteError, path
from vnet.cli.key_file import key_given, make_key_file
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, clock, document, mib, rows, tell

Id = Annotated[str, typer.Argument(metavar="ID", help="Name of the backup.", show_default=False)]
Ids = Annotated[list[str], typer.Argument(metavar="ID...", help="Names of backups.", show_default=False)]
Store = Annotated[
    str | None,
    typer.Option("--store", help="Folder of the backups, instead of VNET_BACKUP_DIR or the default."),
]
KeyFile = Annotated[str | None, typer.Option("--key-file", help="File with the key, mode 600.")]
Rate = Annotated[str | None, typer.Option("--rate", help="Read at most so much a second, for instance 50M.")]

_COLUMNS = (
    Column("ID", lambda row: row["id"]),
    Column("FABRIC", lambda row: row["fabric"]),
    Column("VM", lambda row: row["vm"]),
    Column("TAKEN", lambda row: clock(row["taken_at"])),
    Column("KIND", lambda row: row["kind"]),
    Column("DISKS", lambda row: ",".join(disk["name"] for disk in row["disks"])),
    Column("SIZE", lambda row: mib(sum(disk["size_bytes"] for disk in row["disks"]))),
    Column("STORED", lambda row: _stored(row["file_bytes"])),
    Column("FROZEN", lambda row: "yes" if row["freeze"]["is_frozen"] else "no"),
    Column("KEY", lambda row: "yes" if row["is_encrypted"] else "no"),
    Column("STATE", lambda row: _state(row)),
    Column("PARENT", lambda row: row["parent"] or "-", wide=True),
    Column("PATH", lambda row: row["path"], wide=True),
)
_VERIFIED = (
    Column("ID", lambda row: row["id"]),
    Column("READ", lambda row: _stored(row["read_bytes"])),
    Column("RESULT", lambda row: _result(row)),
)
_PRUNED = (
    Column("ID", lambda row: row["id"]),
    Column("VM", lambda row: row["vm"]),
    Column("STORED", lambda row: _stored(row["file_bytes"])),
    Column("KEPT", lambda row: ", ".join(row["reasons"]) or "no"),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="Backups of VMs: make, list, try, restore, thin out.")
    app.add_typer(group, name="backup")
    for each in (create, ls, show, verify, restore, prune, rm, resume, discard, keygen):
        command(group)(each)


def create(
    settings: Settings,
    vms: Annotated[list[str] | None, typer.Argument(metavar="VM...", show_default=False)] = None,
    all_: Annotated[bool, typer.Option("--all", help="All VMs of the fabric that have disks.")] = False,
    full: Annotated[bool, typer.Option("--full", help="All of it, not only what has changed.")] = False,
    chain: Annotated[
        int | None, typer.Option("--chain", min=0, help="All of it again after N increments (30).")
    ] = None,
    to: Annotated[str | None, typer.Option("--to", "--store", help="Folder that it goes to.")] = None,
    encrypt: Annotated[bool, typer.Option("--encrypt", help="Refuse to go without a key.")] = False,
    key_file: KeyFile = None,
    rate: Rate = None,
    freeze: Annotated[
        str, typer.Option("--freeze", help="auto; require: only if it can be frozen; never.")
    ] = "auto",
    tight: Annotated[bool, typer.Option("--tight", help="Also where there may be no room for it.")] = False,
) -> Exit:
    """Back VMs up, whether they run or not: all disks as they are at one moment.

    After the first one only what has changed. File systems of a VM that runs stand still for a moment.
    One that cannot be backed up is told, and keeps none of the others from it; the exit code says so.
    """
    if bool(vms) is all_:
        raise UsageError("name VMs, or --all")
    key = key_given(key_file)
    if encrypt and key is None:
        raise UsageError("--encrypt wants a key: --key-file FILE; `vnet backup keygen FILE` makes one")
    client = settings.daemon()
    longest = {} if chain is None else {"chain_max": chain}
    body = {**_common(to, key, rate), **longest, "full": full, "freeze": freeze, "tight": tight}
    wanted = vms or _with_disks(client, settings)
    made: list[Row] = []
    failed: list[Exit] = []
    for vm in wanted:
        where = path("fabrics", settings.fabric, "vms", vm, "backups")
        try:
            made.append(client.run("POST", where, body, settings.report)["backup"])
        except RemoteError as error:
            tell(f"vnet: {vm}: {error}")
            failed.append(error.exit_code)
            if error.exit_code is Exit.INTERRUPTED:
                break
    if made or len(wanted) > 1:
        rows(made, _COLUMNS, settings.output)
    return next(iter(failed), Exit.OK)


def _with_disks(client: Client, settings: Settings) -> list[str]:
    """The VMs that have disks, and those whose disks may lie where nobody can look: they are tried too."""
    fabric = None if settings.fabric == "-" else settings.fabric
    found = [row for row in client.get(path("disks"), fabric=fabric) if row["disk"] != UEFI_VARIABLES]
    unseen = {row["location"] for row in client.get(path("disk-locations")) if row["trouble"]}
    names = {row["vm"] for row in found if row["use"] != "unused"}
    if unseen:
        vms = client.get(path("vms"), fabric=fabric)
        names |= {row["vm"] for row in vms if unseen & {disk["location"] for disk in row["disks"]}}
    if not names:
        raise InputError("no VM that is up has a disk: there is nothing to back up")
    return sorted(names)


def ls(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="VM", show_default=False)] = None,
    store: Store = None,
) -> None:
    """List backups, also of VMs and fabrics that are gone; with -n those of one fabric."""
    found = settings.daemon().get(path("backups"), store=_store(store), fabric=settings.name, vm=vm)
    rows(found, _COLUMNS, settings.output)


def show(settings: Settings, id_: Id, store: Store = None) -> None:
    """All that a backup says of itself, with the topology of then."""
    form = Format.JSON if settings.output is Format.JSON else Format.YAML
    document(settings.daemon().get(path("backups", id_), store=_store(store)), form)


def verify(
    settings: Settings,
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID...]", show_default=False)] = None,
    store: Store = None,
    key_file: KeyFile = None,
) -> int:
    """Read every byte of backups (all, if none is named), and look whether it is what was written.

    What is encrypted is looked into with its key; without, only its sums are compared.
    """
    body = {**_common(store, key_given(key_file), None), "ids": ids or []}
    found = settings.daemon().run("POST", path("backups", "verify"), body, settings.report)["backups"]
    rows(found, _VERIFIED, settings.output)
    return Exit.OK if all(row["is_good"] for row in found) else Exit.FAILED


def restore(
    settings: Settings,
    id_: Id,
    to: Annotated[
        str | None,
        typer.Option("--to", metavar="VM[/DISK]", help="Another VM, which does not run, or a disk of it."),
    ] = None,
    disk: Annotated[str | None, typer.Option("--disk", help="Only this disk of the backup.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is on its disks now.")] = False,
    declare: Annotated[
        str | None,
        typer.Option(
            "--declare", metavar="NAME", help="Restore nothing; print the YAML of such a VM, named so."
        ),
    ] = None,
    same: Annotated[bool, typer.Option("--same", help="With its MACs and addresses of then.")] = False,
    store: Store = None,
    key_file: KeyFile = None,
    rate: Rate = None,
) -> None:
    """Write the disks of a VM as they were: all of each, or nothing.

    The VM is declared and does not run. Its disks are not there yet, or --overwrite.
    """
    client = settings.daemon()
    if declare is not None:
        _declare(client, id_, declare, same, store)
        return
    vm, _, onto = (to or "").partition("/")
    fabric = settings.name or ("" if not settings.file else settings.fabric)
    place = {"fabric": fabric, "vm": vm, "disk": onto, "saved": disk or "", "overwrite": overwrite}
    body = {**_common(store, key_given(key_file), rate), **place}
    done = client.run("POST", path("backups", id_, "restore"), body, settings.report)["backup"]
    if settings.output in (Format.JSON, Format.YAML):
        document(done, settings.output)
        return
    for file in done["restored"]:
        tell(f"{file}: restored")


def _declare(client: Client, id_: str, name: str, same: bool, store: str | None) -> None:
    found = client.get(path("backups", id_), store=_store(store), name=name, same="yes" if same else None)
    document(found["anew"], Format.YAML)


def prune(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="VM", show_default=False)] = None,
    keep_last: Annotated[int, typer.Option("--keep-last", min=0, help="The last N.")] = 0,
    keep_daily: Annotated[
        int, typer.Option("--keep-daily", min=0, help="The last one of each of N days.")
    ] = 0,
    keep_weekly: Annotated[int, typer.Option("--keep-weekly", min=0, help="Of each of N weeks.")] = 0,
    keep_monthly: Annotated[int, typer.Option("--keep-monthly", min=0, help="Of each of N months.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    store: Store = None,
) -> None:
    """Remove backups that no rule keeps, of each VM by itself.

    Days without a backup are not counted. What an increment that is kept needs is kept too.
    """
    keep = {"last": keep_last, "daily": keep_daily, "weekly": keep_weekly, "monthly": keep_monthly}
    body = {
        **keep,
        "store": _store(store) or "",
        "dry_run": dry_run,
        "vm": vm or "",
        "fabric": settings.name or "",
    }
    found = settings.daemon().run("POST", path("backups", "prune"), body, settings.report)["backups"]
    rows(found, _PRUNED, settings.output)


def rm(settings: Settings, ids: Ids, store: Store = None) -> None:
    """Remove backups for good; one that increments need only together with them."""
    body = {"store": _store(store) or "", "ids": ids}
    settings.daemon().run("POST", path("backups", "remove"), body, settings.report)


def resume(
    settings: Settings, id_: Id, store: Store = None, key_file: KeyFile = None, rate: Rate = None
) -> None:
    """Finish a backup that was broken off because the daemon died.

    QEMU has gone on with it, and its moment is that of then. If its VM has ended since, a new one is made.
    """
    body = _common(store, key_given(key_file), rate)
    done = settings.daemon().run("POST", path("backups", id_, "resume"), body, settings.report)["backup"]
    rows([done], _COLUMNS, settings.output)


def discard(settings: Settings, id_: Id, store: Store = None) -> None:
    """Remove a backup that was broken off, and what QEMU still does for it."""
    settings.daemon().post(path("backups", id_, "discard"), {"store": _store(store) or ""})
    tell(f"{id_}: removed")


def keygen(
    settings: Settings, target: Annotated[str, typer.Argument(metavar="FILE", show_default=False)]
) -> None:
    """Make a key for backups, in a new file that only its owner reads.

    Keep a copy where the backups are not: without it nobody reads them.
    """
    make_key_file(Path(target))
    tell(f"{target}: made; keep a copy of it where the backups are not")


def _common(store: str | None, key: bytes | None, rate: str | None) -> dict[str, Any]:
    rate_bytes = amount.size_bytes(rate, "--rate") if rate else 0
    secret = {} if key is None else {"key": b64encode(key).decode()}
    return {"store": _store(store) or "", "rate_bytes": rate_bytes, **secret}


def _store(given: str | None) -> str | None:
    """The folder, as a path that means the same to the daemon; None for its own default."""
    named = given or os.environ.get("VNET_BACKUP_DIR")
    return None if not named else os.path.abspath(named)  # noqa: PTH100 (links are the daemon's to follow)


def _stored(size: int) -> str:
    return mib(size) if size >= 10 << 20 else f"{-(-size // 1024)}K"


def _state(row: Mapping[str, Any]) -> str:
    return f"running {row['percent']}%" if row["state"] == "running" else str(row["state"])


def _result(row: Mapping[str, Any]) -> str:
    if row["troubles"]:
        return "; ".join(row["troubles"])
    return "good" if row["looked_into"] else "good, not looked into without its key"
