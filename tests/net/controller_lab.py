"""A switch in the hands of somebody else's controller, with a host in a namespace of its own at each port.

    with ControllerLab("vnet", hosts=4) as lab:
        lab.spawn("controller", "osken-manager", ...)
        lab.start_switch()

The switch, `ovs` or `vnet`, and the controller share a namespace and meet on its loopback. Hosts 1…n are at
the ports of these numbers.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.exams import own_switch
from tests.exams.conntrack.hosts import Host, run, until
from tests.ovs import OpenVSwitch
from vnet.switch.live.netns import inside

ROOT = Path(__file__).parents[2]
SWITCHES = ("ovs", "vnet")
CONTROLLER = "tcp:127.0.0.1:6653"
START_S = 30.0
END_S = 10.0

_serial = itertools.count(1)


class ControllerLab:
    """Use as a context; nothing is left after it."""

    def __init__(self, switch: str, hosts: int) -> None:
        assert switch in SWITCHES
        self.switch = switch
        self.netns = f"vnt-ctl{os.getpid()}-{next(_serial)}"
        self.hosts = {number: Host(f"{self.netns}-{number}", number) for number in range(1, hosts + 1)}
        self._stack = contextlib.ExitStack()
        self._target: subprocess.Popen[bytes] | None = None
        self._ovs: OpenVSwitch | None = None

    def __enter__(self) -> Self:
        try:
            self.folder = Path(tempfile.mkdtemp(prefix="vnet-controller-"))
            self._stack.callback(shutil.rmtree, self.folder, ignore_errors=True)
            self._make_hosts()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _make_hosts(self) -> None:
        silent = "net.ipv6.conf.default.disable_ipv6=1"  # else the kernel itself sends by the links
        for name in (self.netns, *(host.netns for host in self.hosts.values())):
            run("ip", "netns", "add", name)
            self._stack.callback(run, "ip", "netns", "del", name)
            run("ip", "netns", "exec", name, "sysctl", "-qw", silent)
            run("ip", "-n", name, "link", "set", "lo", "up")
        for number, host in self.hosts.items():
            port = f"p{number}"
            peer = ("peer", "name", "eth0", "address", host.mac, "netns", host.netns)
            run("ip", "-n", self.netns, "link", "add", port, "type", "veth", *peer)
            run("ip", "-n", self.netns, "link", "set", port, "up")
            host.ip("link set eth0 up")
            self._stack.callback(host.reset)
            if self.switch == "ovs":
                host.checksum_in_software()

    # -- processes --------------------------------------------------------------------------------

    def spawn(
        self, name: str, *command: str, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Start a process in the namespace; it writes into NAME.log and ends with the lab."""
        with self._log(name).open("ab") as log:
            process = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.netns, *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env={**os.environ, **(environment or {})},
            )
        self._stack.callback(_end, process)
        return process

    def _log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        """What a process has written."""
        path = self._log(name)
        return path.read_text(errors="replace") if path.exists() else ""

    def await_log(self, name: str, text: str, times: int = 1, timeout_s: float = START_S) -> None:
        """Wait until a process has written a text so many times."""
        deadline = time.monotonic() + timeout_s
        while self.log(name).count(text) < times:
            assert time.monotonic() < deadline, f"{name} has not written {text!r}:\n{self.log(name)[-3000:]}"
            time.sleep(0.02)

    def start_switch(self) -> None:
        """Start the switch, or another agent for the one whose agent was killed. It calls the controller."""
        if self.switch == "vnet":
            self._start_target()
            return
        self._ovs = self._stack.enter_context(OpenVSwitch(1, self.netns))
        for number in self.hosts:
            self._ovs.add_device(f"p{number}", number)
        self._ovs.connect(CONTROLLER)

    def _start_target(self) -> None:
        ports = {number: f"p{number}" for number in self.hosts}
        started = self.log("switch").count(own_switch.RUNS)
        with self._log("switch").open("ab") as log:
            self._target = subprocess.Popen(
                own_switch.command(self.netns, self.folder, ports, "-c", CONTROLLER, "--datapath-id", "1"),
                stderr=log,
                cwd=ROOT,
            )
        self._stack.callback(self._stop_target)
        self.await_log("switch", own_switch.RUNS, started + 1)

    @property
    def socket(self) -> Path:
        """Where the switch listens besides."""
        return own_switch.socket(self.folder) if self._ovs is None else self._ovs.socket

    def settle(self) -> None:
        """Wait until what was told is in force and what was sent is counted."""
        if self._ovs is not None:
            self._ovs.settle()

    def kill_switch(self) -> None:
        """SIGKILL for the agent of our switch."""
        assert self._target is not None
        self._target.send_signal(signal.SIGKILL)
        _end(self._target)
        self._target = None

    def _stop_target(self) -> None:
        if self._target is not None:
            _end(self._target)
            self._target = None
        own_switch.remove_pins(self.netns)

    # -- questions --------------------------------------------------------------------------------

    def ofctl(self, *words: str) -> str:
        """What ovs-ofctl prints, asked of the switch."""
        command, *arguments = words
        return run("ovs-ofctl", "-O", "OpenFlow13", command, f"unix:{self.socket}", *arguments)

    def http(self, port: int) -> str:
        """A page of a server on the namespace's loopback."""
        with inside(self.netns), urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as page:
            return page.read().decode()

    def await_answer(self, sender: int, address: str) -> None:
        """Wait until a host answers another one's pings."""
        until(lambda: self.hosts[sender].ping(address, count=1).all_answered, f"answer of {address}", START_S)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=END_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()
