"""Commands that print records of a time, one by one as they come: what they are asked, and how they print."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime, tzinfo
from typing import Annotated, Any

import typer

from vnet.base.errors import UsageError
from vnet.cli.duration import moment_ns
from vnet.cli.output import Format, emit

Since = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="14:03, yesterday 14:03, 2026-11-28T14:03, or 2h ago as 2h."
    ),
]
Until = Annotated[str | None, typer.Option("--until", metavar="TIME", help="The same.")]
At = Annotated[str | None, typer.Option("--at", metavar="TIME", help="That minute and those beside it.")]
Follow = Annotated[bool, typer.Option("--follow", help="Go on with what comes. Ctrl-C ends it.")]

InWords = Callable[[Mapping[str, Any]], str]
AT_NS = 60 * 10**9


def span(since: str | None, until: str | None, at: str | None = None) -> dict[str, int | None]:
    """The time that is asked for, as a query. Raises UsageError."""
    now = datetime.now()
    if at is None:
        return {
            "since_ns": _past(since, "--since", now) if since else None,
            "until_ns": moment_ns(until, "--until", now) if until else None,
        }
    if since or until:
        raise UsageError("--at is a time of its own: leave --since and --until out")
    moment = _past(at, "--at", now)
    return {"since_ns": moment - AT_NS, "until_ns": moment + AT_NS}


def _past(text: str, option: str, now: datetime) -> int:
    moment = moment_ns(text, option, now)
    if moment > now.timestamp() * 1e9:
        raise UsageError(f"{option} {text}: that is still to come")
    return moment


def whole_lines(blocks: Iterable[bytes]) -> Iterator[str]:
    """The lines of a stream that comes cut anywhere."""
    rest = b""
    for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        yield from (line.decode() for line in lines)


def print_records(blocks: Iterable[bytes], form: Format, in_words: InWords) -> None:
    """Print JSON Lines that come from the daemon, each at once."""
    for line in whole_lines(blocks):
        if form is Format.JSON:
            emit(line)
        else:
            print_record(json.loads(line), form, in_words)
        sys.stdout.flush()


def print_record(record: Mapping[str, Any], form: Format, in_words: InWords) -> None:
    """One record of a stream: a line of JSON, a document of YAML, or words."""
    if form is Format.JSON:
        emit(json.dumps(record, ensure_ascii=False))
    elif form is Format.YAML:
        import yaml

        emit("---\n" + str(yaml.safe_dump(record, sort_keys=False, allow_unicode=True)).rstrip())
    else:
        emit(in_words(record))


def clock(record: Mapping[str, Any], zone: tzinfo | None = None) -> str:
    """When a record was made; `zone` None is the local one."""
    when = datetime.fromisoformat(record["time"]).astimezone(zone)
    return f"{when:%Y-%m-%d %H:%M:%S}.{when.microsecond // 1000:03d}"


def printable(text: str) -> str:
    """Without control characters, whoever sent them."""
    return "".join(c if c.isprintable() else "?" for c in text)
