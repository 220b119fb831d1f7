"""Backups of real guests: what was on their disks at a moment comes back, whatever happens in between."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.vm.fabric_lab import Lab, lab
from tests.waiting import until
from vnet.base.errors import Exit
from vnet.hv.freeze import FREEZE, WATCHDOG_S

TEXT = """\
name: backup
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db: {networks: [lan], disks: [{name: data, size: 48M}, {name: log, size: 32M, format: raw}]}
  safe: {networks: [lan], disks: [{name: data, size: 32M, encrypt: true}]}
  spare: {networks: [lan], disks: [{name: data, size: 64M}, {name: second, size: 64M}]}
"""
MARK = "a-plain-text-marker-that-must-not-be-found"


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("backup") / "backup.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        make = "mke2fs /dev/disk/data >/dev/null 2>&1 && mkdir -p /mnt && mount -t ext4 /dev/disk/data /mnt"
        for vm in ("db", "safe"):
            sh(made, vm, make)
        made.vnet("stop", "spare")
        yield made
        made.vnet("down", "-n", "backup", "--disks")
        assert list((made.directory / "state" / "keys").iterdir()) == []
        assert not (made.directory / "run" / "workers").exists()


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def backup(host: Lab, vm: str, *options: str) -> dict[str, Any]:
    (made,) = host.json("backup", "create", vm, *options)
    return made


def read_back(host: Lab, id_: str, command: str, *options: str) -> str:
    """What the command prints in `spare`, whose disk `data` is the backup's."""
    host.vnet("backup", "restore", id_, "--to", "spare/data", "--disk", "data", "--overwrite", *options)
    host.vnet("start", "spare")
    found = sh(host, "spare", f"mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt && {command}")
    host.vnet("stop", "spare", "--wait", "0")
    return found


@contextmanager
def half_done(host: Lab, *options: str) -> Iterator[subprocess.Popen[str]]:
    """A slow backup of `db` that is in the middle."""
    process = host.start("backup", "create", "db", "--rate", "4M", *options)
    try:
        until(lambda: any(row["state"] == "running" and row["percent"] for row in host.json("backup", "ls")))
        yield process
    finally:
        process.kill()
        process.communicate()


def states(host: Lab, vm: str) -> list[str]:
    return [row["state"] for row in host.json("backup", "ls", vm)]


def test_each_backup_is_the_disk_as_it_was_at_its_moment(host: Lab) -> None:
    sh(host, "db", "echo first >/mnt/note; dd if=/dev/urandom of=/mnt/big bs=1M count=8 2>/dev/null")
    sums = sh(host, "db", "sha256sum /mnt/big")
    full = backup(host, "db")
    assert (full["kind"], full["freeze"], full["parent"]) == ("full", {"is_frozen": True, "why": ""}, None)
    sh(
        host,
        "db",
        "echo second >/mnt/note; dd if=/dev/zero of=/mnt/big bs=1M count=8 conv=notrunc 2>/dev/null",
    )
    sh(host, "db", "echo logged >/dev/disk/log")
    second = backup(host, "db")
    assert (second["kind"], second["parent"]) == ("incremental", full["id"])
    assert second["file_bytes"] < full["file_bytes"] / 4
    sh(host, "db", "echo third >/mnt/note; rm /mnt/big")
    assert all(row["is_good"] for row in host.json("backup", "verify"))
    assert read_back(host, full["id"], "cat /mnt/note; sha256sum /mnt/big") == f"first\n{sums}"
    zeros = "head -c 8388608 /dev/zero | cmp - /mnt/big && echo zeros; cat /mnt/note"
    assert read_back(host, second["id"], zeros) == "zeros\nsecond\n"


def test_a_restore_replaces_nothing_unless_told_to(host: Lab) -> None:
    id_ = host.json("backup", "ls", "db")[0]["id"]
    assert "--overwrite" in host.vnet(
        "backup", "restore", id_, "--to", "spare/data", "--disk", "data", expect=1
    )
    assert "vnet stop db" in host.vnet("backup", "restore", id_, "--overwrite", expect=1)
    assert "has no disk log" in host.vnet("backup", "restore", id_, "--to", "spare", "--overwrite", expect=1)
    host.vnet("disk", "rm", "spare", "second")
    host.vnet("backup", "restore", id_, "--to", "spare/second", "--disk", "log")
    assert {row["disk"] for row in host.json("disk", "ls") if row["vm"] == "spare"} == {"data", "second"}


