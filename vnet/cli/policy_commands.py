"""`vnet policy`: what the policies of a topology file mean, without a daemon or root; their log."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base.errors import InputError, UsageError
from vnet.cli import files, picture_files
from vnet.cli.client import path
from vnet.cli.log_text import in_words
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, colour_wanted, document, emit, emit_lines, rows, tell
from vnet.cli.picture_commands import Drawn, loaded
from vnet.cli.picture_files import MatrixFormat
from vnet.cli.records import Follow, Since, Until, print_records, span
from vnet.cli.suggest_command import suggest

if TYPE_CHECKING:
    from vnet.picture.heat import Heat
    from vnet.policy.compile import Compiled
    from vnet.policy.decisions import Decision
    from vnet.topology.inventory import Inventory
    from vnet.topology.model import Service, Topology

_RULES = (
    Column("DIRECTION", lambda row: row["direction"]),
    Column("TIER", lambda row: row["tier"]),
    Column("POLICY", lambda row: row["policy"]),
    Column("RULE", lambda row: str(row["rule"])),
    Column("ACTION", lambda row: row["action"]),
    Column("PEERS", lambda row: ", ".join(row["peers"])),
    Column("PORTS", lambda row: ", ".join(row["ports"]) or "any"),
    Column("AT", lambda row: row["at"]),
    Column("NOTE", lambda row: row["note"] or "-"),
)
_COUNTED = (
    *_RULES[:-1],
    Column("PACKETS", lambda row: "-" if row["packets"] is None else str(row["packets"])),
    Column("SINCE", lambda row: row["since"] or "-"),
    _RULES[-1],
)
_DECISIONS = (
    Column("FROM", lambda row: row["from"]),
    Column("TO", lambda row: row["to"]),
    Column("PORTS", lambda row: row["ports"]),
    Column("DECIDED", lambda row: row["decided_by"]),
)
_PAIRS = (
    Column("FROM", lambda row: row["from"]),
    Column("TO", lambda row: row["to"]),
    Column("PORTS", lambda row: row["ports"]),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    group = typer.Typer(help="What the policies of a topology file mean.", no_args_is_help=True)
    command(group)(show)
    command(group)(explain)
    command(group)(matrix)
    command(group)(log)
    command(group)(suggest)
    app.add_typer(group, name="policy")


def show(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="VM", help="Only the rules that apply to it.")] = None,
    hits: Annotated[
        bool, typer.Option("--hits", help="Of a fabric that is up: what each rule has decided.")
    ] = False,
) -> None:
    """Print the rules in the order in which they are asked.

    A rule that never decides, or that changes nothing, is told with a packet that shows it.
    """
    found = _in_force(settings, vm) if hits else _written(settings, vm)
    rows(found, _COUNTED if hits else _RULES, settings.output)
    examples = [row for row in found if row["example"]]
    if examples and settings.output in (Format.TABLE, Format.WIDE):
        emit("")
        emit_lines(f"{row['policy']} {row['direction']} {row['rule']}: {row['example']}" for row in examples)


def _written(settings: Settings, vm: str | None) -> Sequence[Row]:
    """The rules of the file."""
    from vnet.policy.listing import ruling

    topology, inventory, compiled = _loaded(settings)
    return ruling(topology, inventory, compiled, vm)


def _in_force(settings: Settings, vm: str | None) -> Sequence[Row]:
    """The rules of the fabric, with what its switch has counted."""
    found: Sequence[Row] = settings.daemon().get(path("fabrics", settings.fabric, "rules"), vm=vm)
    return found


def explain(
    settings: Settings,
    source: Annotated[str, typer.Argument(metavar="FROM", help="A VM, group, network or CIDR.")],
    target: Annotated[str, typer.Argument(metavar="TO", help="The same.")],
    ports: Annotated[
        str | None, typer.Argument(metavar="PORT", help="443/tcp, icmp, a service; all of them if left out.")
    ] = None,
) -> None:
    """Tell what becomes of a connection, by which rule, and what nearly allowed it.

    Without PORT, tell all that rules make of connections between the two.
    """
    from vnet.policy.decisions import decisions
    from vnet.policy.explain import explain as explained
    from vnet.policy.explain import peer_named

    topology, inventory, compiled = _loaded(settings)
    client, server = (peer_named(topology, inventory, name) for name in (source, target))
    if ports is None:
        found = decisions(topology, inventory, compiled, client, server)
        if not found:
            raise UsageError(f"{source} and {target} share no network; give a PORT to see what stops them")
        rows([_decision(each) for each in found], _DECISIONS, settings.output)
        return
    answers = explained(topology, inventory, client, server, _service(ports))
    if not answers:
        raise UsageError(f"{source} and {target} have no addresses of one family that could meet")
    if settings.output in (Format.JSON, Format.YAML):
        document([answer.plain() for answer in answers], settings.output)
    else:
        emit_lines(map(str, answers))


def _decision(one: Decision) -> Row:
    return {
        "from": one.source,
        "to": one.target,
        "ports": one.ports,
        "allowed": one.allowed,
        "decided_by": one.by,
        "at": str(one.origin.at),
    }


def matrix(
    settings: Settings,
    every: Annotated[
        bool, typer.Option("--all", help="A list, also of pairs that nothing is open between.")
    ] = False,
    form: Annotated[
        MatrixFormat | None, typer.Option("--format", help="Default: by the file's name, else text.")
    ] = None,
    write: Annotated[str | None, typer.Option("-w", "--write", help="File; - is standard output.")] = None,
    expand: Annotated[
        bool, typer.Option("--expand", help="Every VM; else, above 30, those alike share a row.")
    ] = False,
) -> None:
    """Show who may open which connections to whom.

    Worked out exactly on the flows. As a heat map; with -o json, yaml or wide, or --all, as a list.
    Of a topology file, or with -n of a fabric that is up.
    """
    drawn = loaded(settings)
    chosen = picture_files.form_of(form, write, MatrixFormat, MatrixFormat.TEXT)
    if form is None and write is None and (every or settings.output is not Format.TABLE):
        _pairs(settings, drawn, every)
        return
    from vnet.picture.heat import heat

    found = heat(drawn.topology, drawn.inventory, drawn.compiled, expand or chosen is MatrixFormat.CSV)
    picture_files.put(write, picture_files.matrix(found, chosen, lambda heat: _in_terminal(heat, write)))


def _in_terminal(heat: Heat, write: str | None) -> str:
    """Coloured only on a terminal, as wide as it is; in what it can write."""
    from shutil import get_terminal_size

    from vnet.picture.heat_text import ASCII, MARKS, rendered

    is_file = write not in (None, "-")
    is_plain = not is_file and (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
    colour = not is_file and colour_wanted(sys.stdout)
    width = get_terminal_size((120, 24)).columns
    lines = rendered(heat, width, colour, ASCII if is_plain else MARKS)
    return "".join(f"{line}\n" for line in lines)


def _pairs(settings: Settings, drawn: Drawn, every: bool) -> None:
    from vnet.policy.reach import reach

    pairs: list[Row] = [
        {"from": pair.source, "to": pair.target, "network": pair.network, "ports": pair.ports}
        for pair in reach(drawn.topology, drawn.inventory, drawn.compiled)
        if every or pair.ports != "-"
    ]
    rows(pairs, _PAIRS, settings.output)
    if not pairs and settings.output in (Format.TABLE, Format.WIDE):
        tell("nothing is open between any two VMs; --all lists the pairs")


def log(
    settings: Settings,
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
) -> None:
    """Print what rules with `log: true` decided: new connections they allowed, packets they refused."""
    query = {**span(since, until), "follow": "1" if follow else None}
    client = settings.daemon()
    if follow:
        client.timeout_s = None
    stream = client.read(path("fabrics", settings.fabric, "policy", "log"), **query)
    try:
        print_records(stream, settings.output, in_words)
    finally:
        stream.close()


def _service(text: str) -> Service:
    from vnet.topology.selectors import service_of

    try:
        return service_of(text)
    except InputError as error:
        raise UsageError(str(error)) from None


def _loaded(settings: Settings) -> tuple[Topology, Inventory, Compiled]:
    from vnet.policy.compile import compile
    from vnet.topology.expiry import in_force
    from vnet.topology.inventory import expand
    from vnet.topology.load import load_text

    given = files.read(settings.file)
    whole = load_text(given.text, given.file, dict(os.environ), given.included)
    topology = in_force(whole, datetime.now(UTC))
    inventory = expand(topology, {})
    return topology, inventory, compile(topology, inventory)
