"""`vnet drill`: attacks from a copy of a VM's NIC, and what became of each."""

from __future__ import annotations

from typing import Annotated

import typer

from vnet.base.errors import Exit, UsageError
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, rows, tell
from vnet.drill.groups import CONTROL, GROUPS

_ATTACKS = (
    Column("NIC", lambda row: row["nic"]),
    Column("GROUP", lambda row: row["group"]),
    Column("ATTACK", lambda row: row["attack"]),
    Column("SENT", lambda row: str(row["sent"] or "-")),
    Column("OUTCOME", lambda row: row["outcome"]),
    Column("REASON", lambda row: _reasons(row)),
    Column("BY", lambda row: row["by"] or "-"),
    Column("ARRIVED", lambda row: _counted(row["arrived"]), wide=True),
    Column("SOURCE", lambda row: row["source"] or "-", wide=True),
)


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(drill)


def drill(
    settings: Settings,
    nic: Annotated[str, typer.Argument(metavar="VM[.NIC]")],
    only: Annotated[
        list[str] | None,
        typer.Option("--only", metavar="GROUP", help=f"Of {', '.join(GROUPS)}; may be repeated."),
    ] = None,
) -> int:
    """Attack from a copy of a VM's NIC: nothing may get through.

    The copy has the rules in force and stands beside the fabric: no guest gets a frame of it.
    Exit code 4 when something got through.
    """
    for group in only or ():
        if group not in GROUPS:
            raise UsageError(f"there is no group {group}; groups of attacks: {', '.join(GROUPS)}")
    url = path("fabrics", settings.fabric, "drill")
    answer = settings.daemon().run("POST", url, {"nic": nic, "only": only or []}, settings.report)
    rows(answer["attacks"], _ATTACKS, settings.output)
    if settings.output in (Format.TABLE, Format.WIDE):
        tell(summary(answer["attacks"]))
    return _exit_code(answer["attacks"])


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{what} {count}" for what, count in counts.items()) or "-"


def _reasons(row: Row) -> str:
    """One reason by its name, several with how often."""
    reasons = row["reasons"]
    return next(iter(reasons)) if len(reasons) == 1 else _counted(reasons)


def _count(attacks: list[Row], outcome: str) -> int:
    return sum(row["outcome"] == outcome for row in attacks)


def summary(attacks: list[Row]) -> str:
    """How many were stopped, and whether that says anything."""
    arrived, lost = _count(attacks, "arrived"), _count(attacks, "lost")
    stopped, through, untried = (_count(attacks, each) for each in ("stopped", "got through", "not tried"))
    text = f"{stopped + through} attacks, {stopped} stopped, {through} got through"
    if untried:
        text += f"; {untried} more not tried"
    text += f"; {arrived} of {arrived + lost} controls arrived"
    if lost:
        text += ": what honest packets cannot do either proves nothing"
    return text


def _exit_code(attacks: list[Row]) -> Exit:
    if _count(attacks, "got through"):
        return Exit.CLAIM_FAILED
    alive = {row["nic"] for row in attacks if row["outcome"] == "arrived"}
    drilled = {row["nic"] for row in attacks if row["group"] != CONTROL}
    return Exit.FAILED if _count(attacks, "lost") or drilled - alive else Exit.OK
