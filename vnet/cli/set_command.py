"""`vnet set`: what of a running VM is set by hand, and is not declared."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.vm_commands import Vm


class What(StrEnum):
    """What can be set."""

    LINK = "link"


class Link(StrEnum):
    """How a cable can be."""

    UP = "up"
    DOWN = "down"


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(set_)


def set_(
    settings: Settings,
    vm: Vm,
    what: Annotated[What, typer.Argument(metavar="link", help="The cable of a NIC.", show_default=False)],
    nic: Annotated[str, typer.Argument(metavar="NIC", help="Such as eth0.", show_default=False)],
    state: Annotated[Link, typer.Argument(metavar="up|down", help="In, or pulled.", show_default=False)],
) -> None:
    """Pull the cable of a NIC of a running VM, or plug it in again.

    Not part of the file, so no plan changes it; a new start of the VM plugs all in.
    """
    url = path("fabrics", settings.fabric, "vms", vm, "nics", nic, what.value)
    settings.daemon().run("POST", url, {"up": state is Link.UP}, settings.report)
