"""Real guests whose host has no room, whose disks are damaged, whose kernels give up."""

from __future__ import annotations

import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: faults
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db:
    networks: [lan]
    disks: [{name: data, size: 1G}]
    healthcheck: {test: "true", interval: 1s}
  app: {networks: [lan], restart: on-failure, disks: [{name: data, size: 64M}]}
"""
ROOM = "192M"


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    file = tmp_path_factory.mktemp("faults") / "faults.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        disks = made.directory / "state" / "disks"
        disks.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM},mode=0700", "tmpfs", disks], check=True)
        try:
            made.vnet("up", "-f", str(file))
            yield made
            made.vnet("down", "-n", "faults", "--disks")
            made.vnet("serve", "--stop")
        finally:
            subprocess.run(["umount", "--lazy", disks], check=True)


def vm(host: Lab, name: str) -> Any:
    return next(row for row in host.json("ps") if row["vm"] == name)


def doctor(host: Lab, check: str) -> Any:
    """What the doctor found wrong by one check."""
    said, _ = host.start("doctor", "-o", "json").communicate(timeout=60)
    return [each for each in json.loads(said) if each["check"] == check and each["mend"]]


def sh(host: Lab, name: str, command: str) -> str:
    return host.vnet("exec", name, "--", "sh", "-c", command)


def told(host: Lab, name: str) -> list[str]:
    """The kinds of what happened to a VM."""
    lines = host.vnet("events", "--since", "1h", "-o", "json").splitlines()
    found = [json.loads(line) for line in lines]
    return [each["kind"] for each in found if each["subject"] == name and each["kind"] in KINDS]


KINDS = ("vm-halted", "vm-resumed", "vm-panicked", "vm-restarted", "disk-failed")


class Filler:
    """Takes what room there is beside the disks."""

    def __init__(self, host: Lab) -> None:
        self._folder = host.directory / "state" / "disks"
        self._path = self._folder / "filler"

    def leave(self, free_bytes: int) -> None:
        """So much is free afterwards."""
        found = os.statvfs(self._folder)
        with self._path.open("ab") as file:  # never less meanwhile: the daemon would see that there is room
            wanted = file.tell() + found.f_bavail * found.f_frsize - free_bytes
            os.truncate(file.fileno(), min(wanted, file.tell()))
            os.posix_fallocate(file.fileno(), 0, wanted)

    def go(self) -> None:
        """All is free."""
        self._path.unlink()


def write(host: Lab, at_mib: int) -> None:
    """Begins to write 12 MiB to the disk, past all caches; says `wrote` when it is done."""
    command = f"dd if=/dev/zero of=/dev/disk/data bs=1M count=12 seek={at_mib} oflag=direct && echo wrote"
    sh(host, "db", f"rm -f /tmp/out; ({command}) >/tmp/out 2>&1 &")


def until_written(host: Lab) -> str:
    return until(lambda: sh(host, "db", "cat /tmp/out"), every_s=0.2, holds=lambda text: "wrote" in text)


def test_a_vm_stands_still_while_the_host_is_full_and_says_why(host: Lab) -> None:
    filler = Filler(host)
    filler.leave(4 << 20)
    write(host, 0)
    row = host.until_vm("db", state="paused")
    assert row["state"] == "paused" and "its disk data cannot grow: no space left in" in row["detail"]
    assert "vnet resume db" in row["detail"] and row["health"] == ""
    found = doctor(host, "guest-disks")
    assert [(each["subject"], each["mend"]) for each in found] == [("db", "vnet resume -n faults db")]
    assert "stands still again" in host.vnet("resume", "db", expect=1)
    filler.leave(40 << 20)
    host.vnet("resume", "db")
    assert "wrote" in until_written(host)
    filler.go()
    assert told(host, "db") == ["vm-halted", "vm-resumed"]


def test_the_next_daemon_finds_it_and_lets_it_go_on_once_there_is_room(host: Lab) -> None:
    filler = Filler(host)
    filler.leave(4 << 20)
    write(host, 100)
    host.until_vm("db", state="paused")
    host.kill_daemon()
    assert "cannot grow" in vm(host, "db")["detail"]
    assert told(host, "db").count("vm-halted") == 2
    filler.go()
    assert host.until_vm("db", state="ready")["detail"] == ""
    assert "wrote" in until_written(host)
    assert told(host, "db")[-1] == "vm-resumed"


def test_one_that_a_user_paused_meanwhile_stays_so(host: Lab) -> None:
    filler = Filler(host)
    filler.leave(4 << 20)
    write(host, 200)
    host.until_vm("db", state="paused")
    host.vnet("pause", "db")
    filler.go()
    time.sleep(3)
    assert vm(host, "db")["state"] == "paused"
    host.vnet("resume", "db")
    assert "wrote" in until_written(host)


def test_a_kernel_that_gives_up_is_a_crash_that_the_policy_answers(host: Lab) -> None:
    before = {name: vm(host, name)["pid"] for name in ("db", "app")}
    for name in before:
        sh(host, name, "(sleep 0.3; echo c >/proc/sysrq-trigger) >/dev/null 2>&1 &")
    assert "its kernel panicked" in host.until_vm("db", state="crashed")["detail"]
    until(lambda: vm(host, "app")["pid"] not in (None, before["app"]))
    assert host.until_vm("app", state="ready")["detail"] == ""
    assert "sysrq triggered crash" in host.vnet("logs", "app", "--previous")
    assert "sysrq triggered crash" in host.vnet("logs", "db")
    assert told(host, "app") == ["vm-panicked", "vm-restarted"]
    assert vm(host, "db")["state"] == "crashed"


def test_a_damaged_disk_is_refused_with_what_to_do(host: Lab) -> None:
    path = host.directory / "state/disks/faults/db/data.qcow2"
    whole = path.read_bytes()
    path.write_bytes(b"\0" * 512 + whole[512:])
    refused = host.vnet("start", "db", expect=1)
    assert "declared, damaged" in host.vnet("disk", "ls")
    assert "is damaged" in refused and f"qemu-img check {path}" in refused and "vnet disk rm" in refused
    path.write_bytes(whole)
    host.vnet("start", "db")


def damage_tables(path: Path) -> None:
    """The table of clusters of a qcow2 file leads into its header. Source: QEMU, docs/interop/qcow2."""
    with path.open("r+b") as file:
        file.seek(40)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write((1 << 63 | 0x200).to_bytes(8, "big") * 8)


def test_a_disk_that_is_damaged_while_its_vm_runs_is_told_and_refused_at_the_next_start(host: Lab) -> None:
    host.vnet("stop", "app", "--wait", "5")
    damage_tables(host.directory / "state/disks/faults/app/data.qcow2")
    host.vnet("start", "app")
    sh(host, "app", "dd if=/dev/zero of=/dev/disk/data bs=64k count=1 oflag=direct 2>&1 | cat")
    assert "its disk data is damaged" in vm(host, "app")["detail"]
    assert "disk-failed" in told(host, "app")
    host.vnet("stop", "app", "--wait", "5")
    assert "marked it as corrupt" in host.vnet("start", "app", expect=1)
