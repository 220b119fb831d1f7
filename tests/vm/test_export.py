"""VMs as files: exported as OVA and qcow2, brought back, with the same contents, whatever interrupts it."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.fabric_lab import Lab, lab

TEXT = """\
name: trip
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
images: {little: {path: little.raw}}
vms:
  imaged: {image: little, memory: 64M, networks: [lan]}
  db: {networks: [lan], disks: [{name: data, size: 64M}, {name: logs, size: 32M, format: raw}]}
  web: {networks: [lan]}
  copy: {networks: [lan], disks: [{name: data, size: 64M}]}
"""
WRITE = (
    "mke2fs /dev/disk/data >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt && "
    "dd if=/dev/urandom of=/mnt/noise bs=1M count=20 2>/dev/null && sha256sum </mnt/noise && umount /mnt"
)
READ = "mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt && sha256sum </mnt/noise && umount /mnt"


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        (made.directory / "trip.vnet.yaml").write_text(TEXT)
        (made.directory / "little.raw").write_bytes(
            bytes(510) + b"\x55\xaa" + os.urandom(2 << 20) + bytes(512)
        )
        made.vnet("up", "-f", file(made), "--yes")
        yield made
        made.vnet("down", "-n", "trip", "--disks")
        assert made.json("disk", "ls") == []
        assert list((made.directory / "state/exports").glob("*")) == []
        assert not list((made.directory / "state").rglob("*.importing"))


def file(host: Lab) -> str:
    return str(host.directory / "trip.vnet.yaml")


@pytest.fixture(scope="module")
def noise(host: Lab) -> str:
    """The sum of what db wrote onto its disk; db is stopped afterwards."""
    found = sh(host, "db", WRITE)
    host.vnet("stop", "-n", "trip", "db")
    return found


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", "-n", "trip", vm, "--", "sh", "-c", command)


def own(host: Lab, disk: str, vm: str = "db") -> Path:
    """Where a disk of a VM lies."""
    (row,) = [row for row in host.json("disk", "ls") if (row["vm"], row["disk"]) == (vm, disk)]
    return Path(row["path"])


def same(one: Path, other: Path) -> bool:
    forms = ["-U", "-f", one.suffix[1:], "-F", other.suffix[1:]]
    done = subprocess.run(
        ["qemu-img", "compare", *forms, str(one), str(other)], capture_output=True, text=True
    )
    return "identical" in done.stdout


def test_an_ova_brought_back_has_the_disks_with_the_same_contents(host: Lab, noise: str) -> None:
    ova, made = host.directory / "db.ova", host.directory / "made"
    host.vnet("export", "-n", "trip", "db", str(ova))
    listed = subprocess.run(
        ["tar", "tf", str(ova)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert listed == ["db.ovf", "db.mf", "db-data.vmdk", "db-logs.vmdk"]
    assert ova.stat().st_mode & 0o777 == 0o600
    host.vnet("import", "ova", str(ova), "--into", str(made))
    assert same(own(host, "data"), made / "db-root.qcow2")
    assert same(own(host, "logs"), made / "db-disk1.qcow2")
    topology = (made / "db.vnet.yaml").read_text()
    host.vnet("validate", "-f", str(made / "db.vnet.yaml"))
    assert "memory: 96M" in topology and "mac: 52:54:00" in topology.replace("'", "")


def test_a_disk_exported_as_qcow2_is_brought_to_another_vm(host: Lab, noise: str) -> None:
    disk = host.directory / "data.qcow2"
    assert "name one with --disk" in host.vnet("export", "-n", "trip", "db", str(disk), expect=1)
    host.vnet("export", "-n", "trip", "db", str(disk), "--disk", "data")
    assert same(own(host, "data"), disk)
    assert "there already" in host.vnet("export", "-n", "trip", "db", str(disk), "--disk", "data", expect=1)
    assert "runs" in host.vnet("import", "disk", "-n", "trip", "copy", "data", str(disk), expect=1)
    host.vnet("stop", "-n", "trip", "copy")
    assert "has a disk data already" in host.vnet(
        "import", "disk", "-n", "trip", "copy", "data", str(disk), expect=1
    )
    host.vnet("disk", "rm", "-n", "trip", "copy", "data")
    host.vnet("import", "disk", "-n", "trip", "copy", "data", str(disk))
    host.vnet("start", "-n", "trip", "copy")
    assert sh(host, "copy", READ) == noise


def test_the_difference_to_an_image_becomes_a_whole_disk(host: Lab) -> None:
    host.vnet("stop", "-n", "trip", "imaged", "--wait", "0")
    root, disk, ova = (
        own(host, "root", "imaged"),
        host.directory / "root.qcow2",
        host.directory / "imaged.ova",
    )
    subprocess.run(
        ["qemu-io", "-f", "qcow2", "-c", "write -P 90 4k 64k", str(root)], check=True, capture_output=True
    )
    host.vnet("export", "-n", "trip", "imaged", str(disk))
    info = subprocess.run(["qemu-img", "info", str(disk)], capture_output=True, text=True, check=True).stdout
    assert "backing" not in info
    whole = bytearray((host.directory / "little.raw").read_bytes())
    whole[4096 : 4096 + (64 << 10)] = b"Z" * (64 << 10)
    (host.directory / "expected.raw").write_bytes(whole)
    assert same(disk, host.directory / "expected.raw")
    host.vnet("export", "-n", "trip", "imaged", str(ova))
    host.vnet("import", "ova", str(ova), "--into", str(host.directory / "imaged"))
    assert same(host.directory / "imaged/imaged-root.qcow2", disk)


def test_a_vm_that_runs_stands_still_for_it_and_goes_on(host: Lab, noise: str) -> None:
    disk = host.directory / "paused.qcow2"
    assert "stop it, or let it stand still" in host.vnet("export", "-n", "trip", "copy", str(disk), expect=1)
    host.vnet("export", "-n", "trip", "copy", str(disk), "--pause")
    assert same(own(host, "data", "copy"), disk)
    assert sh(host, "copy", "echo goes on") == "goes on\n"


def test_what_cannot_be_exported_says_why(host: Lab) -> None:
    out = str(host.directory / "x.ova")
    assert "has no disk" in host.vnet("export", "-n", "trip", "web", out, expect=1)
    assert "there is no VM nobody" in host.vnet("export", "-n", "trip", "nobody", out, expect=1)
    assert "no disk other" in host.vnet("export", "-n", "trip", "db", out, "--disk", "other", expect=1)
    assert "--format" in host.vnet("export", "-n", "trip", "db", out[:-4], expect=1)
    assert "folder is not there" in host.vnet("export", "-n", "trip", "db", "/nowhere/x.ova", expect=1)


def test_ctrl_c_and_a_daemon_that_dies_leave_nothing(host: Lab, noise: str) -> None:
    folder = host.directory / "out"
    folder.mkdir()
    for how in (signal.SIGINT, None):
        for _ in range(5):  # it can be quicker than we
            running = host.start("export", "-n", "trip", "db", str(folder / "db.ova"))
            deadline_s = time.monotonic() + 20
            while not list((host.directory / "state/exports").glob("*/*")):
                assert time.monotonic() < deadline_s
                time.sleep(0.01)
            if how is None:
                host.kill_daemon()
            else:
                running.send_signal(how)
            running.communicate(timeout=60)
            if running.returncode:
                break
            (folder / "db.ova").unlink()
        assert running.returncode != 0
        assert list(folder.iterdir()) == []
    host.vnet("export", "-n", "trip", "db", str(folder / "db.ova"))
    assert [each.name for each in folder.iterdir()] == ["db.ova"]


def test_a_full_disk_is_told_and_leaves_nothing(host: Lab, noise: str) -> None:
    small = host.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(small)], check=True)
    try:
        assert "No space left" in host.vnet("export", "-n", "trip", "db", str(small / "db.ova"), expect=1)
        assert list(small.iterdir()) == []
        ova = str(host.directory / "db.ova")
        assert "No space left" in host.vnet("import", "ova", ova, "--into", str(small / "made"), expect=1)
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
