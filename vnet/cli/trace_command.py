"""`vnet trace`: which way a packet would take through the switch, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.errors import Exit, InputError, UsageError
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, Row, document, emit_lines

WIDTH = 14
"""Of the names of tables."""
FRAME_BYTES_MAX = 65_535
"""What a file says beyond that is no packet's length."""


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(trace)


def trace(
    settings: Settings,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[FROM TO PORT|VM[.NIC]...]", help="VM[.NIC], VM[.NIC] or IP, and 5432/tcp, 53/udp, icmp."
        ),
    ] = None,
    packet: Annotated[
        str | None, typer.Option("--packet", metavar="EXPR", help='Scapy: IP(dst="10.0.0.2")/TCP(dport=80).')
    ] = None,
    pcap: Annotated[
        str | None, typer.Option("--pcap", metavar="FILE[:N]", help="Packet N of a pcap or pcapng file.")
    ] = None,
    sender: Annotated[
        str | None, typer.Option("--from", metavar="VM[.NIC]", help="Who sends --packet or --pcap.")
    ] = None,
    reply: Annotated[bool, typer.Option("--reply", help="Also the answer's way.")] = False,
    new: Annotated[bool, typer.Option("--new", help="Ignore a connection that lives.")] = False,
    live: Annotated[
        str | None,
        typer.Option(
            "--live", metavar="FILTER", help="Follow real packets that a pcap-filter(7) takes; '' for all."
        ),
    ] = None,
    count: Annotated[
        int | None, typer.Option("-c", "--count", min=1, help="With --live: end after so many packets.")
    ] = None,
    duration: Annotated[
        float | None, typer.Option("--duration", min=0.1, help="With --live: end after so many seconds.")
    ] = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 3 when the packet would not be delivered.")
    ] = False,
) -> int:
    """Tell which way a packet would take, rule by rule.

    Each table, the rule and its line, and what would have allowed it. The switch's own program decides, with
    the connections there are now; nothing is sent or changed.
    With --live real packets of all NICs, or of those named, are told instead, until Ctrl-C.
    """
    if live is not None:
        if packet is not None or pcap is not None or sender or reply or new:
            raise UsageError(
                "--live follows real packets: it takes names of VMs or NICs, --count and --duration"
            )
        return _follow(settings, {"nic": words, "filter": live, "count": count, "duration": duration})
    if count or duration:
        raise UsageError("--count and --duration belong to --live")
    body = _body(words or [], packet, pcap, sender) | {"reply": reply, "new": new}
    answer: Row = settings.daemon().post(path("fabrics", settings.fabric, "trace"), body)
    if settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
    else:
        emit_lines(text(answer, settings.output is Format.WIDE or settings.verbose))
    last = answer.get("reply") or answer
    delivered = all(each["verdict"]["outcome"] == "delivered" for each in (answer, last))
    return Exit.CHANGES if exit_code and not delivered else Exit.OK


def _follow(settings: Settings, query: dict[str, Any]) -> int:
    """Print ways as they come, until Ctrl-C or a limit."""
    form = "lines" if settings.output in (Format.TABLE, Format.WIDE) else "json"
    client = settings.daemon()
    client.timeout_s = None
    stream = client.read(path("fabrics", settings.fabric, "trace", "live"), form=form, **query)
    try:
        for block in stream:
            sys.stdout.buffer.write(block)
            sys.stdout.buffer.flush()
    finally:
        stream.close()
    return Exit.OK


def _body(words: list[str], packet: str | None, pcap: str | None, sender: str | None) -> dict[str, Any]:
    if (packet is not None) + (pcap is not None) + (len(words) > 1) != 1:
        raise UsageError("which packet? write FROM TO PORT, as in `web db 5432/tcp`, --packet or --pcap")
    if len(words) > 1:
        if len(words) != 3 or sender:
            raise UsageError("write FROM TO PORT: `web db 5432/tcp`, `web 10.0.0.2 53/udp`, `web db icmp`")
        return dict(zip(("source", "target", "service"), words, strict=True))
    if words and sender:
        raise UsageError(f"who sends it, {words[0]} or {sender}? name one of them")
    source = {"source": sender or (words[0] if words else "")}
    return source | ({"packet": packet} if packet is not None else _from_file(pcap or ""))


