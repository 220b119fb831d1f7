"""`vnet ssh`, `ssh-config`, `ssh-proxy`: SSH into VMs, whether a network leads there or not."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.cli.client import path
from vnet.cli.options import Settings, command
from vnet.cli.streams import Guest
from vnet.cli.vm_commands import Vm

_WAIT_S = 120.0
"""A distribution takes so long to boot where nothing helps the processor."""
_SSH_PORT = 22


def register(app: typer.Typer) -> None:
    """Add these commands."""
    whole_line = {"ignore_unknown_options": True, "allow_interspersed_args": False}
    command(app, context_settings=whole_line)(ssh)
    command(app)(ssh_config)
    command(app)(ssh_proxy)


def ssh(
    settings: Settings,
    vm: Vm,
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[OPTION...] [COMMAND...]", show_default=False)
    ] = None,
) -> int:
    """Log in to a VM by SSH, or run a command there.

    The exit code is the command's own.
    It needs no network to the VM: the connection goes through its machine.
    What stands behind the VM's name is ssh's own, options first. The keys of
    the server are learnt from the VM's agent, so they need not be believed.
    """
    if shutil.which("ssh") is None:
        raise HostError("there is no ssh: install openssh-client")
    guest = _guest(settings, vm)
    keys, user = guest.who()
    with _known_hosts(_alias(guest), keys) as known:
        options = [f"-o{name}={value}" for name, value in _options(settings, guest, user, known)]
        rest = (words or [])[1:] if words and words[0] == "--" else words or []
        flags = _leading_options(rest)
        line = ["ssh", *options, *rest[:flags], _alias(guest), *rest[flags:]]
        return subprocess.run(line).returncode


def _leading_options(words: list[str]) -> int:
    """How many of the words are options of ssh with their values; the command begins behind them."""
    number = 0
    while number < len(words) and words[number].startswith("-") and len(words[number]) > 1:
        takes_value = words[number][-1] in "BbcDEeFIiJLlmOopQRSWw" and len(words[number]) == 2
        number += 2 if takes_value else 1
    return min(number, len(words))


def ssh_config(
    settings: Settings, vm: Annotated[str, typer.Argument(metavar="[VM]", show_default=False)] = ""
) -> None:
    """Print what OpenSSH needs to know of VMs.

    With it ssh, scp, rsync and Ansible reach them by their names.
    For one VM, or for all that boot an image of a distribution. It holds as long
    as the keys of their servers do.
    """
    rows = settings.daemon().get(path("vms"), fabric=settings.fabric)
    names = [vm] if vm else [row["vm"] for row in rows if row["image"] != "micro" and row["pid"]]
    for name in names:
        guest = _guest(settings, name)
        keys, user = guest.who()
        known = _kept_known_hosts(guest, keys)
        lines = [f"  {key} {value}" for key, value in _options(settings, guest, user, known)]
        print("\n".join([f"Host {name} {_alias(guest)}", *lines, ""]))


def ssh_proxy(
    settings: Settings,
    vm: Vm,
    port: Annotated[int, typer.Argument(min=1, max=65535, help="Its TCP port.")] = _SSH_PORT,
) -> None:
    """Join this command's ends with a TCP port of a VM.

    One of its own 127.0.0.1, for the ProxyCommand of ssh.
    No network carries it, so no policy is asked: whoever may use `vnet exec` may use this.
    """
    _guest(settings, vm).relay(port, sys.stdin.fileno(), sys.stdout.fileno())


def _guest(settings: Settings, vm: str) -> Guest:
    client = settings.daemon()
    fabric = client.get(path("fabrics", settings.fabric))["fabric"]
    return Guest(client, fabric, vm, settings.timeout_s or _WAIT_S)


def _alias(guest: Guest) -> str:
    return f"{guest.vm}.{guest.fabric}.vnet"


def _options(settings: Settings, guest: Guest, user: str, known: Path) -> Iterator[tuple[str, str]]:
    yield "ProxyCommand", f"{_program()} -q -n {guest.fabric} ssh-proxy {guest.vm} %p"
    yield "HostKeyAlias", _alias(guest)
    yield "UserKnownHostsFile", str(known)
    yield "StrictHostKeyChecking", "yes"
    if user:
        yield "User", user
    key = paths.ssh_dir() / "id_ed25519"
    if os.access(key, os.R_OK):
        yield "IdentityFile", str(key)


def _program() -> str:
    """How this command is called, from wherever ssh does it."""
    found = shutil.which(sys.argv[0])
    return shlex.quote(str(Path(found).absolute())) if found else f"{shlex.quote(sys.executable)} -m vnet"


@contextmanager
def _known_hosts(alias: str, keys: tuple[str, ...]) -> Iterator[Path]:
    with tempfile.NamedTemporaryFile("w", prefix="vnet-known-hosts-") as file:
        file.write(_lines(alias, keys))
        file.flush()
        yield Path(file.name)


def _kept_known_hosts(guest: Guest, keys: tuple[str, ...]) -> Path:
    """A file of the user's own: the configuration names it."""
    folder = Path(os.environ.get("XDG_STATE_HOME", Path.home() / ".local/state")) / "vnet"
    file = folder / "known_hosts"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        before = file.read_text().splitlines() if file.exists() else []
        others = [line for line in before if line.split(" ")[0] != _alias(guest)]
        beside = file.with_name(f".known_hosts-{os.getpid()}")
        beside.write_text("".join(f"{line}\n" for line in others) + _lines(_alias(guest), keys))
        beside.replace(file)
    except OSError as error:
        raise HostError(f"cannot write {file}: {error.strerror}") from error
    return file


def _lines(alias: str, keys: tuple[str, ...]) -> str:
    return "".join(f"{alias} {key}\n" for key in keys)
