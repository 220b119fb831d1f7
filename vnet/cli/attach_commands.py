"""`vnet attach` and `vnet detach`: a NIC or a disk for a VM that is up, by hand."""

from __future__ import annotations

from typing import Annotated

import typer

from vnet.base.errors import UsageError
from vnet.cli.client import data, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, tell

Vm = Annotated[str, typer.Argument(metavar="VM", help="As declared, for instance web.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(attach)
    command(app)(detach)


_ATTACHED, _DETACHED = "NETWORK|DISK:SIZE[:LOCATION]", "NETWORK|NIC|DISK"


def attach(
    settings: Settings,
    vm: Vm,
    what: Annotated[
        str,
        typer.Argument(
            metavar=_ATTACHED,
            help="Such as lan, data:10G, data:10G:fast.",
            show_default=False,
        ),
    ],
) -> None:
    """Give a VM a NIC in a network, or a disk, while it runs.

    The file is not changed: `vnet plan` shows what its next `up` would take away again.
    """
    _change(settings, vm, what, "attach", _ATTACHED)


def detach(
    settings: Settings,
    vm: Vm,
    what: Annotated[
        str,
        typer.Argument(metavar=_DETACHED, help="Such as lan, eth1, data.", show_default=False),
    ],
) -> None:
    """Take a NIC or a disk from a VM while it runs.

    What is on the disk is kept. The file is not changed.
    """
    _change(settings, vm, what, "detach", _DETACHED)


def _change(settings: Settings, vm: str, what: str, verb: str, form: str) -> None:
    if not what:
        raise UsageError(f"what? vnet {verb} {vm} {form}")
    url = path("fabrics", settings.fabric, "vms", vm, verb)
    outcome = data(settings.daemon().run("POST", url, {"what": what}, settings.report))
    if settings.output in (Format.JSON, Format.YAML):
        document(outcome, settings.output)
    elif not settings.quiet:
        edit = outcome["edit"]
        tell(f"{outcome['fabric']}: generation {outcome['generation']}, which {edit['file']} does not say:")
        tell(edit["patch"].rstrip("\n"))
