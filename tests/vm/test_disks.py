"""Disks of real guests: what is written stays, whatever becomes of the VM."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator

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


# ---- locations ---------------------------------------------------------------------------------


class Folder:
    """A folder of the host, on which a file system is mounted, or not."""

    def __init__(self, host: Lab) -> None:
        self.path, self.real = host.directory / "nvme", host.directory / "real"
        for each in (self.path, self.real):
            each.mkdir(mode=0o755)

    def mount(self) -> None:
        subprocess.run(["mount", "--bind", self.real, self.path], check=True)

    def unmount(self, *how: str) -> None:
        subprocess.run(["umount", *how, self.path], check=True)


@pytest.fixture(scope="module")
def fast(host: Lab) -> Iterator[Folder]:
    folder = Folder(host)
    folder.mount()
    try:
        yield folder
        host.vnet("down", "-n", "disks", "--disks")
        host.vnet("disk", "location", "rm", "fast")
        assert list(folder.real.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", folder.path], capture_output=True, check=False)  # if it still is


def located(host: Lab, expect: int = 0) -> str:
    """The disk data is declared at the location fast, and the other one no more."""
    file = host.directory / "disks.vnet.yaml"
    other = ", {name: logs, size: 32M, format: raw}"
    file.write_text(TEXT.replace("64M}", "128M, location: fast}").replace(other, ""))
    return host.vnet("up", "-f", str(file), "--yes", expect=expect)


def test_a_location_is_added_by_the_administrator_and_nothing_moves_unasked(host: Lab, fast: Folder) -> None:
    told = located(host, expect=1)
    assert "disks.vnet.yaml:5:" in told and "`vnet disk location add fast FOLDER`" in told
    assert "no location fast" in host.vnet(
        "validate", "-f", str(host.directory / "disks.vnet.yaml"), expect=1
    )
    host.vnet("disk", "location", "add", "fast", str(fast.path))
    told = located(host, expect=1)
    assert "the disk data of db lies at the location default" in told
    assert "vnet disk move db data fast" in told
    assert note(host) == "precious\n"


def test_a_disk_that_is_moved_has_its_contents(host: Lab, fast: Folder) -> None:
    assert "vnet stop db" in host.vnet("disk", "move", "db", "data", "fast", expect=1)
    host.vnet("stop", "db")
    host.vnet("disk", "rm", "db", "logs")
    assert "no location slow" in host.vnet("disk", "move", "db", "data", "slow", expect=1)
    assert host.json("disk", "move", "db", "data", "fast")["from"] == "default"
    assert [row["location"] for row in host.json("disk", "ls")] == ["fast"]
    assert "lies at the location fast" in host.vnet("start", "db", expect=1)
    located(host)
    assert note(host) == "precious\n"
    rows = {row["location"]: row for row in host.json("disk", "location", "ls")}
    assert rows["fast"]["disks"] == 1 and rows["fast"]["free_bytes"] > 0
    told = host.vnet("disk", "location", "rm", "fast", expect=1)
    assert "disks lie at the location fast, of disks/db" in told


def test_its_snapshots_and_backups_are_those_of_the_disk_wherever_it_lies(host: Lab, fast: Folder) -> None:
    host.vnet("stop", "db")
    host.vnet("snapshot", "save", "db", "before")
    for location in ("default", "fast"):
        host.vnet("disk", "move", "db", "data", location)
    host.vnet("snapshot", "restore", "db", "before")
    host.vnet("snapshot", "rm", "db", "before")
    (made,) = host.json("backup", "create", "db")
    host.vnet("backup", "restore", made["id"], "--overwrite")
    assert [each.name for each in (fast.real / "vnet-disks/disks/db").glob("[!.]*")] == ["data.qcow2"]
    assert not (host.directory / "state/disks/disks/db").exists()


def test_a_location_that_is_not_mounted_is_refused_and_nothing_is_made_there(host: Lab, fast: Folder) -> None:
    host.vnet("snapshot", "save", "db", "seen")
    fast.unmount()
    assert "vnet-disks is missing: mount the file system" in host.vnet("start", "db", expect=1)
    assert list(fast.path.iterdir()) == [] and host.json("disk", "ls") == []
    asked = "disk rm db data", "export db db.ova", "snapshot save db now"
    for each in (*asked, "snapshot restore db seen", "snapshot rm db seen"):
        assert "lies at the location fast: " in host.vnet(*each.split(), expect=1)
    assert "the location fast cannot be used: " in host.vnet("backup", "create", "db", expect=1)
    _, told = host.start("disk", "ls").communicate(timeout=60)
    assert "location fast: " in told and "disks there are not seen" in told
    fast.mount()
    host.vnet("snapshot", "rm", "db", "seen")
    host.vnet("start", "db")
    assert note(host) == "precious\n"
