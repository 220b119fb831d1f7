"""Commands about snapshots of VMs: save, ls, tree, restore, rm, prune; and suspend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated

import typer

from vnet.base.errors import Exit, UsageError
from vnet.cli.client import data, path
from vnet.cli.duration import seconds
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, age, clock, document, emit, mib, rows, tell
from vnet.cli.records import printable
from vnet.cli.vm_commands import Vm

Words = Annotated[
    list[str],
    typer.Argument(metavar="[VM...] NAME", help="VMs, then the snapshot's name.", show_default=False),
]
All = Annotated[bool, typer.Option("--all", help="All VMs.")]
MaybeVm = Annotated[
    str | None, typer.Argument(metavar="[VM]", help="Only those of one VM.", show_default=False)
]


def _shown(row: Row) -> str:
    return str(row["snapshot"]) + (" *" if row["current"] else "")


_COLUMNS = (
    Column("FABRIC", lambda row: row["fabric"]),
    Column("VM", lambda row: row["vm"]),
    Column("SNAPSHOT", _shown),
    Column("AGE", lambda row: age(row["age_s"]) + ("!" if row["old"] else "")),
    Column("KEPT", lambda row: _kept(row)),
    Column("TAKEN", lambda row: mib(row["memory_bytes"]) if row["memory_bytes"] else "-"),
    Column("PAUSE", lambda row: f"{row['pause_s'] * 1000:.0f}ms" if row["pause_s"] else "-", wide=True),
    Column("PARENT", lambda row: row["parent"] or "-"),
    Column("CREATED", lambda row: clock(row["created"]), wide=True),
    Column("ID", lambda row: row["id"], wide=True),
    Column("TOGETHER WITH", lambda row: ",".join(row["together_with"]) or "-", wide=True),
    Column("DESCRIPTION", lambda row: printable(row["description"])),
)


def _kept(row: Row) -> str:
    disks = len(row["disks"])
    if row["consistency"] == "memory":
        return "memory" + (f", {disks} disk{'s' * (disks > 1)}" if disks else "")
    return f"{disks} disk{'s' * (disks > 1)} ({row['consistency']})"


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(no_args_is_help=True, help="Snapshots of VMs: save, list, restore, remove.")
    app.add_typer(group, name="snapshot")
    command(group, "create")(save)
    command(group, "list")(ls)
    command(group)(tree)
    command(group, "rollback", "revert")(restore)
    command(group, "delete")(rm)
    command(group)(prune)
    command(app)(suspend)


def save(
    settings: Settings,
    words: Words,
    all_: All = False,
    disk_only: Annotated[bool, typer.Option("--disk-only", help="Without memory.")] = False,
    description: Annotated[str, typer.Option("--description", "-d", help="What it is for.")] = "",
) -> None:
    """Keep VMs as they are now: their disks, and the memory of those that run.

    Several VMs are kept as they are at one moment. They run on meanwhile, and stand still at the end for as
    long as is told.
    """
    vms, name = _meant(words, all_)
    body = {"vms": vms, "name": name, "memory": not disk_only, "description": description}
    answer = settings.daemon().run(
        "POST", path("fabrics", settings.fabric, "snapshots"), body, settings.report
    )
    made = answer["snapshots"]
    if settings.output in (Format.JSON, Format.YAML):
        document(made, settings.output)
    elif not settings.quiet:
        for row in made:
            stood = f"; it stood still for {row['pause_s'] * 1000:.0f} ms" if row["pause_s"] else ""
            takes = f", {mib(row['memory_bytes'])}" if row["memory_bytes"] else ""
            tell(f"{row['vm']}: {_kept(row)}{takes}{stood}")
    for vm in answer["left_out"]:
        tell(f"{vm}: suspended: has been kept so, and is not in {name}")


def ls(settings: Settings, vm: MaybeVm = None) -> None:
    """List snapshots of all fabrics, also of those that are down; with -n those of one.

    `*` is the one that the VM's state descends from, `!` is older than 30 days.
    """
    found = settings.daemon().get(path("snapshots"), fabric=settings.name, vm=vm)
    rows(found, _COLUMNS, settings.output)
    if settings.output in (Format.TABLE, Format.WIDE):
        _tell_old(found)


def _tell_old(found: Iterable[Row]) -> None:
    old = [row for row in found if row["old"]]
    if old:
        tell(
            f"{len(old)} older than 30 days: a disk keeps all that was overwritten since;"
            " `vnet snapshot prune --older-than 30d`"
        )


def tree(settings: Settings, vm: MaybeVm = None) -> None:
    """Show which snapshot descends from which; `*` is the one that the VM's state descends from."""
    found = settings.daemon().get(path("snapshots"), fabric=settings.name, vm=vm)
    if settings.output in (Format.JSON, Format.YAML):
        document(found, settings.output)
        return
    families: dict[tuple[str, str], list[Row]] = {}
    for row in found:
        families.setdefault((row["fabric"], row["vm"]), []).append(row)
    for (fabric, name), family in families.items():
        emit(f"{name} ({fabric})")
        for line in branches(family, "", ""):
            emit(line)


