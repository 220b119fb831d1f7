"""`vnet events`: what happened to the fabrics of this host, and what happens."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any

import typer

from vnet.cli.client import path
from vnet.cli.duration import moment_ns
from vnet.cli.log_text import whole_lines
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, emit


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(events)


def events(
    settings: Settings,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with what comes. Ctrl-C ends it.")] = False,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="14:03, 2026-11-28T14:03, or 2h ago as 2h.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="The same.")] = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only these, such as vm-died.")
    ] = None,
) -> None:
    """Tell what happened: changes, VMs, links, drop storms.

    Of all fabrics, or of the one that -n or -f names; `-o json` as JSON Lines.
    """
    now = datetime.now()
    query: dict[str, Any] = {
        "since_ns": since and moment_ns(since, "--since", now),
        "until_ns": until and moment_ns(until, "--until", now),
        "follow": "1" if follow else None,
        "kind": _kinds(kind or []) or None,
        "fabric": settings.fabric if settings.name or settings.file else None,
    }
    client = settings.daemon()
    if follow:
        client.timeout_s = None
    stream = client.read(path("events"), **query)
    try:
        for line in whole_lines(stream):
            emit(_shown(line, settings.output))
            sys.stdout.flush()
    finally:
        stream.close()


def _kinds(given: list[str]) -> list[str]:
    from vnet.base.errors import UsageError
    from vnet.fabric.events import Kind

    for kind in given:
        if kind not in set(Kind):
            raise UsageError(f"--kind {kind}: one of {', '.join(Kind)}")
    return given


def _shown(line: str, form: Format) -> str:
    if form is Format.JSON:
        return line
    event = json.loads(line)
    if form is Format.YAML:
        import yaml

        return "---\n" + str(yaml.safe_dump(event, sort_keys=False, allow_unicode=True)).rstrip()
    return in_words(event)


def in_words(event: Mapping[str, Any]) -> str:
    """One event in one line, in local time."""
    when = datetime.fromisoformat(event["time"]).astimezone()
    clock = f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"
    text = f"{clock} {event['fabric'] or '-'} {event['kind']}: {event['text']}"
    return "".join(c if c.isprintable() else "?" for c in text)
