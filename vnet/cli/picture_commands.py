"""`vnet graph`: a picture of a topology file, or of a fabric that is up."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnet.base.errors import UsageError
from vnet.cli import files, picture_files
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.picture_files import GraphFormat
from vnet.picture.views import GroupBy, View

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vnet.picture.scene import Scene, State
    from vnet.policy.compile import Compiled
    from vnet.topology.inventory import Assignment, Inventory
    from vnet.topology.model import Topology


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(graph)


@dataclass(frozen=True, slots=True)
class Drawn:
    """What is drawn; `states` are those of a fabric that is up, by VM, None for a mere file."""

    topology: Topology
    inventory: Inventory
    compiled: Compiled
    states: Mapping[str, State] | None


def graph(
    settings: Settings,
    form: Annotated[
        GraphFormat | None, typer.Option("--format", help="Default: by the file's name, else svg.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("-w", "--write", help="File; - is standard output, as without it.")
    ] = None,
    view: Annotated[View, typer.Option("--view", help="What to show.")] = View.BOTH,
    group_by: Annotated[
        GroupBy | None, typer.Option("--group-by", help="Which VMs stand together; default: what suits.")
    ] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Every VM; else, above 30, those alike are drawn as one.")
    ] = False,
) -> None:
    """Draw networks, VMs and who may open connections to whom.

    Of a topology file, or with -n of a fabric that is up, with the states of its VMs.
    """
    chosen = picture_files.form_of(form, write, GraphFormat, GraphFormat.SVG)
    scene = _scene(settings, view, group_by, expand)
    picture_files.put(write, picture_files.graph(scene, chosen))


def _scene(settings: Settings, view: View, group_by: GroupBy | None, expand: bool) -> Scene:
    from vnet.picture import scene

    drawn = loaded(settings)
    wanted = scene.Wanted(view, group_by, expand)
    return scene.scene(drawn.topology, drawn.inventory, drawn.compiled, wanted, drawn.states)


def loaded(settings: Settings) -> Drawn:
    """The topology file meant; with -n the fabric that is up, as it is now."""
    if settings.name is None:
        given = files.read(settings.file)
        return _drawn(given.file, given.text, dict(os.environ), given.included, {}, None)
    if settings.file:
        raise UsageError("-f draws a file, -n a fabric that is up: give one of them")
    return _of_fabric(settings.daemon().get(path("fabrics", settings.fabric, "picture")))


def _of_fabric(answer: Mapping[str, Any]) -> Drawn:
    from ipaddress import ip_interface

    from vnet.picture.scene import State
    from vnet.topology.inventory import Assignment

    given = {
        nic: Assignment(each["port"], each["mac"], tuple(map(ip_interface, each["addresses"])))
        for nic, each in answer["assignments"].items()
    }
    states = {vm: State(state) for vm, state in answer["states"].items()}
    source = answer["source"]
    return _drawn(source["file"], source["text"], source["env"], source["included"], given, states)


def _drawn(
    file: str,
    text: str,
    env: Mapping[str, str],
    included: Mapping[str, str],
    assignments: Mapping[str, Assignment],
    states: Mapping[str, State] | None,
) -> Drawn:
    from vnet.policy.compile import compile
    from vnet.topology.expiry import in_force
    from vnet.topology.inventory import expand
    from vnet.topology.load import load_text

    topology = in_force(load_text(text, file, env, included), datetime.now(UTC))
    inventory = expand(topology, assignments)
    return Drawn(topology, inventory, compile(topology, inventory), states)
