"""`vnet switch`: a switch of its own, as somebody at a shell uses it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.exams import own_switch
from tests.exams.conntrack.hosts import Host, run
from tests.net.controller_lab import ROOT, ControllerLab
from tests.waiting import until
from vnet.switch import abi
from vnet.switch.live import bpf
from vnet.switch.live.netns import inside

READY_S = 30
HELLO, FEATURES_REQUEST = (bytes([4, kind, 0, 8, 0, 0, 0, 1]) for kind in (0, 5))


class Shell:
    """Two hosts and the command, with run-time folders of its own."""

    def __init__(self, lab: ControllerLab, folder: Path) -> None:
        self.lab, self.folder = lab, folder
        self.pins = own_switch.pins(lab.netns)
        self._running: list[subprocess.Popen[str]] = []

    @property
    def hosts(self) -> dict[int, Host]:
        return self.lab.hosts

    def start(self, *options: str) -> subprocess.Popen[str]:
        """Run the command; returns when the switch runs, or the command has ended."""
        command = own_switch.command(self.lab.netns, self.folder, {1: "p1", 2: "p2"}, *options)
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
        self._running.append(process)
        assert process.stderr is not None
        self.said = process.stderr.readline()
        return process

    def end(self, process: subprocess.Popen[str], by: signal.Signals) -> int:
        process.send_signal(by)
        return process.wait(READY_S)

    def ofctl(self, *command: str) -> str:
        socket = own_switch.socket(self.folder)
        return run("ovs-ofctl", "-O", "OpenFlow13", command[0], f"unix:{socket}", *command[1:])

    def close(self) -> None:
        for process in self._running:
            if process.poll() is None:
                process.kill()
                process.wait(READY_S)
        if self.pins.exists():  # of one that was killed or asked to keep it
            self.end(self.start(), signal.SIGTERM)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    with ControllerLab("vnet", hosts=2) as lab:
        for number, host in lab.hosts.items():
            host.configure(f"10.0.0.{number}/24")
        made = Shell(lab, tmp_path)
        try:
            yield made
        finally:
            made.close()
        assert not made.pins.exists()


def _open(shell: Shell) -> None:
    shell.ofctl("add-flow", "in_port=1 actions=output:2")
    shell.ofctl("add-flow", "in_port=2 actions=output:1")


def test_it_passes_nothing_until_it_is_told_and_leaves_nothing(shell: Shell) -> None:
    process = shell.start()
    assert shell.said.startswith(f"{own_switch.RUNS}: ovs-ofctl"), shell.said
    assert shell.hosts[1].ping("10.0.0.2", expect=False).none_answered
    _open(shell)
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    assert "p2" in shell.ofctl("show")
    assert shell.end(process, signal.SIGINT) == 0
    assert not shell.pins.exists()
    assert list(shell.folder.rglob("*.*")) == []


def test_it_calls_its_controller_again_and_again(shell: Shell) -> None:
    with inside(shell.lab.netns):
        listener = socket.create_server(("127.0.0.1", 6653))
    with listener:
        listener.settimeout(10)
        process = shell.start("-c", "tcp:127.0.0.1", "--datapath-id", "1f")
        for _ in range(2):
            connection, _ = listener.accept()
            connection.settimeout(10)
            with connection:
                connection.sendall(HELLO + FEATURES_REQUEST)
                reply = next(message for message in _messages(connection) if message[1] == 6)
                assert int.from_bytes(reply[8:16], "big") == 0x1F
        assert shell.end(process, signal.SIGTERM) == 0


def _messages(connection: socket.socket) -> Iterator[bytes]:
    data = b""
    while chunk := connection.recv(4096):
        data += chunk
        while len(data) >= 8 and len(data) >= (length := int.from_bytes(data[2:4], "big")):
            yield data[:length]
            data = data[length:]


def test_a_killed_one_goes_on_forwarding_and_is_taken_over(shell: Shell) -> None:
    shell.end(shell.start(), signal.SIGKILL)
    process = shell.start()
    _open(shell)
    shell.end(process, signal.SIGKILL)
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    process = shell.start()
    assert "in_port=1" in shell.ofctl("dump-flows")
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    assert shell.end(process, signal.SIGTERM) == 0


@pytest.mark.parametrize("mistake", [("-p", "3=nowhere"), ("-c", "ptcp:6699"), ("-c", "pssl:0")])
def test_one_that_cannot_start_leaves_what_goes_on_as_it_was(shell: Shell, mistake: tuple[str, str]) -> None:
    process = shell.start()
    _open(shell)
    shell.end(process, signal.SIGKILL)
    with inside(shell.lab.netns):
        taken = socket.create_server(("127.0.0.1", 6699))
    with taken:
        assert shell.start(*mistake).wait(READY_S) == 1, shell.said
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    process = shell.start()
    assert "in_port=1" in shell.ofctl("dump-flows")
    assert shell.end(process, signal.SIGTERM) == 0


def test_an_interface_that_went_away_while_nobody_looked_is_a_port_again_when_it_comes(shell: Shell) -> None:
    _extra(shell)
    shell.end(shell.start("-p", "3=extra"), signal.SIGKILL)
    with inside(shell.lab.netns):
        run("ip", "link", "del", "extra")
    process = shell.start("-p", "3=extra")
    _open(shell)
    assert "port 3 is down: there is no interface extra" in shell.said
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    assert "3(gone3)" in shell.ofctl("dump-ports-desc")
    _extra(shell)
    until(lambda: "LIVE" in _port(shell, "3(extra)"))
    assert shell.end(process, signal.SIGTERM) == 0


def test_an_interface_in_another_namespace_is_left_alone_until_it_is_back(shell: Shell) -> None:
    """There it would send by whatever interface has the number of a port's here."""
    _extra(shell)
    process = shell.start("-p", "3=extra")
    elsewhere = shell.hosts[1].netns
    with inside(shell.lab.netns):
        run("ip", "link", "set", "extra", "netns", elsewhere)
    until(lambda: "LINK_DOWN" in _port(shell, "3(gone3)"))
    with inside(elsewhere):
        assert bpf.tcx_programs(socket.if_nametoindex("extra")) == ()
        run("ip", "link", "set", "extra", "netns", shell.lab.netns)
    with inside(shell.lab.netns):
        run("ip", "link", "set", "extra", "up")
    until(lambda: "LIVE" in _port(shell, "3(extra)"))
    assert shell.end(process, signal.SIGTERM) == 0


