"""The command `capture`: packets with what the switch did with them, as lines, into files, into Wireshark."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vnet.base.errors import UsageError, VnetError
from vnet.cli.client import Client, path
from vnet.cli.options import Settings, command
from vnet.cli.output import tell

if TYPE_CHECKING:
    from vnet.capture.live.sink import Sink


def register(app: typer.Typer) -> None:
    """Add the command."""
    command(app)(capture)


def capture(
    settings: Settings,
    nics: Annotated[
        list[str] | None,
        typer.Argument(metavar="[VM[.NIC]|uplink:NAME]...", help="Default: all NICs."),
    ] = None,
    network: Annotated[
        list[str] | None, typer.Option("--network", metavar="NET", help="All NICs of a network.")
    ] = None,
    point: Annotated[
        list[str] | None,
        typer.Option(
            "--point", help="guest, after-guards, after-policy, delivered, uplink. Default: guest,delivered."
        ),
    ] = None,
    write: Annotated[
        str | None, typer.Option("-w", "--write", help="pcapng file; - is standard output.")
    ] = None,
    ring: Annotated[
        list[str] | None,
        typer.Option(
            "-b",
            "--ring-buffer",
            metavar="WHEN:VALUE",
            help="Go on in a new file: filesize:KB, duration:S, packets:N; keep files:N.",
        ),
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
        "network": network,
        "point": point,
        "filter": filter,
        "snaplen": snaplen,
        "count": count,
        "duration": duration,
    }
    query |= {"form": "pcapng" if write else "lines", "dropped": "1" if dropped else None}
    target = _target(write, ring or [])
    client = settings.daemon()
    client.timeout_s = None
    stream = client.read(path("fabrics", settings.fabric, "capture"), **query)
    try:
        pieces = _whole(stream) if write else stream
        first = next(pieces, b"")  # what is refused leaves a file that is there as it is
        _write(itertools.chain([first], pieces), target())
    finally:
        stream.close()
    _tell_summary(client)


def _target(write: str | None, ring: list[str]) -> Callable[[], Sink]:
    from vnet.capture.live.sink import open_sink  # only here: not every command captures
    from vnet.capture.ring import ring_limits

    limits = ring_limits(ring)
    if limits and write in (None, "-"):
        raise UsageError("-b goes on in a new file: name the first with -w FILE")
    return lambda: open_sink(write or "-", limits)


def _whole(stream: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks of a pcapng stream: each is written whole or not at all."""
    from vnet.capture.ring import blocks

    rest = b""
    for piece in stream:
        rest += piece
        for block in blocks(rest):
            rest = rest[len(block) :]
            yield block


def _write(pieces: Iterable[bytes], sink: Sink) -> None:
    """Until the stream ends, the reader has gone, or something goes wrong, which is raised."""
    try:
        for piece in pieces:
            if not sink.write(piece):
                break
    finally:
        sink.close()
    if sink.error:
        raise sink.error


def _tell_summary(client: Client) -> None:
    """How many packets there were, and how many are missing: the last thing that a capture says."""
    try:
        end = client.get(path("operations", client.operation, "summary"))
    except VnetError:  # the daemon has ended, and with it the capture
        return
    tell(f"{end['kept']} packets kept; {end['matched']} of {end['seen']} matched, {end['lost']} lost")