def test_no_disk_of_a_vm_goes_while_another_one_is_restored(host: Lab) -> None:
    id_ = host.json("backup", "ls", "db")[0]["id"]
    to = ("--to", "spare/data", "--disk", "data", "--overwrite", "--rate", "2M")
    process = host.start("backup", "restore", id_, *to)
    until(lambda: any(row["percent"] for row in host.json("backup", "ls")))
    told = host.vnet("disk", "rm", "spare", "second", expect=1)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert f"spare: {id_} is being restored to it" in told
    host.vnet("disk", "rm", "spare", "second")


def test_counts_outlive_a_stop_and_a_stopped_vm_is_backed_up_too(host: Lab) -> None:
    sh(host, "db", "echo stopped >/mnt/note; umount /mnt")
    host.vnet("stop", "db")
    made = backup(host, "db")
    assert (made["kind"], made["freeze"]["is_frozen"]) == ("incremental", True)
    why = {disk["name"]: disk["whole_because"] for disk in made["disks"]}
    assert why["data"] == ""
    assert "was not counted" in why["log"]  # raw disks have no room for a count
    host.vnet("start", "db")
    assert sh(host, "db", "mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt; cat /mnt/note") == "stopped\n"
    assert backup(host, "db")["parent"] == made["id"]


def test_when_qemu_is_killed_the_count_is_lost_and_the_next_one_says_so(host: Lab) -> None:
    os.kill(next(row["pid"] for row in host.json("ps") if row["vm"] == "db"), signal.SIGKILL)
    until(lambda: next(row for row in host.json("ps") if row["vm"] == "db")["state"] == "crashed")
    host.vnet("start", "db")
    sh(host, "db", "mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt")
    made = backup(host, "db")
    assert made["kind"] == "full"
    why = next(disk["whole_because"] for disk in made["disks"] if disk["name"] == "data")
    assert "was not counted" in why or "its QEMU was killed" in why


def test_a_backup_that_is_broken_off_leaves_nothing_and_the_next_increment_is_whole(host: Lab) -> None:
    before = states(host, "db")
    sh(host, "db", "echo kept >/mnt/note; dd if=/dev/urandom of=/mnt/big bs=1M count=16 2>/dev/null; sync")
    sums = sh(host, "db", "sha256sum /mnt/big")
    with half_done(host) as process:
        assert "already" in host.vnet("backup", "create", "db", expect=1)
        for words in (("suspend", "db"), ("detach", "db", "log")):
            assert "db: its disks are being backed up; wait for its end" in host.vnet(*words, expect=1)
        process.send_signal(signal.SIGINT)
        process.wait(30)
        assert process.returncode == 130
    assert states(host, "db") == before
    made = backup(host, "db")
    assert made["kind"] == "incremental"
    assert read_back(host, made["id"], "cat /mnt/note; sha256sum /mnt/big") == f"kept\n{sums}"


def test_a_vm_that_is_stopped_meanwhile_is_not_backed_up_and_that_is_said(host: Lab) -> None:
    before = states(host, "db")
    sh(host, "db", "dd if=/dev/urandom of=/mnt/big bs=1M count=16 2>/dev/null; sync")
    with half_done(host) as process:
        host.vnet("stop", "db", "--wait", "1")
        _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "db ended while it was being backed up; nothing is left of the backup" in told
    assert states(host, "db") == before
    host.vnet("start", "db")
    sh(host, "db", "mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt")


def test_when_the_daemon_is_killed_qemu_goes_on_and_the_backup_is_finished_later(host: Lab) -> None:
    sh(host, "db", "echo then >/mnt/note; dd if=/dev/urandom of=/mnt/big bs=1M count=16 2>/dev/null; sync")
    with half_done(host):
        host.kill_daemon()
    sh(host, "db", "echo later >/mnt/note; sync")
    assert states(host, "db").count("incomplete") == 1
    id_ = next(row["id"] for row in host.json("backup", "ls", "db") if row["state"] == "incomplete")
    for words in (("backup", "create", "db"), ("suspend", "db"), ("detach", "db", "log")):
        assert f"vnet backup resume {id_}`" in host.vnet(*words, expect=1)
    (done,) = host.json("backup", "resume", id_)
    assert (done["id"], done["kind"]) == (id_, "incremental")
    assert read_back(host, id_, "cat /mnt/note") == "then\n"
    assert read_back(host, backup(host, "db")["id"], "cat /mnt/note") == "later\n"


