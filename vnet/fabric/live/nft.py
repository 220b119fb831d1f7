"""nft(8), in the network namespace of the calling thread."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from hashlib import blake2b
from typing import Any

from vnet.base.errors import HostError
from vnet.services import nft
from vnet.services.nft import Table

TIMEOUT_S = 20.0


def find_program() -> str | None:
    """The program's path, also where PATH has no programs of root's; None if it is not installed."""
    return shutil.which("nft", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def put(table: Table) -> None:
    """Have exactly this table, from one packet to the next."""
    _run("-f", "-", text=table.text())


def remove(name: str) -> None:
    """Remove a table; one that is not there is no error."""
    _run("-f", "-", text=nft.remove(name))


def digest(name: str) -> str:
    """Of a table as the kernel has it, without its counters; empty if it is not there."""
    try:
        return blake2b(_run("-s", "list", "table", "inet", name).encode(), digest_size=16).hexdigest()
    except HostError:
        return ""


def ruleset() -> list[dict[str, Any]]:
    """All of it, as libnftables-json(5) has it: a list of tables, chains, rules and so on."""
    found: list[dict[str, Any]] = json.loads(_run("-j", "list", "ruleset") or "{}").get("nftables", [])
    return found


def _run(*words: str, text: str = "") -> str:
    program = find_program()
    if program is None:
        raise HostError("there is no nft on this host; install it with `apt install nftables`")
    command = [program, *words]
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"cannot run `{' '.join(command)}`: {error}") from error
    if done.returncode:
        raise HostError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")
    return done.stdout
