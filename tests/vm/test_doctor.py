"""Each broken state is made for real, told by `vnet doctor`, mended by the command that is told, and gone."""

from __future__ import annotations

import json
import operator
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.vm.fabric_lab import PREFIX, ROOT, Lab, lab
from tests.waiting import until
from vnet.cli.app import app

TEXT = """\
name: sick
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, dns: true, subnets: {cidr: 10.0.0.0/24, dhcp: true}}}
vms: {a: {networks: [lan]}}
"""
SPACE = f"{PREFIX}sick"
Finding = Mapping[str, Any]


class Clinic:
    """A fabric that is up, and a shell in which `vnet` is its host's."""

    def __init__(self, host: Lab, folder: Path) -> None:
        self.host, self.pins, self.run = host, host.pins / "sick", host.directory / "run"
        self.services = host.directory / "state" / "services" / "sick"
        script = folder / "vnet"
        script.write_text(f'#!/bin/sh\ncd {folder} && exec {sys.executable} -P -m vnet "$@"\n')
        script.chmod(0o755)
        (folder / "sick.vnet.yaml").write_text(TEXT)
        self.environment = host.environment | {"PATH": f"{folder}:{os.environ['PATH']}"}
        self.sh("vnet up -f sick.vnet.yaml")

    def sh(self, command: str) -> None:
        done = subprocess.run(
            ["sh", "-c", command], capture_output=True, text=True, check=False, env=self.environment, cwd=ROOT
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"

    def doctor(self) -> list[Finding]:
        """What is wrong, without what this host lacks anyway."""
        done = CliRunner().invoke(app, ["doctor", "-o", "json", "--timeout", "2.5"], env=self.environment)
        found = [each for each in json.loads(done.stdout) if each["level"] != "ok"]
        found = [each for each in found if each["check"] not in ("host", "kvm", "memory", "disk", "clock")]
        assert done.exit_code == any(each["level"] == "broken" for each in found), done.output
        return found

    def mend(self, found: list[Finding]) -> None:
        """Do what is said, each command once; then there is nothing more to say."""
        for command in dict.fromkeys(each["mend"] for each in found):
            self.sh(command)
        until(self.doctor, every_s=0.2, holds=operator.not_)  # vnetd starts some things again by itself

    @property
    def daemon(self) -> int:
        return int((self.run / "vnetd.lock").read_text())

    @property
    def dnsmasq(self) -> int:
        return int(json.loads((self.services / "lan.d" / "process.json").read_text())["pid"])

    @property
    def qemu(self) -> int:
        return int((self.run / "fabrics" / "sick" / "vms" / "a" / "pid").read_text())


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    with lab() as host:
        yield Clinic(host, tmp_path_factory.mktemp("clinic"))


def flows(made: Clinic, command: str, more: str) -> None:
    socket = made.run / "fabrics" / "sick" / "switch.sock"
    made.sh(f"ovs-ofctl -O OpenFlow13 {command} unix:{socket} {more}")


def guest_killed(made: Clinic) -> None:
    """The daemon sees it at once, but perhaps not before the doctor asks."""
    os.kill(made.qemu, signal.SIGKILL)
    until(lambda: "crashed" in {row["state"] for row in made.host.json("ps")})


def both_killed(made: Clinic) -> None:
    made.host.kill_daemon()
    os.kill(made.dnsmasq, signal.SIGKILL)


def half_enforced(made: Clinic) -> None:
    made.host.kill_daemon()
    with closing(sqlite3.connect(made.host.directory / "state" / "vnet.db")) as database:
        database.execute("UPDATE fabric SET enforced = 0")
        database.commit()


def unreadable_leases(made: Clinic) -> None:
    leases = made.services / "lan" / "leases"
    leases.unlink()
    leases.mkdir()


STATES: Mapping[str, tuple[Callable[[Clinic], object], set[str]]] = {
    "daemon killed": (lambda made: made.host.kill_daemon(), {"daemon"}),
    "daemon hangs": (lambda made: os.kill(made.daemon, signal.SIGSTOP), {"daemon-answers"}),
    "socket gone": (lambda made: (made.run / "vnetd.sock").unlink(), {"daemon-answers"}),
    "agent's socket gone": (
        lambda made: (made.run / "fabrics" / "sick" / "switch.sock").unlink(),
        {"session"},
    ),
    "pins gone": (lambda made: shutil.rmtree(made.pins), {"switch"}),
    "program detached": (lambda made: (made.pins / "links" / "1").unlink(), {"program"}),
    "interface gone": (lambda made: made.sh(f"ip -n {SPACE} link del a.eth0"), {"port"}),
    "interface down": (lambda made: made.sh(f"ip -n {SPACE} link set a.eth0 down"), {"link"}),
    "namespace gone": (lambda made: made.sh(f"ip netns delete {SPACE}"), {"namespace"}),
    "flows removed": (lambda made: flows(made, "del-flows", "table=4"), {"flows"}),
    "flows added": (
        lambda made: flows(made, "add-flow", "table=9,cookie=0x4711,priority=7,actions=drop"),
        {"foreign-flows"},
    ),
    "generation not in force": (half_enforced, {"daemon", "generation"}),
    "dnsmasq and daemon killed": (both_killed, {"daemon", "dnsmasq"}),
    "dnsmasq's namespace gone": (lambda made: made.sh(f"ip netns delete {SPACE}.lan"), {"service"}),
    "dnsmasq's veth gone": (lambda made: made.sh(f"ip -n {SPACE} link del @lan"), {"service"}),
    "leases unreadable": (unreadable_leases, {"leases"}),
    "guest killed": (guest_killed, {"guest"}),
    "guest hangs": (lambda made: os.kill(made.qemu, signal.SIGSTOP), {"guest-answers"}),
}


@pytest.mark.parametrize("state", STATES)
def test_a_broken_state_is_told_and_mended_by_the_command_that_is_told(clinic: Clinic, state: str) -> None:
    damage, checks = STATES[state]
    damage(clinic)
    found = clinic.doctor()
    assert {each["check"] for each in found} == checks, found
    clinic.mend(found)


def test_what_a_fabric_has_left_behind_is_told_and_removed(clinic: Clinic) -> None:
    clinic.sh(f"ip netns add {PREFIX}gone.lan")
    folders = (clinic.host.pins / "gone", clinic.run / "fabrics" / "gone", clinic.services.parent / "gone")
    for folder in folders:
        folder.mkdir()
    argv = ["qemu-system-x86_64", "-c", "import time; time.sleep(60)", f"{folders[1]}/vms/a/qmp.sock"]
    with subprocess.Popen(argv, executable=sys.executable) as qemu:
        found = clinic.doctor()
        subjects = {each["subject"] for each in found}
        assert subjects == {f"pid {qemu.pid}", f"{PREFIX}gone.lan", *map(str, folders)}
        assert all(each["level"] == "warning" for each in found)
        clinic.mend(found)