def branches(family: Sequence[Row], parent: str, indent: str) -> Iterator[str]:
    """The snapshots of one VM that descend from one of them, line by line."""
    children = [row for row in family if row["parent"] == parent]
    for number, row in enumerate(children, 1):
        is_last = number == len(children)
        text = f"  {printable(row['description'])}" if row["description"] else ""
        yield f"{indent}{'└─' if is_last else '├─'} {_shown(row)}  {age(row['age_s'])}, {_kept(row)}{text}"
        yield from branches(family, row["snapshot"], indent + ("   " if is_last else "│  "))


def restore(
    settings: Settings,
    words: Words,
    all_: All = False,
    disk_only: Annotated[
        bool, typer.Option("--disk-only", help="The disks alone; VMs that run boot from them.")
    ] = False,
) -> None:
    """Make VMs what they were in a snapshot. What they are now is lost.

    Where their memory was kept they go on from there, several at one moment; otherwise those that run boot.
    """
    vms, name = _meant(words, all_)
    body = {"vms": vms, "memory": False if disk_only else None}
    where = path("fabrics", settings.fabric, "snapshots", name, "restore")
    answer = data(settings.daemon().run("POST", where, body, settings.report))
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
    elif not settings.quiet:
        how = "go on from there" if answer["memory"] else "their disks are what they were"
        tell(f"{', '.join(answer['vms'])}: {how}")
    for vm in answer["memory_lost"]:
        tell(f"{vm}: was suspended, and the memory that was kept is lost")


def rm(settings: Settings, words: Words, all_: All = False) -> None:
    """Remove a snapshot of VMs; those that descend from it stay."""
    vms, name = _meant(words, all_)
    query = "&".join(f"vm={vm}" for vm in vms)
    where = path("fabrics", settings.fabric, "snapshots", name) + (f"?{query}" if query else "")
    removed = settings.daemon().delete(where)
    if not settings.quiet:
        tell(f"{removed['snapshot']} of {', '.join(removed['vms'])}: removed")


def prune(
    settings: Settings,
    vms: Annotated[
        list[str] | None, typer.Argument(metavar="[VM...]", help="Only those of these.", show_default=False)
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option("--keep-last", min=0, metavar="N", help="The newest N of each VM stay.")
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="AGE", help="Only what is older goes: 12h, 30d.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would be removed.")] = False,
) -> Exit:
    """Remove snapshots that are no longer wanted, and list them.

    With both options what is older goes, but never one of the newest N. One that cannot be removed is told,
    the others are; the exit code is 1 then.
    """
    if keep_last is None and older_than is None:
        raise UsageError("which? give --keep-last N, --older-than 30d, or both")
    body = {
        "vms": vms or [],
        "keep_last": keep_last,
        "older_than_s": seconds(older_than, "--older-than") if older_than else None,
        "dry_run": dry_run,
    }
    found = settings.daemon().post(path("fabrics", settings.fabric, "snapshots", "prune"), body)
    left = [row for row in found if row["fault"]]
    gone = [row for row in found if not row["fault"]]
    is_table = settings.output in (Format.TABLE, Format.WIDE)
    rows(gone if is_table else found, _COLUMNS, settings.output)
    if is_table and not settings.quiet:
        tell(f"{len(gone)} {'would be' if dry_run else 'were'} removed")
    for row in left:
        tell(f"vnet: {row['snapshot']} of {row['vm']} could not be removed: {row['fault']}")
    return Exit.FAILED if left else Exit.OK


def suspend(settings: Settings, vm: Vm) -> None:
    """Write a VM's memory to a file and end it.

    `vnet start` or `vnet resume` brings it back where it was, also after the host was booted.
    """
    where = path("fabrics", settings.fabric, "vms", vm, "suspend")
    answer = settings.daemon().run("POST", where, {}, settings.report)
    if not settings.quiet:
        tell(f"{vm}: suspended, its memory takes {mib(answer['memory_bytes'])}; `vnet start {vm}`")


def _meant(words: Sequence[str], all_: bool) -> tuple[list[str], str]:
    """The VMs, none for all of them, and the snapshot's name."""
    *vms, name = words
    if all_ and vms:
        raise UsageError(f"--all means all VMs: leave {', '.join(vms)} out")
    if not all_ and not vms:
        raise UsageError(f"of which VMs? name them before {name}, or say --all")
    return vms, name