def _from_file(given: str) -> dict[str, Any]:
    """Packet N, from 1, of FILE[:N]; of one that was cut the rest is zeros."""
    file, number = _numbered(given)
    from scapy.error import Scapy_Exception
    from scapy.utils import RawPcapReader

    try:
        with RawPcapReader(file) as reader:
            for count, (frame, metadata) in enumerate(reader, start=1):
                if count < number:
                    continue
                linktype = getattr(metadata, "linktype", getattr(reader, "linktype", None))
                if linktype != 1:
                    raise InputError(f"{file}: packet {number} is of link type {linktype}; Ethernet is 1")
                return _frame(bytes(frame), getattr(metadata, "wirelen", None) or 0)
            count = locals().get("count", 0)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror or error}") from None
    except Scapy_Exception as error:
        raise InputError(f"{file} is neither pcap nor pcapng: {error}") from None
    raise InputError(f"{file} has {count} packets; there is no packet {number}")


def _frame(kept: bytes, length: int) -> dict[str, Any]:
    if not len(kept) < length <= FRAME_BYTES_MAX:
        return {"frame": kept.hex()}
    return {"frame": kept.ljust(length, bytes(1)).hex(), "captured": len(kept)}


def _numbered(given: str) -> tuple[str, int]:
    file, colon, number = given.rpartition(":")
    if not colon or not number.isdecimal() or Path(given).exists():
        return given, 1
    if int(number) < 1:
        raise UsageError("--pcap: packets are numbered from 1, as in Wireshark")
    return file, int(number)


# -- text -------------------------------------------------------------------------------------------------


def text(answer: Row, wide: bool = False) -> Iterator[str]:
    """The answer for people; `wide` has matches, actions and cookies too."""
    packet = answer["packet"]
    yield (
        f"{packet['nic']} sends {packet['summary']} ({packet['length_bytes']} bytes), "
        f"port {packet['port']}, generation {answer['generation']}"
    )
    yield from (f"  assumed: {each}" for each in answer["assumed"])
    yield f"  destination: {answer['destination']['mac']}, {answer['destination']['text']}"
    yield f"  connection: {answer['connection']['text']}"
    yield ""
    for step in answer["steps"]:
        yield from _step(step, wide)
    yield from _verdict(answer)
    if answer.get("reply"):
        yield ""
        yield "the answer:"
        yield from text(answer["reply"], wide)


def _step(step: Row, wide: bool) -> Iterator[str]:
    rule = step["rule"]
    head = f"{step['table']:>3}  {step['name']:<{WIDTH}}"
    indent = " " * (WIDTH + 5)
    if rule is None:
        yield f"{head}no rule matches"
        return
    yield f"{head}{rule['from'] or 'a flow that the file does not know'}"
    yield f"{indent}priority {rule['priority']}, {rule['match']}"
    if wide:
        yield f"{indent}actions {rule['actions']}"
        yield f"{indent}cookie {rule['cookie']}"
    yield from (f"{indent}{note}" for note in step["notes"])
    shown = [each["text"] for each in step["changes"] if not each["quiet"]]
    if shown:
        yield f"{indent}{', '.join(shown)}"


def _verdict(answer: Row) -> Iterator[str]:
    verdict = answer["verdict"]
    reason = "" if verdict["reason"] == "NONE" else f": {verdict['reason']}"
    cause = verdict["by"] or verdict["meaning"]
    yield f"{verdict['outcome']}{reason}{' - ' if cause else ''}{cause}"
    for output in verdict["outputs"]:
        answered = verdict["outcome"] == "rejected"
        changed = f" ({', '.join(output['rewritten'])})" if output["rewritten"] and not answered else ""
        yield f"  {output['nic']} gets {'the answer ' if answered else ''}{output['summary']}{changed}"
        if output["absent"]:
            yield f"  but its VM is {output['absent']}: nobody there takes it"
    yield from (f"  would be allowed if {each}" for each in answer["allowed_if"])
