"""dnsmasq as a process: started with nothing it does not need, found again, told of changes, ended.

It is not bound to the daemon's life: it has a session of its own and, where the host allows it, a control
group. What an earlier daemon started is found by its number and the time it began.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live.process import start_ticks
from vnet.services.dhcp import Files

CONFIG, HOSTS, NAMES, LOG, PROCESS = "dnsmasq.conf", "hosts", "names", "log", "process.json"
LEASES = "leases"
LEASES_BYTES = 16 << 20
CAPABILITIES = ("net_admin", "net_raw", "net_bind_service")
"""To put an entry into its namespace's ARP table for a client that has no address yet, to hear who solicits
routers, to have ports below 1024. They count in its own namespace only: there is one interface in it."""
LOG_BYTES = 4 << 20
"""Of any file that it writes: a full log is cut off."""
READY_TIMEOUT_S = 5.0
END_TIMEOUT_S = 3.0
POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running dnsmasq. `pidfd` names it even when its number is used again."""

    pid: int
    pidfd: int

    def tell(self, number: signal.Signals) -> None:
        """Send a signal to exactly this process."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.pidfd)


def find_program() -> str | None:
    """The program's path, also where PATH has no programs of root's; None if it is not installed."""
    return shutil.which("dnsmasq", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def program() -> str:
    """The program's path. Raises HostError if it is not installed."""
    found = find_program()
    if found is None:
        raise HostError("there is no dnsmasq on this host; install it with `apt install dnsmasq-base`")
    return found


@dataclass(frozen=True, slots=True)
class Folders:
    """Where the files of one dnsmasq are. `told` is root's, and its user may read it; `own` is its user's.

    Whoever takes it over can change its leases, and nothing that the daemon trusts.
    """

    told: Path
    own: Path
    user: int = 0


def write(folders: Folders, files: Files) -> None:
    """Put what it is told, each file as a whole."""
    folders.told.mkdir(mode=0o750, exist_ok=True)
    os.chown(folders.told, 0, folders.user)
    for name, text in ((CONFIG, files.config), (HOSTS, files.hosts), (NAMES, files.names)):
        fresh = folders.told / f"{name}.new"
        with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o640), "w") as file:
            os.fchown(file.fileno(), 0, folders.user)
            file.write(text)
        fresh.replace(folders.told / name)


def leases(folders: Folders) -> str:
    """What its lease file holds; empty if there is none, or none that can be one."""
    try:
        file = os.open(folders.own / LEASES, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return ""
    with open(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            return ""
        return opened.read(LEASES_BYTES).decode(errors="replace")


def start(folders: Folders, netns: Path) -> int:
    """Start it and wait until it answers. Returns its process number.

    Raises: HostError with what it said.
    """
    command = [*_confinement(netns, folders.user), program(), *_arguments(folders)]
    log = folders.told / LOG
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                restore_signals=False,  # SIGXFSZ stays ignored: a full log is cut off, not deadly
                cwd="/",
            )
    except OSError as error:
        raise HostError(f"cannot start `{' '.join(command)}`: {error}") from error
    _note(folders, child.pid)
    deadline_s = time.monotonic() + READY_TIMEOUT_S
    while b"started, version" not in log.read_bytes():
        if child.poll() is not None or time.monotonic() > deadline_s:
            child.kill()
            child.wait()
            said = log.read_text(errors="replace").strip()
            raise HostError(f"dnsmasq did not start: {said or 'it said nothing'}\n  `{' '.join(command)}`")
        time.sleep(POLL_S)
    return child.pid


def _confinement(netns: Path, user: int) -> tuple[str, ...]:
    """What stands before its own command line: see nsenter(1), prlimit(1) and setpriv(1)."""
    capabilities = ",".join(["-all", *(f"+{name}" for name in CAPABILITIES)])
    return (
        *("nsenter", f"--net={netns}", "--"),
        *("prlimit", f"--fsize={LOG_BYTES}", "--core=0", "--"),
        *("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--no-new-privs"),
        *(f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}", f"--bounding-set={capabilities}"),
        "--",
    )


def _arguments(folders: Folders) -> tuple[str, ...]:
    return (
        "--keep-in-foreground",
        "--pid-file=",
        f"--conf-file={folders.told / CONFIG}",
        f"--dhcp-hostsfile={folders.told / HOSTS}",
        f"--addn-hosts={folders.told / NAMES}",
        f"--dhcp-leasefile={folders.own / LEASES}",
    )


def _note(folders: Folders, pid: int) -> None:
    """Remember the process, for the next daemon."""
    (folders.told / PROCESS).write_text(json.dumps({"pid": pid, "start_ticks": start_ticks(pid)}))


def find(folders: Folders) -> Daemon | None:
    """The process that was noted, if it still is the one."""
    try:
        noted = json.loads((folders.told / PROCESS).read_text())
        pid, began = int(noted["pid"]), int(noted["start_ticks"])
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if began and start_ticks(pid) == began and not _has_ended(pid):
        return Daemon(pid, pidfd)
    os.close(pidfd)
    return None


def _has_ended(pid: int) -> bool:
    """Whether only its exit code is left; takes it if it is our child."""
    with suppress(ChildProcessError):
        if os.waitpid(pid, os.WNOHANG)[0] == pid:
            return True
    with suppress(OSError, IndexError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    return True


def end(folders: Folders) -> None:
    """End it; one that is not there is no error."""
    found = find(folders)
    if found is None:
        return
    try:
        for number in (signal.SIGTERM, signal.SIGKILL):
            found.tell(number)
            deadline_s = time.monotonic() + END_TIMEOUT_S
            while time.monotonic() < deadline_s:
                if _has_ended(found.pid):
                    return
                time.sleep(POLL_S)
    finally:
        found.close()