def test_a_port_whose_program_somebody_took_off_is_not_live_and_gets_it_again(shell: Shell) -> None:
    shell.start()
    run("bpftool", "link", "detach", "pinned", str(shell.pins / own_switch.NAME / "links" / "2"))
    with inside(shell.lab.netns):
        run("ip", "link", "set", "p1", "alias", "any-change")
    _open(shell)
    until(lambda: shell.hosts[1].ping("10.0.0.2", expect=False).all_answered)


def test_its_interfaces_take_frames_for_whoever_is_behind_the_others_while_they_are_ports(
    shell: Shell,
) -> None:
    _extra(shell)
    with inside(shell.lab.netns):
        run("ip", "link", "set", "extra", "promisc", "on")
    process = shell.start("-p", "3=extra")
    assert _promiscuous(shell) == {"p1", "p2", "extra"}
    shell.ofctl("mod-port", "1", "no-flood")
    shell.end(process, signal.SIGKILL)
    assert _promiscuous(shell) == {"p1", "p2", "extra"}
    assert shell.end(shell.start("-p", "3=extra"), signal.SIGTERM) == 0
    assert _promiscuous(shell) == {"extra"}, "as it was before"


def _extra(shell: Shell) -> None:
    with inside(shell.lab.netns):
        run("ip", "link", "add", "extra", "type", "veth", "peer", "name", "other")
        run("ip", "link", "set", "other", "up")
        run("ip", "link", "set", "extra", "up")


