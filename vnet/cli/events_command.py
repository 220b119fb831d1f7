"""`vnet events`: what happened to the fabrics of this host, and what happens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.records import Follow, Since, Until, clock, print_records, printable, span


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(events)


def events(
    settings: Settings,
    follow: Follow = False,
    since: Since = None,
    until: Until = None,
    kind: Annotated[
        list[str] | None, typer.Option("--kind", metavar="KIND", help="Only these, such as vm-died.")
    ] = None,
) -> None:
    """Tell what happened: changes, VMs, links, drop storms.

    Of all fabrics, or of the one that -n or -f names; `-o json` as JSON Lines.
    """
    query: dict[str, Any] = {
        **span(since, until),
        "follow": "1" if follow else None,
        "kind": _kinds(kind or []) or None,
        "fabric": settings.fabric if settings.name or settings.file else None,
    }
    client = settings.daemon()
    if follow:
        client.timeout_s = None
    stream = client.read(path("events"), **query)
    try:
        print_records(stream, settings.output, in_words)
    finally:
        stream.close()


def _kinds(given: list[str]) -> list[str]:
    from vnet.base.errors import UsageError
    from vnet.fabric.events import Kind

    for kind in given:
        if kind not in set(Kind):
            raise UsageError(f"--kind {kind}: one of {', '.join(Kind)}")
    return given


def in_words(event: Mapping[str, Any]) -> str:
    """One event in one line, in local time."""
    return printable(f"{clock(event)} {event['fabric'] or '-'} {event['kind']}: {event['text']}")
