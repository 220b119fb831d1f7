"""Commands about one VM: start, stop, exec, console, logs."""

from __future__ import annotations

import re
import sys
from base64 import b64decode, b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from vnet.base.errors import UsageError
from vnet.cli import given
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.output import Format, document, tell
from vnet.cli.records import Follow, print_records, printable

Vm = Annotated[
    str, typer.Argument(metavar="VM", help="Name of the VM, for instance web-1.", show_default=False)
]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    command(app)(start)
    command(app)(stop)
    command(app)(pause)
    command(app)(resume)
    command(app)(reset)
    whole_line = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    command(app, context_settings=whole_line)(exec_)
    command(app)(console)
    command(app)(logs)


def start(
    settings: Settings,
    vm: Vm,
    boot: Annotated[
        bool, typer.Option("--boot", help="Also one that is suspended: what is in its memory is lost.")
    ] = False,
) -> None:
    """Start a VM that was stopped, has died or is suspended.

    A suspended one goes on where it was. Waits until its agent answers.
    """
    where = path("fabrics", settings.fabric, "vms", vm, "start")
    outcome = settings.daemon().run("POST", where, {"boot": boot}, settings.report)
    if not outcome["actions"]:
        tell(f"{vm} runs already")


def stop(
    settings: Settings,
    vm: Vm,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Seconds before it is ended by force.")] = 10.0,
) -> None:
    """Power a VM off; its ports, addresses and rules stay."""
    body = {"timeout_s": wait}
    settings.daemon().run("POST", path("fabrics", settings.fabric, "vms", vm, "stop"), body, settings.report)


def pause(settings: Settings, vm: Vm) -> None:
    """Let a VM stand still.

    It computes nothing, and keeps its memory, ports and connections.
    """
    _do("pause", settings, vm)


def resume(settings: Settings, vm: Vm) -> None:
    """Let a paused or suspended VM go on."""
    _do("resume", settings, vm)


def reset(settings: Settings, vm: Vm) -> None:
    """Press a VM's reset button: it boots again, unasked.

    Waits until its agent answers.
    """
    _do("reset", settings, vm)


def _do(what: str, settings: Settings, vm: str) -> None:
    settings.daemon().run("POST", path("fabrics", settings.fabric, "vms", vm, what), {}, settings.report)


def exec_(
    settings: Settings,
    vm: Vm,
    argv: Annotated[list[str], typer.Argument(metavar="COMMAND...", help="The command and its arguments.")],
) -> int:
    """Run a command in a VM; the exit code is the command's own.

    What is piped into it is the command's standard input.
    """
    body = {
        "argv": _words(argv),
        "timeout_s": settings.timeout_s or 60.0,
        "stdin": b64encode(given.standard_input()).decode(),
    }
    client = settings.daemon()
    client.timeout_s = None
    answer = client.run("POST", path("fabrics", settings.fabric, "vms", vm, "exec"), body, settings.report)
    output, errors = b64decode(answer["stdout"]), b64decode(answer["stderr"])
    if settings.output in (Format.JSON, Format.YAML):
        texts = {"stdout": output.decode(errors="replace"), "stderr": errors.decode(errors="replace")}
        document({"exit_code": answer["exit_code"], **texts}, settings.output)
    else:
        sys.stdout.buffer.write(output)
        sys.stdout.buffer.flush()
        sys.stderr.buffer.write(errors)
        sys.stderr.buffer.flush()
    return int(answer["exit_code"])


def _words(argv: list[str]) -> list[str]:
    """The command. What looks like an option of ours stands in the wrong place, and is not run."""
    if argv[0] == "--":
        return argv[1:]
    if argv[0].startswith("-"):
        raise UsageError(f"{argv[0]} is no command; options of vnet stand before the VM's name")
    return argv


def console(settings: Settings, vm: Vm) -> None:
    """Attach this terminal to a VM's serial console; Ctrl-] ends."""
    from vnet.cli.console import attach

    answer = settings.daemon().get(path("fabrics", settings.fabric, "vms", vm, "console"))
    attach(Path(answer["socket"]), vm)


def logs(
    settings: Settings,
    vm: Vm,
    follow: Follow = False,
    lines: Annotated[
        int | None, typer.Option("--lines", min=0, metavar="N", help="Only the last so many.")
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of the start before this one: why it ended.")
    ] = False,
) -> None:
    """Print what a VM printed on its serial console.

    Of this start, also when it has ended; `-o json` as JSON Lines.
    """
    if follow and previous:
        raise UsageError("--previous is over: leave --follow out")
    query = {"lines": lines, "follow": "1" if follow else None, "previous": "1" if previous else None}
    client = settings.daemon()
    if follow:
        client.timeout_s = None
    stream = client.read(path("fabrics", settings.fabric, "vms", vm, "logs"), **query)
    try:
        print_records(stream, settings.output, in_words)
    finally:
        stream.close()


_ESCAPE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|[@-Z\\-_])")
"""What terminals take as commands. Source: ECMA-48, 5.3 and 5.4."""


def in_words(record: Mapping[str, Any]) -> str:
    """One line for a terminal, which the guest must not command."""
    return printable(_ESCAPE.sub("", record["text"]).expandtabs())
