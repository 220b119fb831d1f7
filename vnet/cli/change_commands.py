"""Commands that change a fabric to what its file says: plan, up, confirm, rollback."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from vnet.base.errors import Exit, HostError, PeerError, UsageError
from vnet.cli import duration, files, plan_text
from vnet.cli.client import Json, RemoteError, data, path, remote_error
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, colour_wanted, document, emit_lines, tell
from vnet.cli.progress import Style

Replay = Annotated[
    str,
    typer.Option(
        "--replay", metavar="TIME|FILE|none", help="Which recorded flows to try: the latest 24h, or a file's."
    ),
]
POLL_S = 1.0
"""How often `up --wait` looks whether the change has been confirmed."""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app, "diff")(plan)
    command(app, "apply", "deploy")(up)
    command(app)(confirm)
    command(app)(rollback)


def plan(
    settings: Settings,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 3 when something would change.")
    ] = False,
    replay: Replay = "24h",
) -> int:
    """Show what `up` would do now; changes nothing.

    Recorded flows that it would decide otherwise are listed. What `up` would refuse is told, and exits so.
    """
    body = files.source(settings.file, settings.name) | {"replay": replayed(replay)}
    found = settings.daemon().post("/v1/plan", body)
    if settings.output in (Format.JSON, Format.YAML):
        document(found, settings.output)
    else:
        emit_lines(plan_text.lines(found, colour_wanted(sys.stdout)))
    if refused := found.get("refused"):
        raise remote_error({**refused, "message": f"`up` would be refused: {refused['message']}"})
    return Exit.CHANGES if exit_code and found["actions"] else Exit.OK


def replayed(wanted: str) -> Json | None:
    """The flows to try as the daemon is told of them. Raises UsageError, InputError."""
    if wanted == "none":
        return None
    if wanted != "-" and not Path(wanted).exists():
        try:
            return {"seconds": duration.seconds(wanted, "--replay")}
        except UsageError:
            raise UsageError(f"--replay {wanted}: write a time such as 24h, a file, or none") from None
    return {"file": wanted, "lines": files.text_of(wanted).splitlines()}


def up(
    settings: Settings,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show the plan.")] = False,
    yes: Annotated[
        bool, typer.Option("-y", "--yes", help="Do not ask, even if more is removed than kept.")
    ] = False,
    confirm: Annotated[
        str | None,
        typer.Option(
            "--confirm", metavar="TIME", help="Undo it unless `vnet confirm` comes in time: 120s, 5m."
        ),
    ] = None,
    wait: Annotated[bool, typer.Option("--wait", help="With --confirm: stay until that is decided.")] = False,
    plan_id: Annotated[
        str | None,
        typer.Option("--plan", metavar="ID", help="Only if the plan is this one (`plan -o json`)."),
    ] = None,
    replay: Replay = "24h",
) -> int:
    """Make the fabric what the topology file says.

    Waits until every guest's agent answers; undone when it fails or is interrupted.
    """
    if wait and confirm is None:
        raise UsageError("--wait waits for a confirmation: give it together with --confirm TIME")
    confirm_s = duration.seconds(confirm, "--confirm") if confirm else None
    if dry_run:
        return plan(settings, replay=replay)
    body = files.source(settings.file, settings.name)
    body |= {"confirm_s": confirm_s, "agreed": yes, "plan": plan_id or "", "replay": replayed(replay)}
    outcome = _made(settings, body)
    _tell_outcome(settings, outcome)
    return _until_decided(settings, outcome) if wait and outcome["confirm_s"] else Exit.OK


def _tell_outcome(settings: Settings, outcome: Json) -> None:
    name, generation, confirm_s = outcome["fabric"], outcome["generation"], outcome["confirm_s"]
    if settings.output in (Format.JSON, Format.YAML):
        document(outcome, settings.output)
    elif not settings.quiet:
        tell(f"{name}: {'up' if outcome['actions'] else 'nothing to change'}, generation {generation}")
    if confirm_s:
        tell(
            f"{name}: undone in {confirm_s:g} s unless you run `vnet confirm -n {name}`;"
            f" `vnet rollback -n {name}` undoes it at once"
        )


# -- asking first ---------------------------------------------------------------------------------


def _made(settings: Settings, body: Json) -> Json:
    """Carry the plan out. One that removes more than it keeps is shown first, and asked about."""
    asked = False
    while True:
        try:
            return data(settings.daemon().run("POST", "/v1/fabrics", body, settings.report))
        except RemoteError as error:
            first = error.kind == "AskFirst" and _can_ask(settings)
            again = error.kind == "PlanChanged" and asked
            if not first and not again:
                raise
        if asked:
            tell("The plan has changed meanwhile:")
        body, asked = body | _agreement(settings, body), True


def _can_ask(settings: Settings) -> bool:
    """Whether somebody sits there: nobody does behind a pipe, and programs read `--progress json`."""
    return sys.stdin.isatty() and sys.stderr.isatty() and settings.progress is not Style.JSON


def _agreement(settings: Settings, body: Json) -> Json:
    """Show the plan and ask. What is agreed to is this plan and no other."""
    shown = settings.daemon().post("/v1/plan", body)
    for text in plan_text.lines(shown, colour_wanted(sys.stderr)):
        tell(text)
    sys.stderr.write(f"More of {shown['fabric']} is removed than kept. Carry it out? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise RemoteError("nothing was changed", Exit.REFUSED)
    return {"agreed": True, "plan": shown["id"]}


# -- confirmation ---------------------------------------------------------------------------------


def _until_decided(settings: Settings, outcome: Json) -> int:
    """Wait until the change is confirmed or undone. Leaving by Ctrl-C decides nothing."""
    name, generation = outcome["fabric"], outcome["generation"]
    try:
        while (state := _confirmation(settings, name)) and state["confirm_left_s"] is not None:
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        tell(f"{name}: left; generation {generation} is still undone unless `vnet confirm -n {name}` comes")
        return Exit.INTERRUPTED
    if state and state["generation"] >= generation:
        tell(f"{name}: confirmed, generation {generation} stays")
        return Exit.OK
    tell(f"{name}: not confirmed in time: undone")
    return Exit.FAILED


def _confirmation(settings: Settings, name: str) -> Json | None:
    """How the last change stands; None when the fabric is gone. A daemon that was killed is started again."""
    try:
        answer: Json = settings.daemon().get(path("fabrics", name, "confirmation"))
    except RemoteError:
        return None
    except (HostError, PeerError):  # it ended between the question and the answer
        answer = settings.daemon().get(path("fabrics", name, "confirmation"))
    return answer


def confirm(settings: Settings) -> None:
    """Keep the change that `up --confirm` made."""
    outcome = settings.daemon().post(path("fabrics", settings.fabric, "confirm"))
    if settings.output in (Format.JSON, Format.YAML):
        document(outcome, settings.output)
    elif not settings.quiet:
        tell(f"{outcome['fabric']}: confirmed, generation {outcome['generation']} stays")


def rollback(settings: Settings) -> None:
    """Undo at once the change that `up --confirm` made."""
    url = path("fabrics", settings.fabric, "rollback")
    outcome = data(settings.daemon().run("POST", url, {}, settings.report))
    if settings.output in (Format.JSON, Format.YAML):
        document(outcome, settings.output)
    elif not settings.quiet:
        back = "removed" if outcome["removed"] else f"generation {outcome['generation']} is back"
        tell(f"{outcome['fabric']}: undone: {back}")