def _port(shell: Shell, name: str) -> str:
    """What is told of a port."""
    return shell.ofctl("dump-ports-desc").partition(f" {name}")[2].partition(" speed")[0]


def _promiscuous(shell: Shell) -> set[str]:
    with inside(shell.lab.netns):
        links = json.loads(run("ip", "-j", "link", "show"))
    return {link["ifname"] for link in links if "PROMISC" in link["flags"]}


def test_what_is_kept_forwards_until_one_that_does_not_keep_it_ends(shell: Shell) -> None:
    process = shell.start("--keep")
    _open(shell)
    assert shell.end(process, signal.SIGTERM) == 0
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    assert shell.end(shell.start(), signal.SIGTERM) == 0
    assert not shell.pins.exists()


def test_a_second_one_of_the_name_is_refused(shell: Shell) -> None:
    process = shell.start()
    assert shell.start().wait(READY_S) == 6
    assert "switch lab runs already" in shell.said
    _open(shell)
    assert shell.end(process, signal.SIGTERM) == 0


def test_an_interface_of_another_switch_is_refused_and_left_to_it(shell: Shell, tmp_path: Path) -> None:
    process = shell.start()
    _open(shell)
    command = own_switch.command(shell.lab.netns, tmp_path / "other", {1: "p1"})
    command[command.index(own_switch.NAME)] = "other"
    second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=READY_S)
    assert second.returncode == 1
    assert "p1" in second.stderr and "another of vnet's switches" in second.stderr
    assert shell.hosts[1].ping("10.0.0.2").all_answered
    assert shell.end(process, signal.SIGTERM) == 0


def test_an_uplink_has_no_quotas_of_a_guest(shell: Shell) -> None:
    shell.start("--uplink", "2")
    with bpf_map(shell.pins / own_switch.NAME / "ports") as ports:
        guest, uplink = (abi.Port.from_buffer_copy(ports.index(number) or b"") for number in (1, 2))
    assert (guest.conn_quota, guest.refusal_quota) == (16384, 512)
    assert (uplink.conn_quota, uplink.mac_quota, uplink.refusal_quota) == (abi.CONNS, abi.MACS, 0)


@contextmanager
def bpf_map(path: Path) -> Iterator[bpf.Map]:
    fd = bpf.get(path)
    try:
        yield bpf.Map(fd)
    finally:
        os.close(fd)


def test_a_port_that_is_not_named_any_more_is_taken_out(shell: Shell) -> None:
    _extra(shell)
    shell.end(shell.start("-p", "3=extra"), signal.SIGKILL)
    shell.start()
    assert "extra" not in shell.ofctl("dump-ports-desc")


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (("-p", "1=p2"), "given twice"),
        (("-p", "3=nowhere"), "no interface nowhere"),
        (("-p", "4096=lo"), "port number 4096"),
        (("-p", "3=lo"), "lo is the loopback"),
        (("--uplink", "3"), "no --port has this number"),
        (("-c", "tcp:here"), "'here' is no IP address"),
        (("-c", "pssl:0"), "TLS needs"),
        (("--ca-cert", "x"), "all three"),
        (("--datapath-id", "x"), "hexadecimal"),
    ],
)
def test_what_cannot_be_is_told_and_leaves_nothing(
    shell: Shell, options: tuple[str, ...], complaint: str
) -> None:
    assert shell.start(*options).wait(READY_S) in (1, 2)
    assert complaint in shell.said
    assert not shell.pins.exists()


def test_a_folder_that_cannot_be_written_is_told(shell: Shell) -> None:
    shell.folder /= "file"
    shell.folder.touch()
    assert shell.start().wait(READY_S) == 1
    assert "Not a directory; run it as root, or let VNET_RUN_DIR" in shell.said
