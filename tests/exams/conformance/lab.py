"""One place of examination: a namespace with the target, the tester's switch, three links and a tester."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from tests.exams import own_switch
from tests.exams.conformance.cases import Case
from tests.ovs import OpenVSwitch

ROOT = Path(__file__).parents[3]
VENV = ROOT / "build" / "venv-conformance"
TESTER = Path(__file__).parent / "os_ken_tester.py"
SWITCHES = ("ovs", "vnet")
CONTROLLER = "tcp:127.0.0.1:6653"
LINKS = (1, 2, 3)
TARGET_ID, TESTER_ID = 1, 2

READY_S = 30.0
FULL_LOAD = 0.97
URGENT = -10
"""How nice the processes of a lab are that must keep up with a heavy load."""
RECEIVE_BYTES = 8 << 20
"""What the tester's switch can hold of what it has no time to count yet; what it loses looks like the
target's fault."""
GRACE_S = 30.0
"""How much longer than its load a case may take; a case that waits for an answer in vain ends by itself."""

_serial = count(1)


class LabError(RuntimeError):
    """The place of examination does not work; the text holds what its processes wrote."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How a case ended. `reason` is empty if it passed.

    `load` is the part of the packets asked for that the machine could send: of a failure with less than
    `FULL_LOAD` the switch may be innocent.
    """

    key: str
    passed: bool
    reason: str
    seconds: float
    load: float = 1.0


def cases_folder() -> Path:
    """Where the cases of OpenFlow 1.3 lie. Raises LabError if the environment is not there."""
    found = list(VENV.glob("lib/python3*/site-packages/os_ken/tests/switch/of13"))
    if not found:
        raise LabError("the tests of os-ken are not installed: run `tools/setup.sh conformance`")
    return found[0]


