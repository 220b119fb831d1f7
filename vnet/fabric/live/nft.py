"""nft(8), in the network namespace of the calling thread."""

from __future__ import annotations

import json
import os
import shutil
import socket
import struct
import subprocess
from hashlib import blake2b
from pathlib import Path
from typing import Any

from vnet.base.errors import HostError
from vnet.services import nft
from vnet.services.nft import Table

TIMEOUT_S = 20.0
_NETLINK_NETFILTER, _NLM_F_REQUEST = 12, 1
"""linux/netlink.h."""
_NEWGEN, _GETGEN, _GEN_ID = 10 << 8 | 15, 10 << 8 | 16, 1
"""Messages of NFNL_SUBSYS_NFTABLES, and the attribute with the number (linux/netfilter/nf_tables.h)."""


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


class Digests:
    """Of tables, each looked at again only after rules of its namespace have changed."""

    def __init__(self) -> None:
        self._known: dict[tuple[int, str], tuple[int, str]] = {}

    def of(self, name: str) -> str:
        """That of a table."""
        key, now = (Path("/proc/thread-self/ns/net").stat().st_ino, name), generation()
        then, known = self._known.get(key, (0, ""))
        if then != now:
            known = digest(name)
            self._known[key] = now, known
        return known


def generation() -> int:
    """The number of the rules in the namespace: another one after every change.

    Source: linux/netfilter/nf_tables.h, NFT_MSG_GETGEN.
    """
    request = struct.pack("=IHHIIBBH", 20, _GETGEN, _NLM_F_REQUEST, 1, 0, socket.AF_UNSPEC, 0, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        netlink.settimeout(TIMEOUT_S)
        try:
            netlink.send(request)
            answer = netlink.recv(4096)
        except OSError as error:
            raise HostError(f"cannot ask for the generation of the rules: {error}") from error
    kind, attribute = struct.unpack_from("=4xH", answer)[0], struct.unpack_from("=2xH", answer, 20)[0]
    if (kind, attribute) != (_NEWGEN, _GEN_ID):
        raise HostError("the kernel does not tell the generation of the rules")
    return int(struct.unpack_from(">I", answer, 24)[0])


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
