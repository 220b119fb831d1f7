"""A VM with disks copied: the copy has its contents and an identity of its own."""

from __future__ import annotations

import json
import signal
import subprocess

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until

TEXT = """\
name: clones
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  # the first
  db:
    interfaces: {eth0: {network: lan, addresses: [10.0.0.9/24], mac: "52:54:00:12:34:56"}}
    disks: [{name: data, size: 64M}, {name: logs, size: 32M, format: raw}]
"""


@pytest.fixture(scope="module")
def host():
    with lab() as made:
        (made.directory / "clones.vnet.yaml").write_text(TEXT)
        made.vnet("up", "-f", file(made))
        sh(
            made,
            "db",
            "mke2fs /dev/disk/data >/dev/null && mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt",
        )
        sh(made, "db", "echo precious >/mnt/note && sync")
        yield made
        made.vnet("down", "-n", "clones", "--disks")


def file(host: Lab) -> str:
    return str(host.directory / "clones.vnet.yaml")


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", "-n", "clones", vm, "sh", "-c", command)


def disks(host: Lab, vm: str) -> list[str]:
    return [row["disk"] for row in host.json("disk", "ls") if row["vm"] == vm]


def test_a_vm_that_runs_is_not_copied_and_the_file_stays_as_it_is(host: Lab) -> None:
    told = host.vnet("clone", "-f", file(host), "db", "db-2", expect=1)
    assert "`vnet stop db` first" in told
    assert (host.directory / "clones.vnet.yaml").read_text() == TEXT


def test_a_copy_has_the_contents_and_its_own_address_and_mac(host: Lab) -> None:
    host.vnet("pause", "-n", "clones", "db")
    host.vnet("clone", "-f", file(host), "db", "db-2")
    host.vnet("resume", "-n", "clones", "db")
    assert "already" in host.vnet("clone", "-f", file(host), "db", "db-2", expect=1)
    host.vnet("up", "-f", file(host))
    assert (
        sh(host, "db-2", "mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt && cat /mnt/note")
        == "precious\n"
    )
    rows = {row["vm"]: row for row in host.json("ps")}
    assert rows["db"]["addresses"] != rows["db-2"]["addresses"]
    assert len({sh(host, vm, "cat /sys/class/net/eth0/address") for vm in ("db", "db-2")}) == 2
    assert sh(host, "db-2", "hostname") == "db-2\n"
    sh(host, "db-2", "echo other >/mnt/note && sync")
    assert sh(host, "db", "cat /mnt/note") == "precious\n"
    assert "# the first" in (host.directory / "clones.vnet.yaml").read_text()


def test_wrong_names_are_refused_and_make_nothing(host: Lab) -> None:
    before = (host.directory / "clones.vnet.yaml").read_text()
    for vm, new in (("nobody", "x"), ("db", "../x"), ("db", "UPPER")):
        host.vnet("clone", "-f", file(host), vm, new, expect=1)
    assert (host.directory / "clones.vnet.yaml").read_text() == before


def test_a_copy_that_is_broken_off_leaves_nothing(host: Lab) -> None:
    sh(host, "db", "dd if=/dev/urandom of=/dev/disk/logs bs=1M count=24 conv=fsync 2>/dev/null")
    host.vnet("pause", "-n", "clones", "db")
    before = (host.directory / "clones.vnet.yaml").read_text()
    assert any(is_broken_off(host, before) for _ in range(10)), "it is quicker than Ctrl-C, ten times"
    host.vnet("resume", "-n", "clones", "db")


def is_broken_off(host: Lab, before: str) -> bool:
    """Whether Ctrl-C came in time; nothing is there then, else the whole copy, which is removed."""
    staged = host.directory / "state" / "cloning"
    copying = host.start("clone", "-f", file(host), "db", "db-3")
    until(lambda: any(staged.glob("*/")), every_s=0.002)
    copying.send_signal(signal.SIGINT)
    copying.communicate(timeout=30)
    declared = (host.directory / "clones.vnet.yaml").read_text()
    if declared == before:
        until(lambda: disks(host, "db-3") == [] and not any(staged.glob("*/")))
        return copying.returncode != 0
    assert "db-3" in declared and disks(host, "db-3") == ["data", "logs"]
    (host.directory / "clones.vnet.yaml").write_text(before)
    for disk in ("data", "logs"):
        host.vnet("disk", "rm", "-n", "clones", "db-3", disk)
    return False


