"""Commands that look at what the switch does: verify, flows."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from vnet.base.errors import Exit
from vnet.cli.client import Json, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, rows, tell

_CLAIMS = (
    Column("CLAIM", lambda row: row["claim"]),
    Column("AT", lambda row: row["at"]),
    Column("RULES", lambda row: "holds" if row["holds"] else "FAILS"),
    Column("PROBES", lambda row: _probed(row)),
    Column("WHY", lambda row: row["why"] or "-"),
)
_FLOWS = (
    Column("TABLE", lambda row: row["table"]),
    Column("PRIORITY", lambda row: str(row["priority"])),
    Column("MATCH", lambda row: row["match"]),
    Column("ACTIONS", lambda row: row["actions"]),
    Column("FROM", lambda row: row["from"]),
    Column("COOKIE", lambda row: row["cookie"], wide=True),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(verify)
    command(app)(flows)


def verify(
    settings: Settings,
    probe: Annotated[
        bool, typer.Option("--probe", help="Try each claim with packets from inside the VMs.")
    ] = False,
) -> int:
    """Check the topology's claims on the flows in the switch.

    Exit code 4 when one fails.
    """
    url = path("fabrics", settings.fabric, "verify")
    answer = settings.daemon().run("POST", url, {"probe": probe}, settings.report)
    rows(answer["claims"], _CLAIMS, settings.output)
    failed = [row for row in answer["claims"] if not row["passed"]]
    if settings.output in (Format.TABLE, Format.WIDE):
        _tell_disagreements(failed)
        _tell_untried(answer["claims"])
        tell(f"{len(answer['claims']) - len(failed)} of {len(answer['claims'])} claims hold")
    return Exit.CLAIM_FAILED if failed else Exit.OK


def _probed(row: Row) -> str:
    """`3 of 3 as claimed`, or `-` when nothing was to be tried; what could not be is told below."""
    tried = row["probes"]
    if not tried:
        return "not tried" if row["untried"] else "-"
    left_out = ", others not tried" if row["untried"] else ""
    return f"{sum(probe['passed'] for probe in tried)} of {len(tried)} as claimed{left_out}"


def _tell_disagreements(failed: list[Json]) -> None:
    for row in failed:
        for probe in row["probes"]:
            if not probe["passed"]:
                outcome = f"expected {probe['expected']}, got {probe['got']}"
                tell(f"{row['at']}: {row['claim']}: {probe['what']}: {outcome}")


def _tell_untried(claims: list[Json]) -> None:
    for row in claims:
        if row["untried"]:
            tell(f"{row['at']}: {row['claim']}: {row['untried']}")


def flows(
    settings: Settings,
    ovs: Annotated[bool, typer.Option("--ovs", help="As `ovs-ofctl dump-flows` prints them.")] = False,
) -> None:
    """Print the flows of the switch, each with its line."""
    answer = settings.daemon().get(path("fabrics", settings.fabric, "flows"))
    if ovs:
        for row in answer:
            sys.stdout.write(row["ovs"] + "\n")
        return
    rows(answer, _FLOWS, settings.output)
