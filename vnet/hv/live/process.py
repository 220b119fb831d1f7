"""QEMU as a process: started with nothing it does not need, found again, watched, ended.

It gets a user of its own, no capabilities and no way to new ones, a network namespace with nothing in
it, and only the descriptors it is handed. It is not bound to the manager's life.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from vnet.base.errors import HostError
from vnet.hv.live.cgroup import Cgroup

_LOG_BYTES = 1 << 20
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(slots=True)
class Process:
    """A running or ended QEMU. `pidfd` names it even when its number is used again."""

    pid: int
    pidfd: int
    child: subprocess.Popen[bytes] | None = None
    """Set when it is our child: then it has to be waited for."""

    def alive(self) -> bool:
        """Whether it still runs."""
        poller = select.poll()
        poller.register(self.pidfd, select.POLLIN)
        return not poller.poll(0)

    def kill(self) -> None:
        """SIGKILL, to exactly this process."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    async def wait(self, timeout_s: float | None) -> bool:
        """Waits for its end; False if it still runs after `timeout_s` (None: however long it takes)."""
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        watched = os.dup(self.pidfd)  # the loop watches a descriptor once, others may watch ours
        loop.add_reader(watched, ended.set)
        try:
            async with asyncio.timeout(timeout_s):
                await ended.wait()
        except TimeoutError:
            return False
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        self.reap()
        return True

    def allow_files(self, file_bytes: int, user: int) -> None:
        """Lets it, which `user` runs, make its files so long from now on; it never may less than already."""
        wanted, (soft, hard) = file_limit(file_bytes), _limits(self.pid)
        if soft == _UNLIMITED or int(soft) >= wanted:
            return
        if hard == _UNLIMITED:  # then its user may, see `_file_limits`
            _run_as(user, ("prlimit", f"--pid={self.pid}", f"--fsize={wanted}:"))
        else:
            resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (wanted, wanted))

    def reap(self) -> None:
        """Takes the exit code of an ended child, so that it does not stay behind as a zombie."""
        if self.child is not None:
            self.child.poll()

    def close(self) -> None:
        """Gives the descriptor back; the process is not touched."""
        self.reap()
        os.close(self.pidfd)

    def resident_bytes(self) -> int:
        """Memory it holds now, 0 once it has ended."""
        try:
            fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            return 0
        return int(fields[1]) * _PAGE_BYTES if len(fields) > 1 else 0

    def uptime_s(self) -> float:
        """Seconds since it was started, 0 once it has ended."""
        began = start_ticks(self.pid)
        return time.clock_gettime(time.CLOCK_BOOTTIME) - began / _TICKS if began else 0.0


def launch(
    command: Sequence[str],
    *,
    user: int,
    groups: Iterable[int],
    fds: Iterable[int],
    log: Path,
    cgroup: Cgroup,
    file_bytes: int = 0,
) -> Process:
    """Starts QEMU and returns at once; whether it comes up is seen on its monitor.

    Args:
        file_bytes: how long its largest file may become: a disk; its log may have a little at least.

    Raises:
        HostError: a program is missing or the kernel refused.
    """
    words = (*confinement(user, groups, file_limit(file_bytes)), *command)
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "wb") as output:
            child = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=tuple(fds),
                start_new_session=True,
                restore_signals=False,  # SIGXFSZ stays ignored: a full log is cut off, not deadly
                cwd="/",
            )
    except OSError as error:
        raise HostError(f"cannot start `{' '.join(words)}`: {error}") from error
    cgroup.add(child.pid)  # the programs in front of QEMU are still at work
    return Process(child.pid, os.pidfd_open(child.pid), child)


_UNLIMITED = "unlimited"


def _limits(pid: int) -> tuple[str, str]:
    """How long a process may make its files, and up to where that may be raised. Source: proc(5)."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    soft, hard, *_ = next(line for line in lines if line.startswith("Max file size")).split()[3:]
    return soft, hard


def _run_as(user: int, command: tuple[str, ...]) -> None:
    words = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--", *command)
    try:
        subprocess.run(words, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", "") or error
        raise HostError(f"`{' '.join(words)}` failed: {told}") from error


def file_limit(file_bytes: int) -> int:
    """How long QEMU may make any of its files when it needs one so long."""
    return max(_LOG_BYTES, file_bytes)


def confinement(user: int, groups: Iterable[int], file_bytes: int) -> tuple[str, ...]:
    """What stands before QEMU's own command line; each word can be read in setpriv(1) and unshare(1)."""
    numbers = ",".join(str(group) for group in groups)
    return (
        *("unshare", "--net", "--ipc", "--"),
        *("prlimit", f"--fsize={_file_limits(file_bytes)}", "--core=0", "--"),
        *("setpriv", f"--reuid={user}", f"--regid={user}"),
        f"--groups={numbers}" if numbers else "--clear-groups",
        *("--no-new-privs", "--inh-caps=-all", "--bounding-set=-all", "--"),
    )


def _file_limits(file_bytes: int) -> str:
    """The limit that holds, and the one up to which it can be raised later, for a disk that grows.

    Who lacks a capability, as root does in some containers, cannot raise the latter when it is needed.
    """
    return f"{file_bytes}" if _can_raise_limits() else f"{file_bytes}:{_UNLIMITED}"


def _can_raise_limits() -> bool:
    text = Path("/proc/self/status").read_text()
    effective = next(line.split()[1] for line in text.splitlines() if line.startswith("CapEff:"))
    return bool(int(effective, 16) >> _CAP_SYS_RESOURCE & 1)


_CAP_SYS_RESOURCE = 24
"""Source: linux/capability.h."""


def find(pid_file: Path, *, user: int) -> Process | None:
    """The QEMU that a pid file names, if it still is the one that was told to write it, run by that user.

    The file belongs to QEMU's user and is not trusted: user and command line of the process decide.
    """
    try:
        pid = int(pid_file.read_text())
        pidfd = os.pidfd_open(pid)
    except (OSError, ValueError, OverflowError):
        return None
    if _writes(pid, pid_file, user):
        return Process(pid, pidfd)
    os.close(pidfd)
    return None


def search(pid_file: Path, *, user: int) -> Process | None:
    """The same by looking at every process: for a QEMU so young that it has no pid file yet."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and _writes(int(entry.name), pid_file, user):
            with contextlib.suppress(ProcessLookupError):
                return Process(int(entry.name), os.pidfd_open(int(entry.name)))
    return None


def _writes(pid: int, pid_file: Path, user: int) -> bool:
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):
        return False
    # Before setpriv has done its work the command line is complete but the user is still root.
    return owner in (user, 0) and (b"-pidfile", str(pid_file).encode()) in pairwise(words)


def start_ticks(pid: int) -> int:
    """When a process began, in clock ticks since boot; 0 if there is none. Source: proc(5), stat field 22."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return int(text.rpartition(")")[2].split()[19])
