"""`vnet import`: what others declare as a topology file, without a daemon and without root."""

from __future__ import annotations

from ipaddress import ip_network
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.errors import UsageError
from vnet.cli import files, foreign_commands
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, tell

if TYPE_CHECKING:
    from vnet.topology.model import IPNetwork


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="Topologies and disks of what others have.", no_args_is_help=True)
    command(group)(kubernetes)
    foreign_commands.add(group)
    app.add_typer(group, name="import")


def kubernetes(
    settings: Settings,
    manifests: Annotated[
        list[str], typer.Argument(metavar="FILE...", help="Manifests in YAML or JSON; - is standard input.")
    ],
    subnet: Annotated[
        list[str] | None,
        typer.Option("--subnet", metavar="CIDR", help="Addresses of the pods; one for each family."),
    ] = None,
) -> None:
    """Print the topology that NetworkPolicies, Namespaces and Pods stand for.

    `kubectl get networkpolicies,namespaces,pods -A -o yaml` prints all of them. -n gives its name.
    """
    import yaml

    from vnet.topology.kubernetes.convert import SUBNETS, imported
    from vnet.topology.load import load_text

    if settings.file:
        raise UsageError(f"-f {settings.file[0]}: manifests are given without -f")
    name = foreign_commands.name(settings) or "kubernetes"
    subnets = tuple(map(_subnet, subnet or ())) or SUBNETS
    texts = {("(stdin)" if file == "-" else file): files.text_of(file) for file in dict.fromkeys(manifests)}
    found = imported(texts, name, subnets)
    load_text(yaml.safe_dump(found, sort_keys=False), "(result)", {})  # what the subnets have no room for
    document(found, Format.JSON if settings.output is Format.JSON else Format.YAML)
    if found.get("x-left-out") and not settings.quiet:
        tell(f"left out: {len(found['x-left-out'])} pods, see x-left-out")


def _subnet(word: str) -> IPNetwork:
    try:
        return ip_network(word)
    except ValueError as error:
        raise UsageError(f"--subnet {word}: {error}") from None
