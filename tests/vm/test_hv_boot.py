"""A guest booted from the kernel on, without a template."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from tests.vm.hv_lab import FABRIC, MEMORY_BYTES, carrier, lab, spec
from vnet.base import paths


@pytest.fixture(scope="module")
def cold():
    with lab(warm=False) as made:
        (status,) = made.start(spec(1, nics=2))
        made.first_status = status
        yield made


def test_a_cold_guest_runs_with_its_agent(cold):
    status = cold.first_status
    assert (status.state.value, status.warm, status.agent, status.accel) == ("running", False, True, "tcg")
    assert status.pid > 0 and status.uptime_s > 0 and status.resident_bytes > 20 << 20


AWAIT_LINK_LOCAL = "for i in $(seq 100); do ip addr show eth0 | grep -q fe80 && break; sleep 0.1; done"
"""That address comes when the kernel of the guest notices the carrier, up to a second after the NIC is up."""


def test_it_has_its_name_its_nics_its_addresses_and_no_gateway(cold):
    script = f"{AWAIT_LINK_LOCAL}; hostname; ip addr; ip route; ip -6 route"
    text = cold.exec(1, "sh", "-c", script).stdout.decode()
    assert text.startswith("vm-1\n")
    assert re.search(r"eth0: .* mtu 1500 .*\n +link/ether 52:54:00:09:00:01 ", text)
    assert re.search(r"eth1: .* mtu 1450 .*\n +link/ether 52:54:00:09:01:01 ", text)
    for address in ("10.9.0.1/24", "fd09::1/64", "10.9.1.1/24", "fd09:1::1/64"):
        assert f" {address} " in text
    assert "fe80::5054:ff:fe09:1/64" in text
    assert not re.search(r"^default", text, re.MULTILINE) and "tentative" not in text


def test_its_clock_is_the_hosts(cold):
    guest = int(cold.exec(1, "date", "+%s").stdout)
    assert abs(guest - time.time()) < 3


def test_qemu_has_no_rights(cold):
    status = Path(f"/proc/{cold.first_status.pid}/status").read_text()
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    users = {int(word) for word in fields["Uid"].split() + fields["Gid"].split()}
    assert users == {int(fields["Uid"].split()[0])} and min(users) >= 1000
    assert fields["Groups"].strip() == ""
    for capabilities in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(fields[capabilities], 16) == 0
    assert fields["NoNewPrivs"] == "1" and fields["Seccomp"] == "2"


def test_qemu_has_no_file_but_its_own(cold):
    """Sockets, events and TAPs; the kernel and initrd to be read, its two logs to be written."""
    kinds = re.compile(r"(socket|pipe|anon_inode):|/dev/(null|net/tun|vhost-net)$")
    held = {_target(path): path for path in Path(f"/proc/{cold.first_status.pid}/fd").iterdir()}
    files = {text: path for text, path in held.items() if text and not kinds.match(text)}
    written = {text for text, path in files.items() if path.lstat().st_mode & 0o200}
    assert {Path(text).name for text in written} == {"qemu.log", "current", "pid"}, written
    assert all(text.startswith((str(paths.image_dir().resolve()), *written)) for text in files), files


def test_qemu_has_a_folder_of_its_own_and_a_group_with_limits(cold):
    pid = cold.first_status.pid
    folder = paths.vm_run_dir(FABRIC, "vm-1")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_uid == Path(f"/proc/{pid}").stat().st_uid
    groups = [line.split(":", 2)[2] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines()]
    own = [group for group in groups if group.endswith(f"vnet-{FABRIC}/vm-1")]
    assert own, groups
    limits = [
        int(path.read_text())
        for name in ("memory.max", "memory.limit_in_bytes")
        for path in Path("/sys/fs/cgroup").glob(f"**/vnet-{FABRIC}/vm-1/{name}")
    ]
    assert limits and all(MEMORY_BYTES < limit < MEMORY_BYTES + (1 << 30) for limit in limits)


def test_nobody_learns_a_secret_from_a_command_line(cold):
    """What makes a guest unlike others, and what it is told, goes by the agent or by descriptors."""
    words = Path(f"/proc/{cold.first_status.pid}/cmdline").read_bytes().split(b"\0")
    telling = re.compile(rb"secret|password|passwd|passphrase|token", re.IGNORECASE)
    assert [word for word in words if telling.search(word)] == []


def test_qemu_sees_no_network(cold):
    devices = Path(f"/proc/{cold.first_status.pid}/net/dev").read_text().splitlines()[2:]
    assert [line.split(":")[0].strip() for line in devices] == ["lo"]


def test_the_tap_is_held_by_qemu_alone(cold):
    held = [
        str(path.parent.parent.name)
        for path in Path("/proc").glob("[0-9]*/fd/*")
        if path.is_symlink() and _target(path) == "/dev/net/tun"
    ]
    assert held.count(str(cold.first_status.pid)) == 2
    assert str(Path("/proc/self").resolve().name) not in held


def _target(path):
    try:
        return str(path.readlink())
    except OSError:
        return ""


def test_the_console_has_a_shell(cold):
    import socket

    path = cold.run(cold.manager.console_path(FABRIC, "vm-1"))
    with socket.socket(socket.AF_UNIX) as console:
        console.settimeout(10)
        console.connect(str(path))
        console.sendall(b"\necho sum $((20 + 22))\n")
        text = b""
        while b"sum 42" not in text:
            text += console.recv(4096)


def test_the_power_button_switches_it_off_and_it_starts_again(cold):
    began = time.monotonic()
    cold.run(cold.manager.stop(FABRIC, "vm-1", timeout_s=40))
    assert time.monotonic() - began < 30, "it had to be killed"
    assert cold.status(1).state.value == "stopped"
    assert not carrier(cold.namespace, "t1e0")
    cold.start(spec(1))
    assert cold.exec(1, "hostname").stdout == b"vm-1\n"
    assert carrier(cold.namespace, "t1e0")


def test_starting_a_running_guest_changes_nothing(cold):
    before = cold.status(1).pid
    (status,) = cold.start(spec(1))
    assert status.pid == before


def test_stopping_twice_and_destroying_twice_is_no_error(cold):
    for _ in range(2):
        cold.run(cold.manager.stop(FABRIC, "vm-1"))
    for _ in range(2):
        cold.run(cold.manager.destroy(FABRIC, "vm-1"))
