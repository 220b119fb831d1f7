"""`vnet clone`: another VM like one there is, with a copy of its disks."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.errors import InputError
from vnet.cli.client import on_ctrl_c, path
from vnet.cli.file_edits import source_and_name, write_texts
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, tell

if TYPE_CHECKING:
    from vnet.fabric.store import Source
    from vnet.topology.model import Topology


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(clone)


def clone(
    settings: Settings,
    vm: Annotated[str, typer.Argument(metavar="VM", help="The VM to copy; it must stand still.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="What the copy is called.")],
    linked: Annotated[
        bool, typer.Option("--linked", help="Disks become differences to a base that clones share.")
    ] = False,
) -> None:
    """Copy a VM: its declaration in the file, and its disks.

    Its disks are copied as a whole, or with --linked made differences to what is on them now, which all
    linked clones of an unchanged VM share.
    Addresses, MAC and published ports are not copied: the new VM gets its own. `vnet up` starts it.
    """
    source, name = source_and_name(settings)
    texts, disks = _declared(source, vm, new)
    body = {"name": new, "linked": linked, "disks": disks}
    with on_ctrl_c(lambda: None):  # it breaks off the copying; what has been copied is declared
        answer = settings.daemon().run(
            "POST", path("fabrics", name, "vms", vm, "clone"), body, settings.report
        )
        write_texts(texts)
    if settings.output in (Format.JSON, Format.YAML):
        document({**answer, "file": next(iter(texts))}, settings.output)
    else:
        whole = [each for each in answer["disks"] if each not in answer["linked"]]
        if linked and whole:
            tell(f"copied as a whole, being raw, encrypted or preallocated: {', '.join(whole)}")
        tell(f"{new} is declared in {next(iter(texts))}; `vnet up` starts it")


def _declared(source: Source, vm: str, new: str) -> tuple[dict[str, str], list[str]]:
    """The one file that changes, and the disks that it declares for both VMs.

    The result is read again: nothing else may have become another.
    """
    from vnet.fabric.declared import load
    from vnet.topology.edit import CannotEdit
    from vnet.topology.edit_vms import with_vm

    before = load(source)
    key = _key(before, vm)
    if new in before.vms:
        raise InputError(f"there is a VM {new} in {source.file} already; take another name")
    file = before.vms[key].at.file
    try:
        changed = with_vm(source.text if file == source.file else source.included[file], key, new)
    except CannotEdit as error:
        raise InputError(
            f"{file} cannot be changed for a copy of {vm}: {error}. Declare {new} there"
        ) from error
    parts = {"text": changed} if file == source.file else {"included": {**source.included, file: changed}}
    after = load(replace(source, **parts))
    if after.vms.keys() != before.vms.keys() | {new}:
        raise InputError(f"{file} cannot be changed for a copy of {vm}: declare {new} there")
    return {file: changed}, [disk.name for disk in before.vms[key].disks]


def _key(topology: Topology, vm: str) -> str:
    """By which a VM is declared: web-2 may be one of the replicas of web."""
    if vm in topology.vms:
        return vm
    key, _, number = vm.rpartition("-")
    if key in topology.vms and topology.vms[key].replicas and number.isdecimal():
        return key
    raise InputError(f"there is no VM {vm} in the topology; it has {', '.join(sorted(topology.vms))}")
