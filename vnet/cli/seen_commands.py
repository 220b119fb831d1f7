"""Commands about what is there now: connections, MAC addresses, IP addresses."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from vnet.base.errors import UsageError
from vnet.cli.client import Client, Json, path
from vnet.cli.options import Settings, command
from vnet.cli.output import Column, Format, Row, age, document, emit, rows, tell

WATCH_S = 2.0

_CT = (
    Column("PROTO", lambda row: row["protocol"]),
    Column("CLIENT", lambda row: end(row, "client")),
    Column("SERVER", lambda row: end(row, "server")),
    Column("STATE", lambda row: row["state"]),
    Column("OUT", lambda row: size(row["bytes"][0])),
    Column("BACK", lambda row: size(row["bytes"][1])),
    Column("PACKETS", lambda row: "/".join(map(str, row["packets"])), wide=True),
    Column("AGE", lambda row: age(row["age_s"])),
    Column("IDLE", lambda row: age(row["idle_s"])),
    Column("NETWORK", lambda row: row["network"], wide=True),
    Column("ZONE", lambda row: str(row["zone"]), wide=True),
    Column("MARK", lambda row: str(row["mark"]), wide=True),
    Column("BY", lambda row: by(row)),
)
_FDB = (
    Column("NETWORK", lambda row: row["network"]),
    Column("VLAN", lambda row: str(row["vlan"])),
    Column("MAC", lambda row: row["mac"]),
    Column("NIC", lambda row: row["nic"] or f"port {row['port']}"),
    Column("KIND", lambda row: row["kind"]),
    Column("AGE", lambda row: "-" if row["age_s"] is None else age(row["age_s"])),
)
_LEASES = (
    Column("NETWORK", lambda row: row["network"]),
    Column("ADDRESS", lambda row: row["address"]),
    Column("MAC", lambda row: row["mac"]),
    Column("NIC", lambda row: row["nic"]),
    Column("KIND", lambda row: row["kind"]),
    Column("EXPIRES", lambda row: row["expires"] or "never"),
)


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(ct)
    command(app)(fdb)
    command(app)(leases)


def ct(
    settings: Settings,
    vm: Annotated[str | None, typer.Argument(metavar="[VM[.NIC]]", help="Either end.")] = None,
    to: Annotated[str | None, typer.Option("--to", metavar="VM[.NIC]", help="Only to this server.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="The server's port.")] = None,
    state: Annotated[str | None, typer.Option("--state", help="For instance established.")] = None,
    sort: Annotated[str, typer.Option("--sort", help="bytes, packets, age or idle.")] = "bytes",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Show at most so many.")] = 1000,
    watch: Annotated[bool, typer.Option("--watch", help="Again every 2 s. Ctrl-C ends it.")] = False,
) -> None:
    """Show live connections, each with the rule that lets it."""
    if watch and settings.output in (Format.JSON, Format.YAML):
        raise UsageError("--watch is for people; programs ask again themselves")
    client, where = settings.daemon(), path("fabrics", settings.fabric, "ct")
    query = {"vm": vm, "to": to, "port": port, "state": state, "sort": sort, "limit": limit}
    _show(settings, client.get(where, **query))
    while watch:
        _again(settings, client, where, query)


def _again(settings: Settings, client: Client, where: str, query: Json) -> None:
    time.sleep(WATCH_S)
    answer = client.get(where, **query)
    emit("\x1b[H\x1b[2J" + f"{time.strftime('%H:%M:%S')}")
    _show(settings, answer)


def _show(settings: Settings, answer: Json) -> None:
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
        return
    rows(answer["connections"], _CT, settings.output)
    if answer["cut"]:
        shown = len(answer["connections"])
        tell(f"{shown} of {answer['total']} connections; --limit shows more, VM, --to and --port choose")


def end(row: Row, which: str) -> str:
    """`web-1.eth0 10.10.10.2:41022`."""
    shown, port = row[f"{which}_address"] or "", row.get(f"{which}_port")
    if port is not None:
        shown = f"[{shown}]:{port}" if ":" in shown else f"{shown}:{port}"
    return " ".join(filter(None, (row[which], shown))) or "?"


def by(row: Row) -> str:
    """The rule in a few words."""
    if row["at"] is None:
        return "-"
    who = f"{row['policy']} {row['rule']}" if row["policy"] else row["text"]
    note = {"audited": "audited: ", "cut": "no longer: "}.get(row["verdict"], "")
    return f"{note}{who} {place(row['at'])}"


def place(at: str | None) -> str:
    """`(FILE:LINE)`; what is built in says so itself."""
    return "" if not at else at if at.startswith("(") else f"({at})"


def size(count: int) -> str:
    """Bytes in a unit that leaves at most four digits: `812`, `64K`, `1200M`."""
    for unit in ("", "K", "M", "G"):
        if count < 10_000:
            return f"{count}{unit}"
        count //= 1024
    return f"{count}T"


def fdb(
    settings: Settings,
    network: Annotated[str | None, typer.Argument(metavar="[NETWORK]", help="Only this network.")] = None,
) -> None:
    """Show which MAC address is where, declared or learned."""
    answer = settings.daemon().get(path("fabrics", settings.fabric, "fdb"), network=network)
    rows(answer, _FDB, settings.output)


def leases(
    settings: Settings,
    network: Annotated[str | None, typer.Argument(metavar="[NETWORK]", help="Only this network.")] = None,
) -> None:
    """Show whose each IP address is, declared or assigned."""
    answer = settings.daemon().get(path("fabrics", settings.fabric, "leases"), network=network)
    rows(answer, _LEASES, settings.output)
