"""Disks of real guests: what is written stays, whatever becomes of the VM."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.vm.fabric_lab import Lab, lab

TEXT = """\
name: disks
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db: {networks: [lan], disks: [{name: data, size: 64M}, {name: logs, size: 32M, format: raw}]}
"""


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    file = tmp_path_factory.mktemp("disks") / "disks.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        yield made
        made.vnet("down", "-n", "disks", "--disks")
        assert made.json("disk", "ls") == []
        made.vnet("serve", "--stop")


def sh(host: Lab, command: str) -> str:
    return host.vnet("exec", "db", "--", "sh", "-c", command)


def note(host: Lab) -> str:
    """What is written on the disk."""
    return sh(host, "mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt 2>/dev/null; cat /mnt/note")


def declare(host: Lab, size: str, expect: int = 0) -> str:
    file = host.directory / "disks.vnet.yaml"
    file.write_text(TEXT.replace("64M", size))
    return host.vnet("up", "-f", str(file), "--yes", expect=expect)


def test_a_new_disk_is_there_by_its_name(host: Lab) -> None:
    sh(host, "mke2fs /dev/disk/data >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt")
    sh(host, "echo precious >/mnt/note && sync && umount /mnt")
    rows = {row["disk"]: row for row in host.json("disk", "ls")}
    assert rows["data"]["size_bytes"] == 64 << 20
    assert rows["data"]["use"] == "running"
    assert rows["data"]["taken_bytes"] < 16 << 20
    assert "runs with the disk data" in host.vnet("disk", "rm", "db", "data", expect=1)


def test_what_is_on_a_disk_outlives_stops_crashes_and_the_fabric(host: Lab) -> None:
    host.vnet("stop", "db")
    host.vnet("start", "db")
    assert note(host) == "precious\n"
    os.kill(host.json("ps")[0]["pid"], signal.SIGKILL)
    time.sleep(1)
    host.vnet("start", "db")
    assert note(host) == "precious\n"
    host.vnet("reset", "db")
    assert note(host) == "precious\n"
    host.vnet("down", "-n", "disks")
    assert [row["use"] for row in host.json("disk", "ls")] == ["unused", "unused"]
    declare(host, "64M")
    assert note(host) == "precious\n"


def test_a_disk_that_is_declared_larger_grows_and_one_declared_smaller_is_refused(host: Lab) -> None:
    declare(host, "128M")
    assert sh(host, "cat /sys/block/$(basename $(readlink /dev/disk/data))/size").strip() == "262144"
    assert note(host) == "precious\n"
    assert "not made smaller" in declare(host, "64M", expect=1)
    assert note(host) == "precious\n"
