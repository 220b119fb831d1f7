"""`vnet switch`: a switch of its own, for anybody's controller, as long as the command runs."""

from __future__ import annotations

import asyncio
import re
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vnet.base import paths
from vnet.base.errors import UsageError
from vnet.cli.options import Settings, command
from vnet.cli.output import tell

if TYPE_CHECKING:
    from vnet.switch.live.standalone import Standalone
    from vnet.switch.live.tls import Identity

_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_PORT = re.compile(r"([0-9]{1,4})=([^/\s]{1,15})")
ENDED_BY = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def register(app: typer.Typer) -> None:
    """Add this command."""
    command(app)(switch)


def switch(
    settings: Settings,
    switch_name: Annotated[str, typer.Argument(metavar="NAME")],
    port: Annotated[
        list[str] | None,
        typer.Option("-p", "--port", metavar="NUMBER=INTERFACE", help="An interface that becomes a port."),
    ] = None,
    uplink: Annotated[
        list[int] | None,
        typer.Option(
            "--uplink",
            metavar="NUMBER",
            help="A port with many hosts behind it: without the quotas that a single guest has.",
        ),
    ] = None,
    controller: Annotated[
        list[str] | None,
        typer.Option(
            "-c",
            "--controller",
            metavar="ADDRESS",
            help="tcp:HOST[:PORT], ssl:… or unix:PATH is called; at ptcp:[PORT][:HOST], pssl:…"
            " or punix:PATH the switch listens.",
        ),
    ] = None,
    netns: Annotated[str | None, typer.Option("--netns", help="Where interfaces and addresses are.")] = None,
    number: Annotated[
        str | None,
        typer.Option(
            "--datapath-id", metavar="HEX", help="Default: follows from the name.", show_default=False
        ),
    ] = None,
    private_key: Annotated[Path | None, typer.Option("--private-key", help="PEM, for TLS.")] = None,
    certificate: Annotated[Path | None, typer.Option("--certificate", help="PEM, for TLS.")] = None,
    ca_cert: Annotated[Path | None, typer.Option("--ca-cert", help="PEM: of the peers, for TLS.")] = None,
    keep: Annotated[
        bool, typer.Option("--keep", help="At the end leave ports and flows in force in the kernel.")
    ] = False,
) -> None:
    """Run an OpenFlow switch on interfaces that are there.

    Until Ctrl-C. Nothing passes until a controller puts flows into it. It also listens on a unix socket, for
    ovs-ofctl. If it is killed the kernel goes on forwarding, and the next one of that name takes over.
    """
    from vnet.switch.address import Address, Transport, parse
    from vnet.switch.datapath import datapath_id
    from vnet.switch.live.standalone import Standalone

    if not _NAME.fullmatch(switch_name):
        raise UsageError(f"{switch_name!r} is no name: up to 32 of a-z, 0-9 and -")
    socket = paths.switches_run_dir() / f"{switch_name}.sock"
    addresses = [Address(Transport.UNIX, passive=True, path=str(socket)), *map(parse, controller or ())]
    ports = _ports(port or [])
    wanted = Standalone(
        switch_name,
        datapath_id(switch_name) if number is None else _number(number),
        netns,
        ports,
        tuple(addresses),
        paths.switches_bpf_dir() / switch_name,
        paths.switches_run_dir() / f"{switch_name}.lock",
        _identity(private_key, certificate, ca_cert),
        _uplinks(uplink or [], ports),
        keep,
    )
    asyncio.run(
        _run(wanted, f"switch {switch_name} runs: ovs-ofctl -O OpenFlow13 show unix:{socket}", settings)
    )


async def _run(wanted: Standalone, ready: str, settings: Settings) -> None:
    from vnet.switch.live.standalone import running

    ended = asyncio.Event()
    for one in ENDED_BY:
        asyncio.get_running_loop().add_signal_handler(one, ended.set)
    async with running(wanted):
        if not settings.quiet:
            tell(ready)
        await ended.wait()


def _ports(given: list[str]) -> dict[int, str]:
    ports = dict[int, str]()
    for text in given:
        found = _PORT.fullmatch(text)
        if found is None:
            raise UsageError(f"--port {text}: write NUMBER=INTERFACE, for instance 1=tap0")
        number, ifname = int(found[1]), found[2]
        if number in ports or ifname in ports.values():
            raise UsageError(f"--port {text}: the number or the interface is given twice")
        ports[number] = ifname
    return ports


def _uplinks(given: list[int], ports: dict[int, str]) -> frozenset[int]:
    for number in given:
        if number not in ports:
            raise UsageError(f"--uplink {number}: no --port has this number")
    return frozenset(given)


def _number(text: str) -> int:
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number < 1 << 64:
        raise UsageError(f"--datapath-id {text}: write up to 16 hexadecimal digits")
    return number


def _identity(key: Path | None, certificate: Path | None, ca: Path | None) -> Identity | None:
    from vnet.switch.live.tls import Identity

    if key is None and certificate is None and ca is None:
        return None
    if key is None or certificate is None or ca is None:
        raise UsageError("TLS takes --private-key, --certificate and --ca-cert, all three")
    return Identity(key, certificate, ca)
