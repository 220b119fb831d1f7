"""A whole Open vSwitch for one test: its own processes, files, network namespace; nothing in the kernel.

    with OpenVSwitch() as ovs:
        ovs.add_port("p1", 1)
        ovs.add_port("p2", 2)
        ovs.add_flows(flows)
        assert ovs.inject(1, frame) == ((2, frame),)

Ports are of type `dummy`: a frame is handed in through the control socket (`netdev-dummy/receive`) and what
the port sends is read from its pcap file. Chosen because it needs no waiting for silence as sockets on veth
pairs do: 0.2 s to start with four ports, 4,000 packets a second; and `ovs-vswitchd --enable-dummy` brings
`time/warp`, so that connection timeouts take no time. The datapath under the ports is the userspace one,
classifier and connection tracker included. `add_device` attaches a veth or TAP of the namespace as well.

How `inject` knows that a packet is through without waiting: one iteration of vswitchd's main loop serves
the ports, then the control connections in the order in which they were opened. The frame goes in by the later
connection; a command that is sent on the earlier one after that is answered in the next iteration.

Every process is a child that is ended by its own pid, and dies with its parent in any case.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from vnet.openflow import ofctl
from vnet.openflow.flow import Flow
from vnet.openflow.group import Group, Meter

SCHEMA = Path("/usr/share/openvswitch/vswitch.ovsschema")
COMMANDS = ("ovsdb-tool", "ovsdb-server", "ovs-vswitchd", "ovs-vsctl", "ovs-ofctl", "ip", "setpriv")
COMMAND_TIMEOUT_S = 20
START_TIMEOUT_S = 20
NAMESPACE_PREFIX = "vnt-ovs"

PCAP_HEADER = 24
PCAP_RECORD = struct.Struct("=IIII")

Sent = tuple[tuple[int, bytes], ...]

_serial = itertools.count()


class OvsError(RuntimeError):
    """A command of Open vSwitch failed; the text holds its output."""


SO_RCVBUFFORCE, SYS_PIDFD_GETFD = 33, 438
"""Linux, asm-generic/socket.h and unistd.h."""


def _borrow(process: int, descriptor: int) -> int:
    """A descriptor of another process, as one of our own (pidfd_getfd(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    own = int(libc.syscall(SYS_PIDFD_GETFD, process, descriptor, 0))
    if own < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return own


def why_not() -> str | None:
    """Why Open vSwitch cannot be run here, for a visible skip; None if it can."""
    if os.geteuid():
        return "Open vSwitch needs root for a network namespace of its own"
    missing = [command for command in COMMANDS if not shutil.which(command)]
    return f"not installed: {', '.join(missing)}" if missing else None


class OpenVSwitch:
    """One bridge `br0`, secure (no flows, nothing passes), OpenFlow 1.3 on `unix:{socket}`."""

    def __init__(self, datapath_id: int = 1, namespace: str | None = None) -> None:
        """With `namespace` it runs in one that is there already and stays afterwards."""
        self._owns_namespace = namespace is None
        self.namespace = namespace or f"{NAMESPACE_PREFIX}{os.getpid()}-{next(_serial)}"
        self.directory = Path(tempfile.mkdtemp(prefix="vnet-ovs-"))
        self.datapath_id = datapath_id
        self._processes: list[subprocess.Popen[bytes]] = []
        self._ports: dict[int, _Port] = {}
        self._sync: _Control | None = None
        self._control: _Control | None = None

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def socket(self) -> Path:
        """Where the bridge listens for controllers; its own flows' cookies it leaves alone."""
        return self.directory / "br0.mgmt"

    @property
    def control_socket(self) -> Path:
        """Where vswitchd takes commands, as ovs-appctl gives them."""
        return self.directory / "switch.ctl"

    # -- life -------------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._owns_namespace:
            _run("ip", "netns", "add", self.namespace)
            _run("ip", "-n", self.namespace, "link", "set", "lo", "up")
        _run("ovsdb-tool", "create", str(self.directory / "conf.db"), str(SCHEMA))
        database = f"--remote=punix:{self._path('db.sock')}"
        self._spawn("ovsdb-server", str(self.directory / "conf.db"), database)
        self._await(self.directory / "db.sock")
        self.vsctl("--no-wait", "init")
        control = f"--unixctl={self._path('switch.ctl')}"
        self._spawn(
            "ovs-vswitchd", f"unix:{self._path('db.sock')}", control, "--disable-system", "--enable-dummy"
        )
        self._await(self.directory / "switch.ctl")
        self.vsctl(
            *f"add-br br0 -- set bridge br0 datapath_type=dummy protocols=OpenFlow13 fail_mode=secure \
            other-config:datapath-id={self.datapath_id:016x}".split()
        )
        self._sync = _Control(self.directory / "switch.ctl")
        self._control = _Control(self.directory / "switch.ctl")

    def _path(self, name: str) -> str:
        return str(self.directory / name)

    def _spawn(self, program: str, *arguments: str) -> None:
        log = f"--log-file={self._path(program)}.log"
        command = ["setpriv", "--pdeathsig", "KILL", "ip", "netns", "exec", self.namespace, program]
        quiet = ["--no-chdir", "-vconsole:off", "-vsyslog:off", log]
        unixctl = [] if program == "ovs-vswitchd" else [f"--unixctl={self._path(program)}.ctl"]
        directories = dict.fromkeys(("OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR"), str(self.directory))
        self._processes.append(
            subprocess.Popen(
                [*command, *arguments, *quiet, *unixctl],
                env={**os.environ, **directories},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is not for it
            )
        )

    def _await(self, path: Path) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not _answers(path):
            if time.monotonic() > deadline or any(process.poll() is not None for process in self._processes):
                raise OvsError(f"{path.name} does not answer:\n{self.log()}")
            time.sleep(0.005)

    def close(self) -> None:
        """End the processes and delete namespace and files; harmless when repeated."""
        for control in (self._control, self._sync):
            if control:
                control.close()
        self._control = self._sync = None
        for port in self._ports.values():
            port.close()
        self._ports.clear()
        while self._processes:
            _end(self._processes.pop())
        if self._owns_namespace:
            subprocess.run(
                ["ip", "netns", "del", self.namespace],
                capture_output=True,
                timeout=COMMAND_TIMEOUT_S,
                check=False,
            )
        shutil.rmtree(self.directory, ignore_errors=True)

    def log(self) -> str:
        """What both processes wrote to their logs."""
        return "\n".join(path.read_text() for path in sorted(self.directory.glob("*.log")))

    # -- configuration ----------------------------------------------------------------------------

    def vsctl(self, *arguments: str) -> str:
        """Run ovs-vsctl against this database."""
        database = f"--db=unix:{self._path('db.sock')}"
        return _run("ovs-vsctl", f"--timeout={COMMAND_TIMEOUT_S}", database, *arguments)

    def appctl(self, command: str, *arguments: str) -> str:
        """Give vswitchd a command, as ovs-appctl does."""
        return self._call(self._control, command, *arguments)

    def _call(self, control: _Control | None, command: str, *arguments: str) -> str:
        assert control, "not started"
        try:
            return control.call(command, *arguments)
        except OSError as error:
            raise OvsError(f"vswitchd went away during {command}: {error}\n{self.log()[-4000:]}") from error

    def ofctl(self, command: str, *arguments: str, stdin: str = "") -> str:
        """Run ovs-ofctl against the bridge: `ofctl("dump-flows")`."""
        options = ("-O", "OpenFlow13", f"--timeout={COMMAND_TIMEOUT_S}")
        return _run("ovs-ofctl", *options, command, f"unix:{self.socket}", *arguments, stdin=stdin)

    def add_port(self, name: str, number: int) -> None:
        """Add a port for `inject` and `captured`."""
        pcap = self.directory / f"{name}.pcap"
        self._attach(name, number, "type=dummy", f"options:tx_pcap={pcap}")
        self._ports[number] = _Port(name, pcap)

    def add_device(self, name: str, number: int) -> None:
        """Add a network device of the namespace, for example the end of a veth pair."""
        self._attach(name, number)

    def widen(self, size_bytes: int) -> None:
        """Give the packet sockets of devices added so far room for bursts; it begins with 90 frames."""
        pid = self._processes[-1].pid
        process = os.pidfd_open(pid)
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(descriptor).startswith("socket:"):
                with socket.socket(fileno=_borrow(process, int(descriptor.name))) as one:
                    if one.family == socket.AF_PACKET:
                        one.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size_bytes)
        os.close(process)

    def connect(self, controller: str) -> None:
        """Have the bridge connect to a controller, for example `tcp:127.0.0.1:6653`, and go on trying."""
        settings = ["set", "controller", "br0", "connection_mode=out-of-band", "max_backoff=1000"]
        self.vsctl("set-controller", "br0", controller, "--", *settings)

    def _attach(self, name: str, number: int, *settings: str) -> None:
        interface = ["set", "interface", name, f"ofport_request={number}", *settings]
        self.vsctl("add-port", "br0", name, "--", *interface)
        got = self.vsctl("get", "interface", name, "ofport").strip()
        if got != str(number):
            raise OvsError(f"port {name} got number {got} instead of {number}:\n{self.log()}")

    # -- flows ------------------------------------------------------------------------------------

    def add_flows(self, flows: Iterable[Flow]) -> None:
        """Add flows all at once; on return packets are decided by them."""
        self.add_flow_lines([ofctl.text(flow) for flow in flows])

    def add_flow_lines(self, lines: Sequence[str]) -> None:
        """Add flows given in ovs-ofctl's own syntax."""
        try:
            self.ofctl("add-flows", "-", "--bundle", stdin="".join(f"{line}\n" for line in lines))
        except OvsError as error:
            culprit = re.search(r"-:(\d+):", str(error))
            raise OvsError(f"{error}{lines[int(culprit[1]) - 1]}" if culprit else str(error)) from None
        self.settle()

    def replace_all(self, flows: Iterable[Flow], groups: Iterable[Group] = ()) -> None:
        """Make these the only flows and groups, by one bundle; a group that another names must come first."""
        lines = ["flow delete", "group delete", *(f"group add {ofctl.group_text(group)}" for group in groups)]
        lines += [f"flow add {ofctl.text(flow)}" for flow in flows]
        self.ofctl("bundle", "-", stdin="".join(f"{line}\n" for line in lines))
        self.settle()

    def add_groups(self, groups: Iterable[Group]) -> None:
        """Add groups; one that another names must come before it."""
        self.ofctl("add-groups", "-", stdin="".join(f"{ofctl.group_text(group)}\n" for group in groups))

    def add_meters(self, meters: Iterable[Meter]) -> None:
        """Add meters, one by one: there is no command for many."""
        for meter in meters:
            self.ofctl("add-meter", ofctl.meter_text(meter))

    def delete_flows(self) -> None:
        """Remove all flows, groups and meters."""
        for what in ("del-flows", "del-groups", "del-meters"):
            self.ofctl(what)
        self.settle()

    def dump_flows(self) -> list[str]:
        """The flows as ovs-ofctl prints them, without counters and ages."""
        return [
            line.strip() for line in self.ofctl("dump-flows", "--no-stats").splitlines() if "actions=" in line
        ]

    def settle(self) -> None:
        """Forget cached decisions, so that the next packet is decided by the flows alone."""
        self.appctl("revalidator/purge")

    # -- packets ----------------------------------------------------------------------------------

    def inject(self, port: int, frame: bytes) -> Sent:
        """Let a frame come in by a port. Returns (port, frame) of all that was sent, in order of ports."""
        self.appctl("netdev-dummy/receive", self._ports[port].name, frame.hex())
        self._call(self._sync, "version")
        return tuple((number, sent) for number in sorted(self._ports) for sent in self.captured(number))

    def inject_all(self, frames: Sequence[tuple[int, bytes]]) -> Sent:
        """Let frames come in, at most 100 a port; those of one port stay in order. Returns all that was sent.

        Each iteration of vswitchd serves one frame of a port, and ten commands of a connection.
        """
        waiting: dict[int, list[str]] = {}
        for port, frame in frames:
            waiting.setdefault(port, []).append(frame.hex())
        for port, texts in waiting.items():
            self.appctl("netdev-dummy/receive", self._ports[port].name, *texts)
        assert self._sync, "not started"
        self._sync.call_often("version", 10 * max(map(len, waiting.values()), default=0) + 1)
        return tuple((number, sent) for number in sorted(self._ports) for sent in self.captured(number))

    def captured(self, port: int) -> tuple[bytes, ...]:
        """Frames that the port has sent and that no call has returned before."""
        return self._ports[port].read()

    def trace(self, port: int, frame: bytes, *ct_next: str) -> str:
        """`ofproto/trace` of a frame; `ct_next` are the states ct gives, for example `trk,est`."""
        options = [word for state in ct_next for word in ("--ct-next", state)]
        return self.appctl("ofproto/trace", "br0", f"in_port={port}", *options, frame.hex())

    # -- connections and time ---------------------------------------------------------------------

    def connections(self) -> list[str]:
        """The connection table as `dpctl/dump-conntrack` prints it."""
        return self.appctl("dpctl/dump-conntrack").splitlines()

    def flush_connections(self) -> None:
        """Forget all connections."""
        self.appctl("dpctl/flush-conntrack")

    def stop_clock(self) -> None:
        """From now on time passes only by `advance`."""
        self.appctl("time/stop")

    def advance(self, seconds: float) -> None:
        """Let time pass at once, in ten steps; the clock must be stopped."""
        milliseconds = int(seconds * 1000)
        self.appctl("time/warp", str(milliseconds), str(max(1, milliseconds // 10)))


class _Port:
    """A dummy port's pcap file, read from where the last call stopped."""

    def __init__(self, name: str, pcap: Path) -> None:
        self.name = name
        self._file = os.open(pcap, os.O_RDONLY)
        os.lseek(self._file, PCAP_HEADER, os.SEEK_SET)

    def read(self) -> tuple[bytes, ...]:
        data, frames = b"", []
        while chunk := os.read(self._file, 1 << 16):
            data += chunk
        while data:
            *_time, length, _original = PCAP_RECORD.unpack_from(data)
            frames.append(data[PCAP_RECORD.size : PCAP_RECORD.size + length])
            data = data[PCAP_RECORD.size + length :]
        return tuple(frames)

    def close(self) -> None:
        os.close(self._file)


class _Control:
    """A connection to vswitchd's control socket: JSON-RPC, one call at a time (ovs-appctl(8))."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(COMMAND_TIMEOUT_S)
        self._socket.connect(str(path))
        self._serial = itertools.count()
        self.call("version")

    def call(self, method: str, *parameters: str) -> str:
        request = {"id": next(self._serial), "method": method, "params": parameters}
        self._socket.sendall(json.dumps(request).encode())
        reply = self._receive()
        if reply["error"] is not None:
            raise OvsError(f"{method} {' '.join(parameters)}: {reply['error']}")
        return str(reply["result"])

    def call_often(self, method: str, times: int) -> None:
        """Make the same call many times without awaiting each answer."""
        calls = [{"id": next(self._serial), "method": method, "params": ()} for _ in range(times)]
        for start in range(0, times, 50):
            some = calls[start : start + 50]
            self._socket.sendall("".join(map(json.dumps, some)).encode())
            data, decoder = "", json.JSONDecoder()
            while some:
                data += self._socket.recv(1 << 16).decode()
                with contextlib.suppress(ValueError):
                    while some:
                        _, end = decoder.raw_decode(data)
                        data, some = data[end:].lstrip(), some[1:]

    def _receive(self) -> dict[str, object]:
        data = b""
        while True:
            chunk = self._socket.recv(1 << 16)
            if not chunk:
                raise ConnectionResetError("the control connection was closed")
            data += chunk
            try:
                return dict(json.loads(data))
            except ValueError:
                continue

    def close(self) -> None:
        self._socket.close()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(timeout=5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _run(*command: str, stdin: str = "") -> str:
    done = subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=2 * COMMAND_TIMEOUT_S, check=False
    )
    if done.returncode:
        raise OvsError(f"{' '.join(command)}: exit code {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