def test_what_was_broken_off_is_discarded_without_a_trace(host: Lab) -> None:
    sh(host, "db", "echo discarded >/mnt/note; sync")
    with half_done(host, "--full"):
        host.kill_daemon()
    id_ = next(row["id"] for row in host.json("backup", "ls", "db") if row["state"] == "incomplete")
    host.vnet("backup", "discard", id_)
    assert "incomplete" not in states(host, "db")
    made = backup(host, "db")
    assert made["kind"] == "incremental"
    assert read_back(host, made["id"], "cat /mnt/note") == "discarded\n"


def test_a_full_store_breaks_the_backup_and_not_the_guest(host: Lab) -> None:
    small = host.directory / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6M", "none", small], check=True)
    try:
        host.vnet("backup", "create", "db", "--store", str(small), expect=Exit.REFUSED)
        assert [path.name for path in small.iterdir()] == ["vnet-backups.json"]
        with small_backup(host, small) as process:
            write = "dd if=/dev/urandom of=/mnt/big bs=1M count=16 conv=notrunc 2>&1 && sync && echo written"
            assert sh(host, "db", write).endswith("written\n")
            _, told = process.communicate(timeout=60)
        assert "No space left" in told
        assert [path.name for path in small.iterdir()] == ["vnet-backups.json"]
        assert sh(host, "db", "echo on >/mnt/note; sync; cat /mnt/note") == "on\n"
    finally:
        subprocess.run(["umount", small], check=True)  # nobody has a file of it open any more
    assert backup(host, "db")["kind"] == "incremental"


def test_a_store_that_fails_breaks_the_backup_and_not_the_guest(host: Lab) -> None:
    """QEMU may make no file longer than so: the copy fails of something else than a full file system."""
    row = next(row for row in host.json("ps") if row["vm"] == "db")
    longest, store = 6 << 20, host.directory / "failing"
    write = "dd if=/dev/urandom of=/dev/disk/log bs=64k count=95 oflag=direct 2>&1 && echo written"
    sh(host, "db", write)
    with small_backup(host, store, rate="256K") as process:
        until(lambda: any(row["percent"] for row in host.json("backup", "ls", "--store", str(store))))
        limits = Path(f"/proc/{row['pid']}/limits").read_text().splitlines()
        before = next(line for line in limits if line.startswith("Max file size")).split()[3]
        limit(row["pid"], str(longest))
        assert sh(host, "db", write).endswith("written\n")
        _, told = process.communicate(timeout=60)
        limit(row["pid"], before)
    assert "(write: File too large), and the guest waited for it" in told
    assert backup(host, "db")["kind"] == "incremental"


