"""Commands that look at what the switch does: verify, capture, flows."""

from __future__ import annotations

import os
import sys
from typing import Annotated, Any

import typer

from vnet.base.errors import Exit, HostError, UsageError
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
    command(app)(capture)
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
        tell(f"{len(answer['claims']) - len(failed)} of {len(answer['claims'])} claims hold")
    return Exit.CLAIM_FAILED if failed else Exit.OK


def _probed(row: Row) -> str:
    """`3 of 3 as claimed`, or `-` when nothing was tried."""
    tried = row["probes"]
    if not tried:
        return "-"
    return f"{sum(probe['passed'] for probe in tried)} of {len(tried)} as claimed"


def _tell_disagreements(failed: list[Json]) -> None:
    for row in failed:
        for probe in row["probes"]:
            if not probe["passed"]:
                outcome = f"expected {probe['expected']}, got {probe['got']}"
                tell(f"{row['at']}: {row['claim']}: {probe['what']}: {outcome}")


def capture(
    settings: Settings,
    nics: Annotated[
        list[str] | None, typer.Argument(metavar="[VM[.NIC]]...", help="Default: all NICs.")
    ] = None,
    write: Annotated[
        str | None, typer.Option("-w", "--write", help="pcapng file; - is standard output.")
    ] = None,
    filter: Annotated[str | None, typer.Option("--filter", help="pcap-filter(7) expression.")] = None,
    snaplen: Annotated[int | None, typer.Option("--snaplen", min=1, help="Bytes to keep per packet.")] = None,
    count: Annotated[
        int | None, typer.Option("-c", "--count", min=1, help="End after so many packets.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, help="End after so many seconds.")
    ] = None,
    dropped: Annotated[bool, typer.Option("--dropped", help="Only packets that the switch dropped.")] = False,
) -> None:
    """Show packets with the switch's verdict, reason and rule.

    As lines, as they happen, or into a pcapng file. Ctrl-C ends it.
    """
    if write == "-" and sys.stdout.isatty():
        raise UsageError("-w - writes binary data: pipe it, for instance into `wireshark -k -i -`")
    query: dict[str, Any] = {
        "nic": nics,
        "filter": filter,
        "snaplen": snaplen,
        "count": count,
        "duration": duration,
    }
    query |= {"form": "pcapng" if write else "lines", "dropped": "1" if dropped else None}
    client = settings.daemon()
    client.timeout_s = None
    stream = client.read(path("fabrics", settings.fabric, "capture"), **query)
    target = _opened(write)
    try:
        for block in stream:
            _write_all(target, block)
    except BrokenPipeError:
        return
    finally:
        stream.close()
        if target != 1:
            os.close(target)


def _opened(write: str | None) -> int:
    if write in (None, "-"):
        return 1
    assert write is not None
    try:
        return os.open(write, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HostError(f"cannot write {write}: {error.strerror}") from error


def _write_all(fd: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        try:
            rest = rest[os.write(fd, rest) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise HostError(f"cannot write the capture: {error.strerror}") from error


def flows(
    settings: Settings,
    ovs: Annotated[bool, typer.Option("--ovs", help="As `ovs-ofctl dump-flows` prints them.")] = False,
) -> None:
    """Print the flows in the switch, each with the line it comes from."""
    answer = settings.daemon().get(path("fabrics", settings.fabric, "flows"))
    if ovs:
        for row in answer:
            sys.stdout.write(row["ovs"] + "\n")
        return
    rows(answer, _FLOWS, settings.output)