# ---- linked ------------------------------------------------------------------------------------

MOUNTED = "mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt"


def bases(host: Lab) -> list[dict[str, object]]:
    return [row for row in host.json("image", "ls") if row["kind"] == "base"]


def test_linked_clones_see_what_was_there_and_write_for_themselves(host: Lab) -> None:
    sh(host, "db", "sync")
    host.vnet("pause", "-n", "clones", "db")
    answer = host.json("clone", "-f", file(host), "--linked", "db", "db-4")
    assert (sorted(answer["disks"]), answer["linked"]) == (["data", "logs"], ["data"])
    assert host.json("clone", "-f", file(host), "--linked", "db", "db-5")["linked"] == ["data"]
    host.vnet("resume", "-n", "clones", "db")
    (base,) = bases(host)
    assert base["users"] == ["clones/db-4/data", "clones/db-5/data"]
    _, told = host.start("up", "-f", file(host)).communicate(timeout=120)
    assert told.count("warm clone") == told.count("✓ start ") >= 2, told
    assert sh(host, "db-4", f"{MOUNTED} && cat /mnt/note") == "precious\n"
    sh(host, "db-4", "echo four >/mnt/note && sync")
    sh(host, "db", "echo first >/mnt/note && sync")
    assert sh(host, "db-5", f"{MOUNTED} && cat /mnt/note") == "precious\n"
    taken = {row["vm"]: row["taken_bytes"] for row in host.json("disk", "ls") if row["disk"] == "data"}
    assert taken["db-4"] < base["taken_bytes"]


def test_a_linked_disk_is_exported_and_restored_with_what_lies_behind_it(host: Lab) -> None:
    host.vnet("stop", "-n", "clones", "db-5")
    image, store = host.directory / "db-5.qcow2", str(host.directory / "backups")
    host.vnet("export", "-n", "clones", "db-5", "--disk", "data", "--format", "qcow2", str(image))
    told = subprocess.run(["qemu-img", "info", "--output=json", image], capture_output=True, check=True)
    assert "backing-filename" not in json.loads(told.stdout)
    (made,) = host.json("backup", "create", "-n", "clones", "db-5", "--store", store)
    host.vnet("backup", "restore", made["id"], "--store", store, "--overwrite")
    assert bases(host)[0]["users"] == ["clones/db-4/data", "clones/db-5/data"]
    host.vnet("start", "-n", "clones", "db-5")
    assert sh(host, "db-5", f"{MOUNTED} && cat /mnt/note") == "precious\n"


def test_a_base_goes_with_its_last_clone_and_one_that_is_removed_harms_no_other(host: Lab) -> None:
    told = host.vnet("image", "rm", bases(host)[0]["id"], expect=1)
    assert "is needed by clones/db-4/data" in told
    host.vnet("stop", "-n", "clones", "db")
    host.vnet("disk", "rm", "-n", "clones", "db", "data")
    host.vnet("stop", "-n", "clones", "db-4")
    host.vnet("disk", "rm", "-n", "clones", "db-4", "data")
    assert len(bases(host)) == 1
    sh(host, "db-5", "umount /mnt; echo 3 >/proc/sys/vm/drop_caches")
    assert sh(host, "db-5", f"{MOUNTED} && cat /mnt/note") == "precious\n"
    host.vnet("stop", "-n", "clones", "db-5")
    host.vnet("disk", "rm", "-n", "clones", "db-5", "data")
    assert bases(host) == []


def test_a_disk_becomes_a_template(host: Lab) -> None:
    told = host.vnet("image", "import", "--from", "clones/db-2", "--name", "golden", expect=1)
    assert "name one as db-2:DISK" in told
    words = ("image", "import", "--from", "clones/db-2:data", "--name", "golden")
    assert "`vnet stop db-2` first" in host.vnet(*words, expect=1)
    host.vnet("stop", "-n", "clones", "db-2")
    made = host.json(*words)
    assert (made["name"], made["kind"], made["size_bytes"]) == ("golden", "disk", 64 << 20)
    host.vnet("image", "verify", "golden")
    host.vnet("image", "rm", "golden")
