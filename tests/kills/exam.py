"""Kills the daemon at a step of an operation, and looks at what the next one makes of it."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from tests.kills.commands import MADE, QuickLab, serve
from tests.kills.operations import FABRIC, WRITES, Operation, vms
from tests.vm.fabric_lab import PREFIX
from vnet.hv.freeze import WATCHDOG_S
from vnet.hv.live.backup_store import MANIFEST, UNFINISHED

RUNS = ("ready", "running", "paused", "starting", "stopping")
HALVES = (
    "*.part",
    "*.new",
    "*.moving",
    "*.copy",
    ".building-*",
    ".saving-*",
    ".removed-*",
    ".gone-*",
    "*.tmp",
)
"""Names of what is not finished."""
SETTLED_S = 40.0


@dataclass(frozen=True, slots=True)
class Killed:
    """What came of one: the step, whether the daemon died there, and what is wrong, if anything."""

    operation: str
    number: int
    step: str
    died: bool
    wrong: str = ""


class Daemons:
    """Daemons of a lab, one after the other: each takes over from one that was killed, and can be killed."""

    def __init__(self, host: QuickLab) -> None:
        self._host, self._cold = host, False
        self._process: BaseProcess | None = None

    def have(self, *, cold: bool) -> None:
        """One that answers, and that boots guests without templates if they are to be."""
        if self._is_alive() and cold == self._cold:
            return
        self._host.vnet("serve", "--stop")
        given = (self._host.directory, self._host.environment, cold)
        self._process, self._cold = MADE.Process(target=serve, args=given), cold
        self._process.start()
        assert _until(self._answers, 30.0), "no daemon answers"

    def dies(self, words: tuple[str, ...], number: int) -> bool:
        """Have a command done by one that dies at a step. Returns whether it did."""
        armed = self._host.directory / "armed"
        (self._host.directory / "steps").write_text("")
        armed.with_suffix(".new").write_text(str(number))
        armed.with_suffix(".new").rename(armed)
        try:
            self._host.run(*words, timeout_s=120)
        finally:
            armed.unlink()
        return _until(lambda: not self._is_alive(), 0.2) and self._was_killed()

    def _was_killed(self) -> bool:
        """Not: it had nothing more to do."""
        return self._process is not None and self._process.exitcode == -signal.SIGKILL

    def _is_alive(self) -> bool:
        return self._process is not None and self._process.is_alive()

    def _answers(self) -> bool:
        assert self._is_alive(), "the daemon ended at once: see killed.log"
        with socket.socket(socket.AF_UNIX) as peer:
            return peer.connect_ex(str(self._host.directory / "run" / "vnetd.sock")) == 0


@contextmanager
def daemons(host: QuickLab) -> Iterator[Daemons]:
    """Those of a lab; the last one is stopped."""
    made = Daemons(host)
    try:
        yield made
    finally:
        host.vnet("serve", "--stop")


def steps_of(host: QuickLab, by: Daemons, operation: Operation) -> list[str]:
    """All steps of an operation that nobody disturbs."""
    undisturbed = kill(host, by, operation, -1)
    assert not undisturbed.died and not undisturbed.wrong, undisturbed
    return (host.directory / "steps").read_text().splitlines()


def kill(host: QuickLab, by: Daemons, operation: Operation, number: int) -> Killed:
    """Kill at one step."""
    by.have(cold=operation.cold)
    for words in operation.prepare(host):
        host.vnet(*words)
    assert operation.look(host) == operation.before, f"{operation.name} cannot begin"
    words = operation.words(host)
    died = by.dies(words, number)
    steps = (host.directory / "steps").read_text().splitlines()
    by.have(cold=operation.cold)
    wrong = _wrong(host, operation, words)
    return Killed(operation.name, number, steps[-1] if died else "", died, wrong)


def _until(holds: Callable[[], bool], timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def _wrong(host: QuickLab, operation: Operation, words: tuple[str, ...]) -> str:
    """What the next daemon has not put right; empty if all is well."""
    allowed = (operation.before, operation.after)
    settled = _until(lambda: operation.look(host) in allowed, SETTLED_S)
    if not settled:
        return f"it is {operation.look(host)}: neither undone nor completed"
    if not _until(lambda: not left_over(host), 10.0):
        return f"left over: {left_over(host)}"
    if operation.look(host) != operation.after:
        done = host.run(*(operation.again(host) if operation.again else words), timeout_s=120)
        if done.code:
            return f"it cannot be done again: {done.told}"
        if operation.look(host) != operation.after:
            return f"done again it is {operation.look(host)}"
        if not _until(lambda: not left_over(host), 10.0):
            return f"left over after it was done again: {left_over(host)}"
    if (vms(host).get("a") or {}).get("state") in ("ready", "running"):
        done = host.run(*WRITES, timeout_s=WATCHDOG_S / 2)
        return f"a does not write: {done.told}" if done.code else ""
    return "" if (vms(host).get("a") or {}).get("state") in RUNS else damaged(host)


def left_over(host: QuickLab) -> list[str]:
    """All that a killed daemon may leave: processes, TAPs, groups, locks, wishes, halves of files."""
    rows = vms(host)
    up = {name for name, row in rows.items() if row["state"] in RUNS}
    pids = {row["pid"] for row in rows.values() if row["pid"]}
    return [
        *(f"process {line}" for line in _processes(host) if int(line.split()[0]) not in pids),
        *(f"group {each}" for each in _groups() if each.name not in up),
        *(
            f"folder {each}"
            for each in host.directory.glob(f"run/fabrics/{FABRIC}/vms/*")
            if each.stem not in up
        ),
        *(f"folder {each}" for each in host.directory.glob("run/workers/*/")),
        *(f"folder {each}" for each in host.directory.glob("state/exports/*/")),
        *(f"half {each}" for pattern in HALVES for each in _files(host, pattern)),
        *(f"half {each}" for each in _files(host, UNFINISHED) if each.with_name(MANIFEST).exists()),
        *(f"wish {each}" for each in _wishes(host) if up.intersection(each["vms"])),
        *(f"lock {each}" for each in _files(host, ".lock") if _is_held(each)),
        *_taps(rows, up),
    ]


def _processes(host: QuickLab) -> list[str]:
    listed = subprocess.run(["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True).stdout
    ours = (line.strip() for line in listed.splitlines() if str(host.directory) in line)
    return [line for line in ours if "qemu" in line.split()[1]]


def _wishes(host: QuickLab) -> list[dict[str, Any]]:
    """What VMs are to begin with at their next start: it goes as soon as they have."""
    files = host.directory.glob(f"state/snapshots/{FABRIC}/.next/*.json")
    return [json.loads(file.read_text()) for file in files]


def _groups() -> list[Path]:
    return list(Path("/sys/fs/cgroup").glob(f"**/vnet-{FABRIC}/*/"))


def _files(host: QuickLab, pattern: str) -> list[Path]:
    state = (each for each in (host.directory / "state").iterdir() if not each.is_symlink() and each.is_dir())
    return [found for folder in (host.directory / "run", *state) for found in folder.rglob(pattern)]


def _is_held(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)


def _taps(rows: dict[str, dict[str, Any]], up: set[str]) -> list[str]:
    """Each NIC has one, and QEMUs hold those of VMs that run; without VMs there is no fabric.

    Ports come before the NICs that are plugged in later: those may be held by nobody yet.
    """
    namespace = Path("/run/netns") / f"{PREFIX}{FABRIC}"
    if not rows:
        return [f"namespace {namespace}"] if namespace.exists() else []
    words = ["ip", "-n", namespace.name, "-j", "-d", "link"]
    told = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    taps = {link["ifname"]: link for link in told if link.get("linkinfo", {}).get("info_kind") == "tun"}
    wanted = {nic["name"] for row in rows.values() for nic in row["nics"]}
    may, must = {nic["name"] for name in up for nic in rows[name]["nics"]}, {f"{name}.eth0" for name in up}
    carriers = {name for name, link in taps.items() if "NO-CARRIER" not in link["flags"]}
    return [
        *(f"TAP {name}" for name in taps.keys() ^ wanted),
        *(f"carrier of {name}" for name in (carriers - may) | (must - carriers)),
    ]


def damaged(host: QuickLab) -> str:
    """What qemu-img finds wrong with disks that no QEMU has open."""
    for path in host.directory.glob("state/disks/*/*/*.qcow2"):
        done = subprocess.run(["qemu-img", "check", "-q", str(path)], capture_output=True, text=True)
        if done.returncode not in (0, 3):  # 3: clusters that belong to nobody, no harm to what is on the disk
            return f"{path}: {done.stderr}{done.stdout}"
    return ""
