"""Starts the daemon when a command needs it and none runs, and waits for it to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError, TimedOut
from vnet.cli.client import Client

START_TIMEOUT_S = 60.0
"""Adopting many guests takes its time; a daemon that fails says so much earlier."""
STOP_TIMEOUT_S = 15.0
_POLL_S = 0.02


def log_file() -> Path:
    """Where a daemon that a command started writes what it has to say."""
    return paths.state_dir() / "log" / "vnetd.log"


def has_fabrics() -> bool:
    """Whether there may be something to ask a daemon about; a fresh host answers without one."""
    return (paths.state_dir() / "vnet.db").exists()


def ensure(client: Client) -> None:
    """Make sure that a daemon answers, starting one if need be."""
    if client.alive():
        return
    if os.geteuid() != 0:
        raise HostError("vnetd does not run and only root can start it: run the command as root, or with sudo")
    log = log_file()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            begins = output.tell()
            daemon = _spawn(output.fileno())
    except OSError as error:
        raise HostError(f"cannot start vnetd: {error.strerror}: {error.filename}") from error
    _wait_until_ready(client, daemon, log, begins)


def _spawn(output: int) -> subprocess.Popen[bytes]:
    """A daemon in a session of its own, so that no Ctrl-C and no closed terminal reaches it."""
    command = [sys.executable, "-m", "vnet", "serve", "--auto"]
    environment = dict(os.environ)
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (root, environment.get("PYTHONPATH"))))
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=environment,
        start_new_session=True,
    )


def _wait_until_ready(client: Client, daemon: subprocess.Popen[bytes], log: Path, begins: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.alive():
        if daemon.poll() is not None and not client.alive():
            raise HostError(f"vnetd ended at once:\n{_tail(log, begins)}")
        if time.monotonic() > deadline:
            raise TimedOut(f"vnetd is not ready after {START_TIMEOUT_S:g} s; see {log}")
        time.sleep(_POLL_S)


def _tail(log: Path, begins: int) -> str:
    with log.open("rb") as file:
        file.seek(begins)
        return file.read()[-4000:].decode(errors="replace").strip()


def wait_for_end(pid: int) -> None:
    """Wait until the daemon that said it would end has ended."""
    deadline = time.monotonic() + STOP_TIMEOUT_S
    while _lives(pid):
        if time.monotonic() > deadline:
            raise TimedOut(f"vnetd (pid {pid}) has not ended after {STOP_TIMEOUT_S:g} s; see {log_file()}")
        time.sleep(_POLL_S)


def _lives(pid: int) -> bool:
    """Whether the process runs; a zombie waits only for its parent and does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in ("Z", "X")
