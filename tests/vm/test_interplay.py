"""Where abilities meet: backups, snapshots and copies of disks made of images, encrypted, or suspended."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm.fabric_lab import Lab, lab

TEXT = """\
name: meet
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
images: {little: {path: little.raw}}
vms:
  imaged: {image: little, boot: {firmware: uefi}, memory: 256M, networks: [lan]}
  other: {image: little, memory: 64M, networks: [lan]}
  safe: {networks: [lan], disks: [{name: data, size: 32M, encrypt: true}]}
  db: {networks: [lan], disks: [{name: data, size: 32M}]}
  look: {networks: [lan], disks: [{name: data, size: 64M}]}
"""
HALTS = b"\xfa\xf4\xeb\xfd"
"""A boot sector that does nothing, at rest: cli; hlt; jmp."""
MOUNT = "mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt"
MAKE = f"mke2fs /dev/disk/data >/dev/null 2>&1 && {MOUNT} && echo first >/mnt/note && sync"
AT_ONCE = ("--freeze", "never")


@pytest.fixture(scope="module")
def host() -> Iterator[Lab]:
    with lab() as made:
        file(made).write_text(TEXT)
        sector = HALTS.ljust(510, b"\0") + b"\x55\xaa"
        (made.directory / "little.raw").write_bytes(sector + b"\x42" * (2 << 20))
        made.vnet("up", "-f", str(file(made)), "--yes")
        for vm in ("look", "other"):
            made.vnet("stop", vm, "--wait", "0")
        for vm in ("safe", "db"):
            sh(made, vm, MAKE)
        yield made
        made.vnet("down", "-n", "meet", "--disks")
        assert made.json("disk", "ls") == []


def file(host: Lab) -> Path:
    return host.directory / "meet.vnet.yaml"


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def path_of(host: Lab, vm: str, disk: str = "root") -> Path:
    (row,) = [row for row in host.json("disk", "ls") if (row["vm"], row["disk"]) == (vm, disk)]
    return Path(row["path"])


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write(host: Lab, vm: str, pattern: int) -> None:
    """Onto the second MiB of a root disk whose VM does not run."""
    qemu_io(path_of(host, vm), f"write -P {pattern} 1M 512k")


def holds(path: Path, pattern: int) -> None:
    """What is of the image, and what was written since."""
    qemu_io(path, "read -P 0x42 512 1k", "-r", "-U")
    qemu_io(path, f"read -P {pattern} 1M 512k", "-r", "-U")


def qemu_io(path: Path, command: str, *how: str) -> None:
    words = ["qemu-io", *how, "-f", "qcow2", "-c", command, str(path)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0 and "failed" not in said, said


def backup(host: Lab, vm: str, *options: str) -> dict[str, Any]:
    (made,) = host.json("backup", "create", vm, *options)
    return made


def copy(host: Lab, vm: str, *, expect: int = 0) -> str:
    return host.vnet("clone", "-f", str(file(host)), vm, f"{vm}-2", expect=expect)


def refused(host: Lab, vm: str, disk: str, *more: tuple[str, ...]) -> Iterator[str]:
    """What is said to all that would read or change the disks of a VM; they stay as they are."""
    before, export = sum_of(path_of(host, vm, disk)), str(host.directory / "x.qcow2")
    for words in (("export", vm, export), *more):
        yield host.vnet(*words, expect=1)
    assert sum_of(path_of(host, vm, disk)) == before
    assert not Path(export).exists()
    assert file(host).read_text() == TEXT


def test_a_disk_made_of_an_image_is_backed_up_whole_and_then_what_changed(host: Lab) -> None:
    runs, again = backup(host, "imaged", *AT_ONCE), backup(host, "imaged", *AT_ONCE)
    assert (runs["kind"], again["kind"]) == ("full", "incremental")
    host.vnet("stop", "imaged", "--wait", "1")
    write(host, "imaged", 7)
    stopped = backup(host, "imaged")
    assert all(row["is_good"] for row in host.json("backup", "verify"))
    host.vnet("backup", "restore", stopped["id"], "--to", "look/data", "--overwrite")
    holds(path_of(host, "look", "data"), 7)  # with nothing behind it
    host.vnet("backup", "restore", stopped["id"], "--to", "other/root", "--overwrite")
    holds(path_of(host, "other"), 7)
    host.vnet("backup", "restore", again["id"], "--to", "other/root", "--overwrite")
    holds(path_of(host, "other"), 0x42)
    host.vnet("start", "other")


def test_what_uefi_keeps_is_backed_up_with_it(host: Lab) -> None:
    host.vnet("stop", "imaged", "--wait", "0")
    path, mark = path_of(host, "imaged", "uefi-vars"), b"boots this"
    with path.open("r+b") as variables:
        variables.seek(-4096, 2)
        variables.write(mark)
    held = path.read_bytes()
    made = backup(host, "imaged")
    assert [disk["name"] for disk in made["disks"]] == ["root", "uefi-vars"]
    path.write_bytes(held.replace(mark, b"nothing at"))
    host.vnet("backup", "restore", made["id"], "--disk", "root", "--overwrite")
    assert mark not in path.read_bytes()
    host.vnet("backup", "restore", made["id"], "--overwrite")
    assert path.read_bytes() == held
    host.vnet("disk", "rm", "imaged", "root")
    host.vnet("backup", "restore", made["id"])  # what UEFI keeps stands in nobody's way
    assert path.read_bytes() == held
    host.vnet("stop", "other", "--wait", "0")
    host.vnet("backup", "restore", made["id"], "--to", "other", "--overwrite")
    assert not [row for row in host.json("disk", "ls") if (row["vm"], row["disk"]) == ("other", "uefi-vars")]
    assert "no disk uefi-vars" in host.vnet(
        "backup", "restore", made["id"], "--to", "other", "--disk", "uefi-vars", "--overwrite", expect=1
    )
    host.vnet("start", "other")


def test_such_a_vm_is_declared_again_as_what_it_was(host: Lab) -> None:
    anew = host.vnet("backup", "restore", host.json("backup", "ls", "imaged")[0]["id"], "--declare", "anew")
    text = "\n".join(line for line in TEXT.splitlines() if not line.startswith(("  ", "images"))) + "\n"
    (host.directory / "anew.vnet.yaml").write_text(text.replace("vms:\n", "").replace("meet", "anew") + anew)
    host.vnet("validate", "-f", str(host.directory / "anew.vnet.yaml"))
    assert "firmware: uefi" in anew


def test_its_snapshots_copies_and_exports_have_what_was_written_and_what_is_of_the_image(host: Lab) -> None:
    host.vnet("snapshot", "save", "imaged", "off")
    copy(host, "imaged")
    holds(path_of(host, "imaged-2"), 7)
    assert path_of(host, "imaged-2", "uefi-vars").stat().st_size > 0
    target = host.directory / "imaged.qcow2"
    host.vnet("export", "imaged", str(target))
    holds(target, 7)
    write(host, "imaged", 9)
    host.vnet("start", "imaged")
    host.vnet("snapshot", "save", "imaged", "on")
    host.vnet("snapshot", "restore", "imaged", "off")
    holds(path_of(host, "imaged"), 7)
    host.vnet("snapshot", "restore", "imaged", "on")
    assert next(row for row in host.json("ps") if row["vm"] == "imaged")["state"] == "running"
    holds(path_of(host, "imaged"), 9)


def test_a_restored_backup_replaces_no_disk_that_keeps_snapshots(host: Lab) -> None:
    host.vnet("stop", "imaged", "--wait", "0")
    id_ = host.json("backup", "ls", "imaged")[0]["id"]
    assert "vnet snapshot rm imaged" in host.vnet("backup", "restore", id_, "--overwrite", expect=1)
    holds(path_of(host, "imaged"), 9)
    file(host).write_text(TEXT)


def test_a_snapshot_keeps_what_uefi_keeps(host: Lab) -> None:
    host.vnet("stop", "imaged", "--wait", "0")
    path = path_of(host, "imaged", "uefi-vars")
    for name, how in (("stands", ()), ("runs", ("--disk-only",))):
        held = path.read_bytes()
        if how:
            host.vnet("start", "imaged")
        host.vnet("snapshot", "save", *how, "imaged", name)
        if how:
            host.vnet("stop", "imaged", "--wait", "0")
        path.write_bytes(held[:-4096] + b"\x5a" * 4096)
        host.vnet("snapshot", "restore", "imaged", name)
        assert path.read_bytes()[-4096:] == held[-4096:]  # it writes to the rest when it boots
        host.vnet("stop", "imaged", "--wait", "0")


def test_an_encrypted_disk_is_not_exported_without_its_key(host: Lab) -> None:
    host.vnet("pause", "safe")
    for told in refused(host, "safe", "data", ("export", "safe", str(host.directory / "s.ova"), "--pause")):
        assert "data of safe is encrypted" in told and "vnet backup create safe --encrypt" in told
    host.vnet("resume", "safe")


def test_the_copy_of_an_encrypted_disk_has_a_key_of_its_own(host: Lab) -> None:
    keys = host.directory / "state" / "keys" / "meet"
    host.vnet("pause", "safe")
    host.json("clone", "-f", str(file(host)), "safe", "safe-2")
    host.vnet("resume", "safe")
    first, second = ((keys / vm / "data").read_bytes() for vm in ("safe", "safe-2"))
    assert first != second
    assert b"first" not in path_of(host, "safe-2", "data").read_bytes()
    host.vnet("up", "-f", str(file(host)), "--yes")
    assert sh(host, "safe-2", f"{MOUNT} && cat /mnt/note") == "first\n"
    host.vnet("stop", "safe-2", "--wait", "0")
    (keys / "safe-2" / "data").write_bytes(first)
    assert "safe-2" in host.vnet("start", "safe-2", expect=1)
    file(host).write_text(TEXT)
    host.vnet("up", "-f", str(file(host)), "--yes")
    host.vnet("disk", "rm", "safe-2", "data")
    assert not (keys / "safe-2").exists()


def test_an_encrypted_disk_is_kept_with_memory_and_taken_back(host: Lab) -> None:
    host.vnet("snapshot", "save", "safe", "s1")
    sh(host, "safe", "echo second >/mnt/note; sync")
    host.vnet("snapshot", "restore", "safe", "s1")
    assert sh(host, "safe", "echo 3 >/proc/sys/vm/drop_caches; cat /mnt/note") == "first\n"
    host.vnet("suspend", "safe")
    host.vnet("start", "safe")
    assert sh(host, "safe", "echo 3 >/proc/sys/vm/drop_caches; cat /mnt/note") == "first\n"


def test_nothing_touches_the_disks_of_a_suspended_vm(host: Lab) -> None:
    id_ = backup(host, "db")["id"]
    host.vnet("suspend", "db")
    others = (
        ("clone", "-f", str(file(host)), "db", "x"),
        ("backup", "create", "db"),
        ("disk", "rm", "db", "data"),
    )
    for told in refused(host, "db", "data", *others, ("backup", "restore", id_, "--overwrite")):
        assert "db is suspended" in told and "`vnet start db` first" in told


def test_a_suspended_vm_that_is_declared_with_another_disk_is_left_as_it_is(host: Lab) -> None:
    before = sum_of(path_of(host, "db", "data"))
    file(host).write_text(
        TEXT.replace("{name: data, size: 32M}", "{name: data, size: 40M}, {name: b, size: 8M}")
    )
    assert "vnet start --boot db" in host.vnet("up", "-f", str(file(host)), "--yes", expect=1)
    assert sum_of(path_of(host, "db", "data")) == before
    file(host).write_text(TEXT)
    host.vnet("start", "imaged")  # its start was broken off when the other's had failed: its TAP is free
    host.vnet("start", "db")
    assert sh(host, "db", "cat /mnt/note") == "first\n"


def test_after_a_snapshot_is_restored_the_next_backup_is_whole_says_why_and_is_right(host: Lab) -> None:
    host.vnet("snapshot", "save", "db", "s1")
    sh(host, "db", "echo second >/mnt/note; sync")
    assert backup(host, "db")["kind"] == "incremental"
    host.vnet("snapshot", "restore", "db", "s1")
    process = host.start("backup", "create", "db")
    _, told = process.communicate(timeout=60)
    assert "all of data was copied" in told and "was not counted" in told
    last = host.json("backup", "ls", "db")[-1]
    assert last["kind"] == "full"
    host.vnet("stop", "look", "--wait", "0")
    host.vnet("backup", "restore", last["id"], "--to", "look/data", "--overwrite")
    host.vnet("start", "look")
    assert sh(host, "look", f"{MOUNT} && cat /mnt/note") == "first\n"


def test_the_file_systems_are_frozen_for_a_snapshot_and_a_backup_by_the_same_means(host: Lab) -> None:
    """One that is mounted twice, or only read, does not stand in the way."""
    sh(host, "db", "mkdir -p /twice /read && mount --bind /mnt /twice && mount -o bind,ro /mnt /read")
    assert backup(host, "db")["freeze"] == {"is_frozen": True, "why": ""}
    host.vnet("snapshot", "save", "--disk-only", "db", "s2")
    rows = {row["snapshot"]: row for row in host.json("snapshot", "ls") if row["vm"] == "db"}
    assert rows["s2"]["consistency"] == "frozen"
    assert (
        sh(host, "db", "echo warm >/mnt/note; cat /twice/note; ls /run/vnet-frozen* 2>&1 | wc -l")
        == "warm\n1\n"
    )


def test_encrypted_disks_are_plugged_into_a_vm_that_runs(host: Lab) -> None:
    more = "encrypt: true}, {name: more, size: 16M, encrypt: true}"
    file(host).write_text(TEXT.replace("encrypt: true}", more))
    host.vnet("up", "-f", str(file(host)))
    sh(
        host,
        "safe",
        "mke2fs /dev/disk/more >/dev/null 2>&1 && mkdir /more && mount -t ext4 /dev/disk/more /more",
    )
    assert next(row for row in host.json("disk", "ls") if row["disk"] == "more")["encrypted"]
    assert sh(host, "safe", "cat /mnt/note") == "first\n"
