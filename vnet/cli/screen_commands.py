"""Commands about the screens of VMs: vnc, screenshot."""

from __future__ import annotations

import sys
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated

import typer

from vnet.base.errors import HostError, UsageError
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, emit, tell
from vnet.cli.vm_commands import Vm


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(vnc)
    command(app)(screenshot)


def vnc(
    settings: Settings,
    vm: Vm,
    listen: Annotated[
        str,
        typer.Option("--listen", metavar="ADDRESS:PORT", help="Carry VNC from here; port 0 is any."),
    ] = "",
) -> None:
    """Print the unix socket where a VM's screen speaks VNC.

    With --listen it is carried to a TCP port.
    VNC asks for no password: whoever reaches the address sees the screen and types.
    """
    address = _address(listen) if listen else None
    answer = settings.daemon().get(path("fabrics", settings.fabric, "vms", vm, "vnc"))
    if address is not None:
        from vnet.cli.forwarding import forward  # only here: asyncio takes its time to import

        if not ip_address(address[0]).is_loopback:
            tell(f"whoever reaches {listen} sees the screen of {vm} and types: there is no password")
        forward(address, Path(answer["socket"]), f"VNC of {vm}")
    elif settings.output in (Format.JSON, Format.YAML):
        document(answer, settings.output)
    else:
        emit(answer["socket"])


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    try:
        ip_address(host)
    except ValueError:
        colon = ""
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise UsageError(f"--listen {text}: expected an address and a port such as 127.0.0.1:5901")
    return host, int(port)


def screenshot(
    settings: Settings,
    vm: Vm,
    target: Annotated[
        str,
        typer.Argument(
            metavar="[FILE]", help="VM.png if left out; - is standard output.", show_default=False
        ),
    ] = "",
) -> None:
    """Write what is on a VM's screen to a PNG file."""
    stream = settings.daemon().read(path("fabrics", settings.fabric, "vms", vm, "screenshot"))
    data = b"".join(stream)
    if target == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    picture = Path(target or f"{vm}.png")
    try:
        picture.write_bytes(data)
    except OSError as error:
        raise HostError(f"cannot write {picture}: {error.strerror}") from error
    tell(f"{picture}: {len(data)} bytes")