class Lab:
    """Use as a context; after it nothing is left. `examine` may be called from one thread at a time."""

    def __init__(self, switch: str, repair_sctp: bool = False, urgent: bool = False) -> None:
        assert switch in SWITCHES
        self.switch, self._repair_sctp, self._urgent = switch, repair_sctp, urgent
        self.namespace = f"vnt-exam{os.getpid()}-{next(_serial)}"
        self._stack = contextlib.ExitStack()
        self._processes: list[subprocess.Popen[bytes]] = []
        self._tester: subprocess.Popen[bytes] | None = None
        self._interrupted = False

    def __enter__(self) -> Self:
        try:
            with _nice(URGENT) if self._urgent else contextlib.nullcontext():
                self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- life -------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="vnet-exam-"))
        self._stack.callback(shutil.rmtree, self._directory, ignore_errors=True)
        self._make_links()
        helper = self._stack.enter_context(OpenVSwitch(TESTER_ID, self.namespace))
        controls = [helper.control_socket]
        for number in LINKS:
            helper.add_device(f"e{number}", number)
        helper.widen(RECEIVE_BYTES)
        target = self._start_target()
        if target is not None:
            controls.append(target.control_socket)
        self._tester = self._start_tester(controls)
        if self._interrupted:
            raise LabError("interrupted")
        for switch in (helper, target):
            if switch is not None:
                switch.connect(CONTROLLER)
        if not self._answer(READY_S).get("ready"):
            raise LabError(f"the switches did not connect to the tester:\n{self.log()}")

    def _make_links(self) -> None:
        _run("ip", "netns", "add", self.namespace)
        self._stack.callback(_run, "ip", "netns", "del", self.namespace)
        _run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        silent = "net.ipv6.conf.default.disable_ipv6=1"  # else the kernel itself sends by the links
        _run("ip", "netns", "exec", self.namespace, "sysctl", "-qw", silent)
        for number in LINKS:
            near, far = f"e{number}", f"t{number}"
            _run("ip", "-n", self.namespace, "link", "add", near, "type", "veth", "peer", "name", far)
            for end in (near, far):
                _run("ip", "-n", self.namespace, "link", "set", end, "up")

    def _start_target(self) -> OpenVSwitch | None:
        if self.switch == "vnet":
            self._stack.callback(own_switch.remove_pins, self.namespace)
            ports = {number: f"t{number}" for number in LINKS}
            options = ("--datapath-id", f"{TARGET_ID:x}", "--controller", CONTROLLER)
            self._spawn("target", *own_switch.command(self.namespace, self._directory, ports, *options))
            return None
        target = self._stack.enter_context(OpenVSwitch(TARGET_ID, self.namespace))
        target.vsctl("set", "Open_vSwitch", ".", "other_config:vlan-limit=2")  # else 802.1ad is not parsed
        for number in LINKS:
            target.add_device(f"t{number}", number)
        return target

    def _start_tester(self, controls: Sequence[Path]) -> subprocess.Popen[bytes]:
        settle = [word for control in controls for word in ("--settle", str(control))]
        repair = ["--repair-sctp"] if self._repair_sctp else []
        command = [str(VENV / "bin" / "python"), str(TESTER), "--wire", "e1", *settle, *repair]
        return self._spawn("tester", "ip", "netns", "exec", self.namespace, *command, talks=True)

    def _spawn(self, name: str, *command: str, talks: bool = False) -> subprocess.Popen[bytes]:
        """A child in a session of its own, so that an interrupt from the terminal is ours to handle."""
        with (self._directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command],
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                cwd=ROOT,
                start_new_session=True,
            )
        self._processes.append(process)
        self._stack.callback(_end, process)
        return process

    def close(self) -> None:
        """End all processes and delete namespace, pins and files; harmless when repeated."""
        self._stack.close()
        self._processes.clear()

    def interrupt(self) -> None:
        """Make what is going on in the lab end with LabError; from any thread, also before it is entered."""
        self._interrupted = True
        if self._tester is not None:
            self._tester.terminate()

    def log(self) -> str:
        """The ends of what the processes wrote."""
        texts = (path.read_text(errors="replace")[-3000:] for path in sorted(self._directory.glob("*.log")))
        return "\n".join(texts)

    # -- cases ------------------------------------------------------------------------------------

    def examine(self, case: Case) -> Verdict:
        """Put one case. Raises LabError if the lab has broken, and then is of no use any more."""
        assert self._tester is not None and self._tester.stdin is not None, "the lab is open"
        question = {"key": case.key, "file": str(case.path), "number": case.number}
        try:
            self._tester.stdin.write(json.dumps(question).encode() + b"\n")
            self._tester.stdin.flush()
        except OSError as error:
            raise LabError(f"the tester has gone: {error}\n{self.log()}") from error
        answer = self._answer(case.duration_s + GRACE_S)
        assert answer["key"] == case.key
        return Verdict(**answer)

    def _answer(self, timeout_s: float) -> dict[str, Any]:
        assert self._tester is not None and self._tester.stdout is not None, "the lab is open"
        line = _read_line(self._tester.stdout, timeout_s)
        dead = [str(process.args) for process in self._processes if process.poll() is not None]
        if not line or dead:
            raise LabError(f"no answer in {timeout_s:.0f} s; ended: {dead or 'nothing'}\n{self.log()}")
        return dict(json.loads(line))


def _read_line(pipe: IO[bytes], timeout_s: float) -> bytes:
    """The next line, or nothing if the time is over or the pipe at its end. One answer is one write."""
    deadline, line = time.monotonic() + timeout_s, b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([pipe], [], [], max(0.0, deadline - time.monotonic()))
        chunk = os.read(pipe.fileno(), 1 << 16) if ready else b""
        if not chunk:
            return b""
        line += chunk
    return line


@contextlib.contextmanager
def _nice(level: int) -> Iterator[None]:
    """What this thread starts meanwhile is so nice."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    os.setpriority(os.PRIO_PROCESS, 0, level)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with contextlib.suppress(OSError):
                pipe.close()


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    if done.returncode:
        raise LabError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stderr}")
