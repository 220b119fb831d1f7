"""Commands about what was lost and what happened: drops, history."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from vnet.base.errors import HostError, UsageError
from vnet.cli.client import Client, Json, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, clock, document, emit, rows, tell
from vnet.cli.records import At, Since, Until, span
from vnet.cli.seen_commands import place, size

"""`--at` is that minute and those beside it."""
_ENDS = {"client": ("client", "client_address", None), "server": ("server", "server_address", "port")}

_COUNTS = (
    Column("REASON", lambda row: row["reason"]),
    Column("PACKETS", lambda row: str(row["packets"])),
    Column("MEANING", lambda row: row["meaning"]),
)
_KINDS = (
    Column("ID", lambda row: str(row["id"])),
    Column("LAST", lambda row: clock(row["last"])),
    Column("REPORTED", lambda row: str(row["packets"])),
    Column("REASON", lambda row: row["reason"]),
    Column("CLIENT", lambda row: end(row, "client")),
    Column("SERVER", lambda row: end(row, "server")),
    Column("SENDER", lambda row: row["sender"] or "-", wide=True),
    Column("STATE", lambda row: row["state"] or "-"),
    Column("GENERATION", lambda row: str(row["generation"])),
    Column("BY", lambda row: by(row)),
    Column("LINE THEN", lambda row: row["line"] or "-", wide=True),
)
_FLOWS = (
    Column("LAST", lambda row: clock(row["last"])),
    Column("VERDICT", lambda row: row["verdict"]),
    Column("CLIENT", lambda row: end(row, "client")),
    Column("SERVER", lambda row: end(row, "server")),
    Column("PACKETS", lambda row: str(row["packets"])),
    Column("BYTES", lambda row: size(row["bytes"])),
    Column("CONNECTIONS", lambda row: str(row["connections"] or "-")),
    Column("FIRST", lambda row: clock(row["first"]), wide=True),
    Column("NETWORK", lambda row: row["network"], wide=True),
    Column("GENERATION", lambda row: str(row["generation"])),
    Column("BY", lambda row: by(row)),
)
_GENERATIONS = (
    Column("GENERATION", lambda row: str(row["generation"])),
    Column("SINCE", lambda row: clock(row["since"])),
    Column("FILE", lambda row: row["file"]),
)
_BY = {
    "reason": (Column("REASON", lambda row: row["reason"]),),
    "vm": (Column("VM", lambda row: row["vm"] or "-"),),
    "rule": (Column("RULE", lambda row: by(row)),),
}
_GROUPS = (
    Column("PACKETS", lambda row: str(row["packets"]) if row["packets"] is not None else "-"),
    Column("REPORTED", lambda row: str(row["reported"])),
    Column("LAST", lambda row: clock(row["last"]) if row["last"] else "-"),
    Column("PACKET", lambda row: str(row["packet"] or "-")),
)

Reason = Annotated[str | None, typer.Option("--reason", help="Only this reason, for instance POLICY.")]
Limit = Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(drops)
    command(app)(history)


def drops(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="[VM[.NIC]]", help="Sender, or either end.")] = None,
    since: Since = None,
    until: Until = None,
    at: At = None,
    by: Annotated[
        str | None, typer.Option("--by", help="Sum up by reason, vm, rule, or several: vm,rule.")
    ] = None,
    reason: Reason = None,
    follow: Annotated[bool, typer.Option("--follow", help="As they are reported. Ctrl-C ends it.")] = False,
    packet: Annotated[list[int] | None, typer.Option("--packet", help="The packet kept of this ID.")] = None,
    first: Annotated[bool, typer.Option("--first", help="The first packet of each kind.")] = False,
    write: Annotated[
        str | None, typer.Option("-w", "--write", help="Packets as pcapng; - is stdout.")
    ] = None,
    limit: Limit = 1000,
) -> None:
    """Show lost packets: counts by reason, or what was lost when.

    Without options: counts since the switch was made, and the latest. With a time, a VM, --by or --reason:
    what the history has, by default of the last hour. PACKETS are exact, REPORTED is at least so many.
    """
    client, where = settings.daemon(), path("fabrics", settings.fabric, "drops")
    if follow:
        if any((since, until, at, by, packet, first, write)):
            raise UsageError("--follow shows what is lost from now on: it takes a VM and --reason alone")
        _follow(settings, client, f"{where}/follow", {"vm": vm, "reason": reason})
    elif packet:
        _packets(settings, client, where, packet, write)
    elif not any((vm, since, until, at, by, reason, first, write)):
        _now(settings, client.get(where))
    else:
        query = {**span(since, until, at), "vm": vm, "reason": reason, "by": by, "limit": limit}
        answer = client.get(f"{where}/history", **query)
        if first or write:
            kept = [row["id"] for row in answer.get("kinds", ()) if row["has_packet"]]
            _packets(settings, client, where, kept, write)
        else:
            _then(settings, answer, by)


def _now(settings: Settings, answer: Json) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    rows(answer["counts"], _COUNTS, settings.output)
    if answer["recent"]:
        sys.stdout.write("\n" + "\n".join(answer["recent"]) + "\n")


def _then(settings: Settings, answer: Json, by: str | None) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    if by:
        named = [column for word in by.split(",") if word for column in _BY[word]]
        rows(answer["groups"], (*named, *_GROUPS), settings.output)
    else:
        rows(answer["kinds"], _KINDS, settings.output)
    _tell_missing(answer, len(answer.get("kinds", ())) or None)


def _tell_missing(answer: Json, shown: int | None) -> None:
    if answer["unknown"]:
        tell(f"there is no VM or NIC {answer['unknown']} now, and nothing of one in that time")
    if shown is not None and shown < answer["total"]:
        tell(f"{shown} of {answer['total']} shown; --limit shows more, VM and --reason choose")
    kept = answer["kept_since"]
    if kept is None or kept > answer["since"]:
        tell(f"history begins {clock(kept) if kept else 'now'}")
    for gap in answer["gaps"]:
        tell(f"incomplete from {clock(gap['since'])} to {clock(gap['until'])}: {gap['why']}")
    if answer["trouble"]:
        tell(f"history has stopped: {answer['trouble']}")


def _follow(settings: Settings, client: Client, where: str, query: Json) -> None:
    client.timeout_s = None
    form = "json" if settings.output is Format.JSON else "lines"
    stream = client.read(where, **query, form=form)
    try:
        for block in stream:
            sys.stdout.write(block.decode(errors="replace"))
            sys.stdout.flush()
    finally:
        stream.close()


def _packets(settings: Settings, client: Client, where: str, wanted: list[int], write: str | None) -> None:
    if not wanted:
        tell("no packet was kept of that")
        return
    if write is not None:
        _write(write, b"".join(client.read(f"{where}/packets", id=wanted, form="pcapng")))
        return
    answer = client.get(f"{where}/packets", id=wanted)
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    for row in answer:
        emit(f"{row['id']}  {clock(row['time'])} {row['nic']} DROP {row['reason']} {row['summary']}"
             f" ({row['length']} bytes) {row['by']}")  # fmt: skip
        for line in hex_lines(bytes.fromhex(row["hex"])):
            emit(f"    {line}")


def _write(target: str, data: bytes) -> None:
    if target == "-":
        if sys.stdout.isatty():
            raise UsageError("-w - writes binary data: pipe it, for instance into `tshark -r -`")
        sys.stdout.buffer.write(data)
        return
    try:
        fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "wb") as file:
            file.write(data)
    except OSError as error:
        raise HostError(f"cannot write {target}: {error.strerror}") from error


def hex_lines(data: bytes) -> list[str]:
    """Sixteen bytes a line, with their offset, as `text2pcap` reads them."""
    return [f"{at:04x}  {data[at : at + 16].hex(' ')}" for at in range(0, len(data), 16)]


def history(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="[VM[.NIC]]", help="Either end.")] = None,
    since: Since = None,
    until: Until = None,
    at: At = None,
    limit: Limit = 1000,
    generations: Annotated[
        bool, typer.Option("--generations", help="What was in force, and since when.")
    ] = False,
    show: Annotated[int | None, typer.Option("--show", help="Print the topology of this generation.")] = None,
) -> None:
    """Show who talked to whom: allowed, audited, denied. The last hour is the default."""
    client, where = settings.daemon(), path("fabrics", settings.fabric, "history")
    if show is not None:
        answer = client.get(f"{where}/text", generation=show)
        _shown(settings, answer)
    elif generations:
        _generations(settings, client.get(f"{where}/generations"))
    else:
        answer = client.get(where, **span(since, until, at), vm=vm, limit=limit)
        if settings.output in (Format.JSON, Format.YAML):
            document(answer, settings.output)
            return
        rows(answer["flows"], _FLOWS, settings.output)
        _tell_missing(answer, len(answer["flows"]))


def _shown(settings: Settings, answer: Json) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    sys.stdout.write(answer["text"])
    for file, text in answer["included"].items():
        sys.stdout.write(f"# {file}\n{text}")


def _generations(settings: Settings, answer: Json) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    rows(answer["generations"], _GENERATIONS, settings.output)
    used, most = answer["size_bytes"], answer["limit_bytes"]
    tell(f"{answer['file']}: {used / 2**20:.1f} of {most / 2**20:.0f} MiB, {answer['lines']} lines")
    if answer["trouble"]:
        tell(f"history has stopped: {answer['trouble']}")


def end(row: Row, which: str) -> str:
    """`web-1.eth0 10.10.10.2`; of a server with its service."""
    name, address, port = _ENDS[which]
    if row["folded"] and which == "server":
        return "many"
    shown = " ".join(filter(None, (row[name], row[address]))) or "?"
    if port is None:
        return shown
    protocol = row["protocol"] or ""
    if protocol.startswith("icmp") and row[port] is not None:
        return f"{shown} {protocol} type {row[port]}"
    service = f"{row[port]}/{protocol}" if row[port] is not None else protocol
    return f"{shown} {service}".rstrip()


def by(row: Row) -> str:
    """The rule in a few words."""
    who = f"{row['policy']} {row['rule']}" if row["policy"] else row["text"] or ""
    return " ".join(filter(None, (who, place(row["at"])))) or "-"
