"""Starts the daemon when a command needs it and none runs, and waits for it to end."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import NoReturn

from vnet.base import paths
from vnet.base.errors import HostError, TimedOut
from vnet.cli.client import Client

START_TIMEOUT_S = 60.0
"""Adopting many guests takes its time; a daemon that fails says so much earlier."""
STOP_TIMEOUT_S = 15.0
LOG_BYTES = 8 << 20
"""Of a log that the next daemon would go on with."""
_POLL_S = 0.02
_COMMAND = [sys.executable, "-P", "-m", "vnet.api"]


def log_file() -> Path:
    """Where a daemon that a command started writes what it has to say."""
    return paths.state_dir() / "log" / "vnetd.log"


def has_fabrics() -> bool:
    """Whether there may be something to ask a daemon about; a host without fabrics answers without one."""
    path = paths.state_dir() / "vnet.db"
    if not path.exists():
        return False
    import sqlite3
    from contextlib import closing

    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            return bool(database.execute("SELECT count(*) FROM fabric").fetchone()[0])
    except sqlite3.Error:
        return True  # the daemon explains what is wrong with it


def ensure(client: Client) -> None:
    """Make sure that a daemon answers, starting one if need be."""
    if client.alive():
        return
    if os.geteuid() != 0:
        raise HostError(
            "vnetd does not run and only root can start it: run the command as root, or with sudo"
        )
    log = log_file()
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        _bound(log)
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600), "ab") as output:
            begins = output.tell()
            daemon = _spawn(output.fileno())
    except OSError as error:
        raise HostError(f"cannot start vnetd: {error.strerror}: {error.filename}") from error
    _wait_until_ready(client, daemon, log, begins)


def _bound(log: Path) -> None:
    """Begin a new log once the one before is long; that one is kept."""
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_name(f"{log.name}.1"))


def become(*options: str) -> NoReturn:
    """Turn this process into the daemon, which takes these options (`vnet.api.__main__`)."""
    sys.stderr.flush()
    os.execve(sys.executable, [*_COMMAND, *options], _environment())


def _environment() -> dict[str, str]:
    """This process's, with this very vnet first on the module path."""
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))
    return {**os.environ, "PYTHONPATH": path}


def _spawn(output: int) -> subprocess.Popen[bytes]:
    """A daemon in a session of its own, so that no Ctrl-C and no closed terminal reaches it."""
    return subprocess.Popen(
        [*_COMMAND, "--auto"],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        cwd="/",
        env=_environment(),
        start_new_session=True,
    )


def _wait_until_ready(client: Client, daemon: subprocess.Popen[bytes], log: Path, begins: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while not client.alive():
        if daemon.poll() is not None and not client.alive():
            raise HostError(f"vnetd ended at once:\n{_tail(log, begins) or _why_silent(log)}")
        if time.monotonic() > deadline:
            raise TimedOut(f"vnetd is not ready after {START_TIMEOUT_S:g} s; see {log}")
        time.sleep(_POLL_S)


def _tail(log: Path, begins: int) -> str:
    with log.open("rb") as file:
        file.seek(begins)
        return file.read()[-4000:].decode(errors="replace").strip()


def _why_silent(log: Path) -> str:
    """A daemon that cannot write to its log cannot tell that there is no room for its database either."""
    if os.statvfs(log.parent).f_bavail == 0:
        return f"no space left on device: {log.parent}; free some, nothing was changed"
    return f"it said nothing, not even in {log}"


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
