"""A host of its own for whole-product tests: own directories, namespace prefix and pins, checked at the end.

The guest image is shared with the other tests through `VNET_TEST_IMAGES`, else the host's image cache.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from tests import leftovers
from tests.waiting import until

ROOT = Path(__file__).resolve().parents[2]
PREFIX = leftovers.prefix("vm")
Kind = TypeVar("Kind", bound="Lab")


class Lab:
    """Runs `vnet` and looks at what is there. `within` is the namespace that plays the host, if one does."""

    def __init__(self, directory: Path, within: str = "") -> None:
        self.directory = directory
        self._enter = ["nsenter", f"--net=/run/netns/{within}"] if within else []
        self.pins = leftovers.pins("vm")
        images = Path(os.environ.get("VNET_TEST_IMAGES", "/var/lib/vnet/images"))
        images.mkdir(parents=True, exist_ok=True)
        (directory / "state").mkdir(parents=True)
        (directory / "state" / "images").symlink_to(images)
        directory.chmod(0o755)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("VNET_")},
            "VNET_RUN_DIR": str(directory / "run"),
            "VNET_STATE_DIR": str(directory / "state"),
            "VNET_BPF_DIR": str(self.pins),
            "VNET_NETNS_PREFIX": PREFIX,
            "PYTHONPATH": str(ROOT),
        }

    def have_image(self) -> None:
        """Make the guest image if there is none: where the host is played, no package mirror is reached."""
        run = "from vnet.hv.live.image import ensure; ensure(print)"
        subprocess.run([sys.executable, "-c", run], check=True, env=self.environment, cwd=ROOT)

    def start(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        command = [*self._enter, sys.executable, "-m", "vnet", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.environment, cwd=ROOT)

    def vnet(self, *words: str, expect: int = 0, timeout_s: float = 300) -> str:
        """What a command printed; its exit code must be the expected one."""
        process = self.start(*words)
        try:
            output, told = process.communicate(timeout=timeout_s)
        finally:
            process.kill()
        assert process.returncode == expect, (
            f"vnet {' '.join(words)}: {process.returncode}\n{told}\n{self.log()}"
        )
        return output if expect == 0 else told

    def json(self, *words: str) -> Any:
        """What a command printed, as a value."""
        return json.loads(self.vnet(*words, "-o", "json"))

    def log(self) -> str:
        """What the daemon said."""
        with suppress(OSError):
            return (self.directory / "state" / "log" / "vnetd.log").read_text()[-4000:]
        return ""

    def kill_daemon(self) -> None:
        """SIGKILL, as the kernel's out-of-memory killer would."""
        pid = until(self._daemon)  # a command may be about to start it
        os.kill(pid, signal.SIGKILL)
        while (
            Path(f"/proc/{pid}").exists()
            and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]
        ):
            time.sleep(0.01)

    def _daemon(self) -> int:
        """Its process, 0 if there is none."""
        with suppress(OSError, ValueError):
            pid = int((self.directory / "run" / "vnetd.lock").read_text())
            os.kill(pid, 0)
            return pid
        return 0

    def left_over(self) -> dict[str, list[str]]:
        """Everything that a fabric may leave behind: nothing, when all is well."""
        run = self.directory / "run"
        processes = subprocess.run(
            ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
        ).stdout
        return {
            "processes": [line for line in processes.splitlines() if f"{run}/" in line],
            "daemon": [line for line in processes.splitlines() if "vnet.api" in line and self._ours(line)],
            "namespaces": [path.name for path in Path("/run/netns").glob(f"{PREFIX}*")],
            "pins": [path.name for path in self.pins.glob("*")] if self.pins.exists() else [],
            "run": [str(path) for path in run.glob("fabrics/*")],
            "services": [str(path) for path in self.directory.glob("state/services/*")],
            "gateways": [str(path) for path in self.directory.glob("state/gateways/*")],
        }

    def _ours(self, line: str) -> bool:
        with suppress(OSError):
            return str(self.directory).encode() in Path(f"/proc/{line.split()[0]}/environ").read_bytes()
        return False

    def until_vm(self, name: str, **wanted: str) -> Any:
        """A VM's row of `ps` once it says what is wanted."""
        return until(
            lambda: next(row for row in self.json("ps") if row["vm"] == name),
            every_s=0.2,
            holds=lambda row: wanted.items() <= row.items(),
        )

    def nothing_is_left(self) -> bool:
        """Whether nothing is left over; a process that has just been told to end gets a moment."""
        deadline = time.monotonic() + 5
        while any(self.left_over().values()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True


@contextmanager
def lab(within: str = "", kind: type[Kind] = Lab) -> Iterator[Kind]:
    """A lab that is swept at the end, whatever the test did, and that must be clean after its own sweep.

    Its directory is not pytest's: QEMU, which runs as nobody in particular, must be able to reach it.
    """
    directory = Path(tempfile.mkdtemp(prefix=PREFIX))
    made = kind(directory, within)
    try:
        yield made
    finally:
        with suppress(AssertionError):
            for fabric in {row["fabric"] for row in made.json("ps")}:
                made.vnet("down", "-n", fabric)
            made.vnet("serve", "--stop")
        assert made.nothing_is_left(), made.left_over()
        shutil.rmtree(made.pins, ignore_errors=True)
        shutil.rmtree(directory)