def limit(pid: int, file_bytes: str) -> None:
    """Without more privileges only who a process runs as may change its limits."""
    user = str(os.stat(f"/proc/{pid}").st_uid)
    change = ["prlimit", "--pid", str(pid), f"--fsize={file_bytes}:"]
    subprocess.run(["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *change], check=True)


@contextmanager
def small_backup(host: Lab, store: Path, *, rate: str = "4M") -> Iterator[subprocess.Popen[str]]:
    process = host.start("backup", "create", "db", "--store", str(store), "--rate", rate, "--tight")
    try:
        until(lambda: store.exists() and len(list(store.iterdir())) > 1)
        yield process
    finally:
        process.kill()


def test_a_paused_vm_is_backed_up_again_and_again(host: Lab) -> None:
    host.vnet("pause", "db")
    first, second = backup(host, "db"), backup(host, "db", "--full")
    host.vnet("resume", "db")
    assert first["freeze"] == {"is_frozen": False, "why": "it is paused"}
    assert all(row["is_good"] for row in host.json("backup", "verify", first["id"], second["id"]))
    assert read_back(host, second["id"], "cat /mnt/note") == "on\n"


def test_a_guest_that_is_left_frozen_thaws_itself(host: Lab) -> None:
    soon = FREEZE.replace(f"sleep {WATCHDOG_S}", "sleep 2")
    sh(host, "db", soon)
    began = time.monotonic()
    assert sh(host, "db", "echo warm >/mnt/note; sync; cat /mnt/note") == "warm\n"
    assert time.monotonic() - began > 1


def test_an_encrypted_disk_is_plain_to_its_guest_and_to_nobody_else(host: Lab) -> None:
    sh(host, "safe", f"echo {MARK} >/mnt/note; sync")
    row = next(row for row in host.json("disk", "ls") if row["vm"] == "safe")
    assert row["encrypted"]
    assert MARK.encode() not in Path(row["path"]).read_bytes()
    key = host.directory / "state" / "keys" / "backup" / "safe" / "data"
    assert key.stat().st_mode & 0o777 == 0o600
    secret = key.read_bytes()
    lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    records = [path.read_bytes() for path in (host.directory / "run").rglob("*.json")]
    assert not any(secret in text for text in (*lines, *records, host.log().encode()))
    host.vnet("stop", "safe")
    key.rename(key.with_name("away"))
    assert f"cannot be read from {key}" in host.vnet("start", "safe", expect=1)
    key.with_name("away").rename(key)
    host.vnet("start", "safe")
    assert sh(host, "safe", "mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt; cat /mnt/note") == f"{MARK}\n"


def test_an_encrypted_backup_needs_its_key_and_no_other(host: Lab, tmp_path: Path) -> None:
    assert "is encrypted, its backup would not be" in host.vnet("backup", "create", "safe", expect=1)
    right, wrong = str(tmp_path / "right"), str(tmp_path / "wrong")
    for path in (right, wrong):
        host.vnet("backup", "keygen", path)
    full = backup(host, "safe", "--encrypt", "--key-file", right)
    assert full["is_encrypted"]
    stored = [path.read_bytes() for path in Path(full["path"]).iterdir()]
    assert not any(text in data for data in stored for text in (MARK.encode(), Path(right).read_bytes()))
    assert "is not the key of" in host.vnet("backup", "create", "safe", "--key-file", wrong, expect=1)
    restore = ("backup", "restore", full["id"], "--to", "spare/data", "--overwrite")
    assert "is encrypted: give its key" in host.vnet(*restore, expect=1)
    assert "is not the key of" in host.vnet(*restore, "--key-file", wrong, expect=1)
    assert read_back(host, full["id"], "cat /mnt/note", "--key-file", right) == f"{MARK}\n"
    (row,) = host.json("backup", "verify", full["id"], "--key-file", right)
    assert (row["is_good"], row["looked_into"]) == (True, True)


def test_that_a_disk_is_encrypted_cannot_be_changed_and_the_plan_says_so(host: Lab, tmp_path: Path) -> None:
    file = tmp_path / "backup.vnet.yaml"
    changes = {
        "is encrypted and is declared not to be": TEXT.replace(", encrypt: true", ""),
        "is not encrypted and is declared to be": TEXT.replace("size: 48M}", "size: 48M, encrypt: true}"),
    }
    for said, text in changes.items():
        file.write_text(text)
        for command in ("plan", "up"):
            assert said in host.vnet(command, "-f", str(file), expect=1)


def test_a_damaged_backup_is_found_and_not_restored(host: Lab) -> None:
    made = backup(host, "db", "--full")
    path = Path(made["path"]) / "data.qcow2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    host.vnet("backup", "verify", made["id"], expect=1)
    restore = ("backup", "restore", made["id"], "--to", "spare/data", "--disk", "data", "--overwrite")
    assert "is damaged, nothing was restored" in host.vnet(*restore, expect=1)
    host.vnet("backup", "rm", made["id"])


def test_thinning_out_keeps_what_increments_need(host: Lab) -> None:
    backup(host, "db", "--full")
    last = backup(host, "db")
    rows = host.json("backup", "prune", "db", "--keep-last", "1", "--dry-run")
    kept = {row["id"] for row in rows if row["is_kept"]}
    assert kept == {last["id"], last["parent"]}
    assert len(host.json("backup", "ls", "db")) == len(rows) > 2
    host.vnet("backup", "prune", "db", "--keep-last", "1")
    assert {row["id"] for row in host.json("backup", "ls", "db")} == kept
    assert f"{last['id']}; name them too" in host.vnet("backup", "rm", last["parent"], expect=1)
    assert backup(host, "db")["parent"] == last["id"]


def test_a_store_alone_is_enough_to_declare_the_vm_again_and_restore_it(host: Lab) -> None:
    id_ = host.json("backup", "ls", "db")[-1]["id"]
    anew = host.vnet("backup", "restore", id_, "--declare", "copy")
    assert "52:54:00" not in anew
    file = host.directory / "copy.vnet.yaml"
    file.write_text("name: elsewhere\nnetworks: {lan: {vlan: 10, subnets: 10.7.0.0/24}}\n" + anew)
    host.vnet("up", "-f", str(file))
    try:
        host.vnet("stop", "copy", "-n", "elsewhere")
        host.vnet("backup", "restore", id_, "-n", "elsewhere", "--to", "copy", "--overwrite")
        host.vnet("start", "copy", "-n", "elsewhere")
        show = "mkdir -p /mnt; mount -t ext4 /dev/disk/data /mnt; cat /mnt/note"
        assert host.vnet("exec", "-n", "elsewhere", "copy", "--", "sh", "-c", show) == "warm\n"
    finally:
        host.vnet("down", "-n", "elsewhere", "--disks")
