"""Snapshots of real guests: what they keep, what comes back, what is left by managers that are killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from tests.breaking_off import Work, broken_off
from tests.vm import hv_lab
from tests.vm.fabric_lab import Lab, lab
from tests.vm.snapshot_killer import RESTORE, SAVE, SPECS, SUSPEND, WAKE
from tests.waiting import until
from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv.live import disk_snapshots, worker
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.guest import Guest
from vnet.hv.live.snapshots import Snapshots, Wanted
from vnet.hv.snapshot import SavedDisk
from vnet.hv.spec import GuestState

TEXT = """\
name: snapshots
defaults: {image: micro, cpus: 1, memory: 96M}
networks: {lan: {vlan: 10, subnets: 10.0.0.0/24}}
vms:
  db: {networks: [lan], disks: [{name: data, size: 32M}]}
  app: {networks: [lan]}
policies: [{name: counting, applied_to: "vm:db", ingress: [{from: any, ports: [7000/tcp]}]}]
"""
COUNT = "while read n; do echo $n >/tmp/count; echo $((n+1)); done"
SERVER = f"mkfifo /tmp/f; (nc.openbsd -l 7000 </tmp/f | {COUNT} >/tmp/f) >/dev/null 2>&1 &"
CLIENT = (
    f"mkfifo /tmp/f; (nc.openbsd 10.0.0.2 7000 </tmp/f | {COUNT} >/tmp/f) >/dev/null 2>&1 & echo 1 >/tmp/f"
)


# ---- as users do -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def host(tmp_path_factory) -> Iterator[Lab]:
    file = tmp_path_factory.mktemp("snapshots") / "snapshots.vnet.yaml"
    file.write_text(TEXT)
    with lab() as made:
        made.vnet("up", "-f", str(file))
        sh(made, "db", "mke2fs /dev/disk/data >/dev/null && mkdir /mnt && mount -t ext4 /dev/disk/data /mnt")
        yield made
        made.vnet("down", "-n", "snapshots", "--disks")
        assert made.json("snapshot", "ls") == []
        assert not (made.directory / "state" / "snapshots").exists()
        made.vnet("serve", "--stop")


def sh(host: Lab, vm: str, command: str) -> str:
    return host.vnet("exec", vm, "--", "sh", "-c", command)


def mark(host: Lab, text: str) -> None:
    """In memory and on the disk."""
    sh(host, "db", f"echo {text} >/tmp/note; echo {text} >/mnt/note; sync")


def marked(host: Lab) -> str:
    return sh(host, "db", "cat /tmp/note /mnt/note")


def vm(host: Lab, name: str) -> dict:
    return next(row for row in host.json("ps") if row["vm"] == name)


def test_a_restored_vm_goes_on_where_it_was_and_knows_the_time(host: Lab) -> None:
    mark(host, "before")
    ids = sh(host, "db", "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid").split()
    (made,) = host.json("snapshot", "save", "db", "first", "-d", "before all")
    assert made["consistency"] == "memory"
    assert 0 < made["pause_s"] < 5
    mark(host, "after")
    time.sleep(2)
    host.vnet("snapshot", "restore", "db", "first")
    assert marked(host) == "before\nbefore\n"
    again = sh(host, "db", "cat /proc/sys/kernel/random/boot_id /proc/sys/kernel/random/uuid").split()
    assert ids[0] == again[0]
    assert ids[1] != again[1]
    assert abs(int(sh(host, "db", "date +%s")) - time.time()) < 3
    kept = host.directory / "state" / "snapshots"
    assert {path.stat().st_mode & 0o077 for path in (kept, *kept.rglob("*"))} == {0}


def test_vms_saved_together_are_restored_with_their_connection(host: Lab) -> None:
    sh(host, "db", f"{SERVER} sleep 1")
    sh(host, "app", CLIENT)
    counted(host, more_than=5)
    rows = host.json("snapshot", "save", "--all", "pair")
    assert {row["vm"]: row["together_with"] for row in rows} == {"app": ["db"], "db": ["app"]}
    for name in ("app", "db"):
        sh(host, name, "touch /tmp/later")
    counted(host, more_than=counted(host))
    host.vnet("snapshot", "restore", "--all", "pair")
    for name in ("app", "db"):
        assert sh(host, name, "ls /tmp/later 2>/dev/null || echo not yet") == "not yet\n"
    counted(host, more_than=counted(host))
    for name in ("app", "db"):
        sh(host, name, "killall nc.openbsd; sleep 1")
    first, second = (int(sh(host, name, "cat /tmp/count")) for name in ("app", "db"))
    assert abs(first - second) == 1


def counted(host: Lab, more_than: int = 0) -> int:
    """What one has counted, once it is so far."""
    return until(
        lambda: int(sh(host, "app", "cat /tmp/count 2>/dev/null || true").strip() or 0),
        holds=lambda number: number > more_than,
    )


def test_disks_alone_are_kept_at_rest_and_of_a_vm_that_is_off(host: Lab) -> None:
    mark(host, "resting")
    assert host.json("snapshot", "save", "--disk-only", "db", "resting")[0]["consistency"] == "frozen"
    mark(host, "later")
    host.vnet("stop", "db")
    assert host.json("snapshot", "save", "db", "off")[0]["consistency"] == "off"
    host.vnet("snapshot", "restore", "db", "resting")
    assert vm(host, "db")["state"] == "stopped"
    host.vnet("start", "db")
    assert sh(host, "db", "mkdir /mnt && mount -t ext4 /dev/disk/data /mnt && cat /mnt/note") == "resting\n"
    host.vnet("snapshot", "restore", "--disk-only", "db", "off")
    assert sh(host, "db", "mkdir /mnt && mount -t ext4 /dev/disk/data /mnt && cat /mnt/note") == "later\n"
    shown = host.vnet("snapshot", "tree", "db")
    assert [re.sub(r"  .*", "", line.strip(" │├└─")) for line in shown.splitlines()] == [
        "db (snapshots)",
        "first",
        "pair",
        "resting",
        "off *",
    ]


def test_a_suspended_vm_comes_back_also_with_another_daemon(host: Lab) -> None:
    sh(host, "app", "echo asleep >/tmp/note")
    pid = vm(host, "app")["pid"]
    host.vnet("suspend", "app")
    assert (vm(host, "app")["state"], vm(host, "app")["pid"]) == ("suspended", None)
    assert not os.path.exists(f"/proc/{pid}")
    host.kill_daemon()
    assert vm(host, "app")["state"] == "suspended"
    assert "app is suspended and does not run" in host.vnet("stop", "app", expect=1)
    assert "start" in host.vnet("exec", "app", "--", "true", expect=1)
    host.vnet("resume", "app")
    assert sh(host, "app", "cat /tmp/note") == "asleep\n"
    host.vnet("suspend", "app")
    host.vnet("start", "--boot", "app")
    sh(host, "app", "test ! -e /tmp/note")


def test_a_suspended_vm_that_had_gone_on_is_suspended_again_when_the_change_is_undone(host: Lab) -> None:
    file = host.directory / "changed.vnet.yaml"
    sh(host, "app", "echo precious >/tmp/note")
    host.vnet("suspend", "app")
    host.vnet("suspend", "db")
    changed = TEXT.replace("db: {networks: [lan],", "db: {networks: [lan, wan], depends_on: [app],")
    file.write_text(changed.replace("networks: {", "networks: {wan: {vlan: 20, subnets: 10.0.2.0/24}, "))
    for command in ("plan", "up"):
        told = host.vnet(command, "-f", str(file), expect=1)
        assert "the memory of db in its suspended state cannot be loaded: it had 1 NICs" in told
    assert [vm(host, name)["state"] for name in ("app", "db")] == ["suspended", "suspended"]
    file.write_text(TEXT)
    host.vnet("up", "-f", str(file), "--yes", "--confirm", "5m")
    sh(host, "app", "echo later >>/tmp/note")
    host.vnet("rollback")
    assert [vm(host, name)["state"] for name in ("app", "db")] == ["suspended", "suspended"]
    host.vnet("start", "app")
    host.vnet("start", "db")
    assert sh(host, "app", "cat /tmp/note") == "precious\nlater\n"


def test_what_cannot_be_kept_or_brought_back_is_refused_with_what_to_do(host: Lab) -> None:
    assert "has a snapshot first already" in host.vnet("snapshot", "save", "db", "first", expect=1)
    assert "nothing to be kept" in host.vnet("snapshot", "save", "--disk-only", "app", "x", expect=1)
    assert "there are: pair" in host.vnet("snapshot", "restore", "app", "nope", expect=1)
    host.vnet("stop", "db")
    assert "snapshot rm db" in host.vnet("disk", "rm", "db", "data", expect=1)
    larger = host.directory / "larger.vnet.yaml"
    larger.write_text(TEXT.replace("96M", "112M"))
    host.vnet("suspend", "app")
    refused = host.vnet("up", "-f", str(larger), "--yes", expect=1)
    assert "it had 96M of memory, it is declared with 112M" in refused
    assert "vnet start --boot app" in refused
    assert vm(host, "app")["state"] == "suspended"
    host.vnet("start", "--boot", "app")
    host.vnet("up", "-f", str(larger), "--yes")
    refused = host.vnet("snapshot", "restore", "db", "first", expect=1)
    assert "it had 96M of memory" in refused
    assert "--disk-only db first" in refused
    host.vnet("snapshot", "restore", "--disk-only", "db", "first")
    assert sh(host, "db", "mkdir /mnt && mount -t ext4 /dev/disk/data /mnt && cat /mnt/note") == "before\n"


def test_what_is_no_longer_wanted_is_removed_from_disks_too(host: Lab) -> None:
    rows = host.json("snapshot", "prune", "--keep-last", "1", "--older-than", "0.1s", "--dry-run")
    assert [(row["vm"], row["snapshot"]) for row in rows] == [
        ("db", "first"),
        ("db", "pair"),
        ("db", "resting"),
    ]
    host.vnet("snapshot", "rm", "app", "db", "pair")
    host.vnet("snapshot", "prune", "--keep-last", "1")
    (left,) = host.json("snapshot", "ls")
    assert (left["snapshot"], left["parent"]) == ("off", "")
    file = host.directory / "state" / "disks" / "snapshots" / "db" / "data.qcow2"
    told = subprocess.run(["qemu-img", "info", "-U", file], capture_output=True, text=True, check=True).stdout
    assert left["id"] in told
    assert len(re.findall(r"[0-9a-f]{16}", told)) == 1


# ---- managers that are killed ----------------------------------------------------------------


@pytest.fixture(scope="module")
def cellar() -> Iterator[hv_lab.Lab]:
    """Guests with a snapshot `old`, without a fabric around them."""
    with hv_lab.lab() as made:
        made.start(*SPECS)
        yield made


def keeper(cellar: hv_lab.Lab) -> Snapshots:
    return Snapshots(cellar.manager, hv_lab.FABRIC, cellar.open_tap)


def killed(cellar: hv_lab.Lab, what: str, point: str) -> None:
    """A manager begins it and is killed; the lab's own then takes over, as the next daemon does."""
    cellar.run(cellar.manager.close())
    command = [sys.executable, "-m", "tests.vm.snapshot_killer", cellar.namespace, what, point]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    cellar.manager = cellar.new_manager()
    cellar.run(worker.sweep())
    cellar.run(cellar.manager.adopt(hv_lab.FABRIC, SPECS))
    cellar.run(keeper(cellar).recover())


def write(cellar: hv_lab.Lab, text: str) -> None:
    assert (
        cellar.exec(1, "sh", "-c", f"echo {text} >/tmp/n; echo {text} >/dev/disk/data; sync").exit_code == 0
    )


def read(cellar: hv_lab.Lab) -> bytes:
    return cellar.exec(1, "sh", "-c", "cat /tmp/n; head -n 1 /dev/disk/data").stdout


def kept_by_disk() -> set[str]:
    file = disk_snapshots.file_of(hv_lab.FABRIC, "vm-1", SavedDisk("data", "qcow2", 0))
    return set(disk_snapshots.names(file))


def forget_all(cellar: hv_lab.Lab) -> None:
    for each in files.known(hv_lab.FABRIC):
        for name in each.vms:
            cellar.run(keeper(cellar).remove(each, name))


def half_made() -> list[str]:
    return [path.name for path in paths.snapshots_dir(hv_lab.FABRIC).glob(".saving-*")]


@pytest.fixture
def old(cellar: hv_lab.Lab) -> Iterator[str]:
    write(cellar, "old")
    made = cellar.run(keeper(cellar).save(SPECS, Wanted("old")))
    write(cellar, "new")
    yield made.id
    forget_all(cellar)
    assert kept_by_disk() == set()
    assert not paths.snapshots_dir(hv_lab.FABRIC).exists()


@pytest.mark.parametrize("point", SAVE)
def test_a_manager_killed_while_it_saves_leaves_a_whole_snapshot_or_none(cellar, old, point) -> None:
    killed(cellar, "save", point)
    assert [cellar.status(number).state for number in (1, 2)] == [GuestState.RUNNING] * 2
    assert read(cellar) == b"new\nnew\n"
    known = files.known(hv_lab.FABRIC)
    assert [each.name for each in known] == (["old", "new"] if point in ("committed", "headed") else ["old"])
    assert kept_by_disk() == {each.id for each in known}
    assert half_made() == []


@pytest.mark.parametrize("point", SUSPEND)
def test_a_manager_killed_while_it_suspends_leaves_a_guest_that_runs_or_is_suspended(cellar, point) -> None:
    write(cellar, point)
    killed(cellar, "suspend", point)
    is_over = point in ("wished", "ended")
    assert cellar.status(1).state is (GuestState.SUSPENDED if is_over else GuestState.RUNNING)
    if is_over:
        cellar.start(SPECS[0])
    assert read(cellar) == f"{point}\n{point}\n".encode()
    assert not paths.snapshots_dir(hv_lab.FABRIC).exists()


@pytest.mark.parametrize("point", WAKE)
def test_a_manager_killed_while_a_guest_wakes_leaves_it_running_once_it_has_gone_on(cellar, point) -> None:
    write(cellar, point)
    cellar.run(keeper(cellar).suspend(SPECS[0]))
    killed(cellar, "wake", point)
    went_on = point != "loaded"
    assert cellar.status(1).state is (GuestState.RUNNING if went_on else GuestState.SUSPENDED)
    assert bool(files.wishes(hv_lab.FABRIC)) != went_on, "its disks are no longer those of the memory"
    if not went_on:
        cellar.start(SPECS[0])
    assert read(cellar) == f"{point}\n{point}\n".encode()


def test_nobody_begins_again_with_memory_that_a_guest_has_gone_on_with(cellar, monkeypatch) -> None:
    write(cellar, "on")
    cellar.run(keeper(cellar).suspend(SPECS[0]))
    go_on = Guest.go_on

    async def wake() -> None:
        whole = asyncio.current_task()

        async def broken_off_then(guest: Guest) -> None:
            await go_on(guest)
            whole.cancel()
            await asyncio.sleep(0)

        monkeypatch.setattr(Guest, "go_on", broken_off_then)
        await cellar.manager.start(SPECS[0], cellar.open_tap)

    with pytest.raises(asyncio.CancelledError):
        cellar.run(wake())
    assert cellar.status(1).state is GuestState.RUNNING
    assert files.wishes(hv_lab.FABRIC) == ()


@pytest.mark.parametrize("point", RESTORE)
def test_a_restore_whose_manager_was_killed_is_completed_by_the_next(cellar, old, point) -> None:
    killed(cellar, "restore", point)
    for wish in files.wishes(hv_lab.FABRIC):
        cellar.run(keeper(cellar).complete(wish, SPECS, cellar.progress.append))
    assert [cellar.status(number).state for number in (1, 2)] == [GuestState.RUNNING] * 2
    assert read(cellar) == b"old\nold\n"
    assert files.wishes(hv_lab.FABRIC) == ()


def interruptions(cellar: hv_lab.Lab, work: Callable[[], Work], every: int) -> Iterator[int]:
    """Begins it again and again, broken off at one of its waits after the other, until it is not; yields
    after each."""
    for wait in range(1, 400, every):
        try:
            cellar.run(broken_off(work(), wait))
        except asyncio.CancelledError:
            yield wait
        else:
            assert wait > every, "it was never broken off"
            return
    raise AssertionError("it waits more often than that")


@pytest.mark.parametrize("memory", [True, False])
def test_a_save_that_is_broken_off_anywhere_leaves_guests_as_they_were(cellar, memory) -> None:
    write(cellar, "on")
    specs = SPECS if memory else SPECS[:1]
    for _ in interruptions(cellar, lambda: keeper(cellar).save(specs, Wanted("w", memory=memory)), 5):
        assert read(cellar) == b"on\non\n"
        assert half_made() == []
        assert kept_by_disk() == {each.id for each in files.known(hv_lab.FABRIC)}
        forget_all(cellar)
    forget_all(cellar)
    assert cellar.exec(2, "true").exit_code == 0


def test_a_suspension_and_its_end_leave_the_one_or_the_other_wherever_they_are_broken_off(cellar) -> None:
    write(cellar, "on")
    for _ in interruptions(cellar, lambda: keeper(cellar).suspend(SPECS[0]), 3):
        if cellar.status(1).state is not GuestState.RUNNING:
            break  # it was too late
        assert read(cellar) == b"on\non\n"
    for wait in range(1, 100, 6):
        with suppress(asyncio.CancelledError):
            cellar.run(broken_off(cellar.manager.start(SPECS[0], cellar.open_tap), wait))
        if cellar.status(1).state is GuestState.RUNNING:
            break
        assert cellar.status(1).state is GuestState.SUSPENDED
    assert wait > 30, "it did not wait as often as there are steps"
    assert read(cellar) == b"on\non\n"
    assert files.wishes(hv_lab.FABRIC) == (), "nobody begins with that memory again"


def test_a_stop_is_done_to_its_end_wherever_it_is_broken_off(cellar) -> None:
    for _ in interruptions(cellar, lambda: cellar.manager.stop(hv_lab.FABRIC, "vm-2"), 3):
        assert cellar.status(2).state is GuestState.STOPPED
        cellar.start(SPECS[1])
        assert cellar.exec(2, "true").exit_code == 0
    cellar.start(SPECS[1])


def test_a_guest_that_went_on_with_its_memory_boots_again_like_any_other(cellar) -> None:
    write(cellar, "kept")
    cellar.run(keeper(cellar).suspend(SPECS[0]))
    cellar.start(SPECS[0])
    pid = cellar.status(1).pid
    assert read(cellar) == b"kept\nkept\n"
    cellar.run(cellar.manager.reset(hv_lab.FABRIC, "vm-1"))
    assert (cellar.status(1).pid, read(cellar)) == (pid, b"kept\n"), "its memory is gone, QEMU is not"


def test_a_cable_that_was_pulled_is_in_again_when_a_guest_goes_on_with_its_memory(cellar) -> None:
    cellar.run(cellar.manager.set_link(hv_lab.FABRIC, "vm-1", "eth0", is_up=False))
    cellar.run(keeper(cellar).suspend(SPECS[0]))
    cellar.start(SPECS[0])
    assert cellar.status(1).links_down == ()
    assert cellar.exec(1, "cat", "/sys/class/net/eth0/carrier").stdout == b"1\n"


@contextmanager
def little_room() -> Iterator[None]:
    folder = paths.snapshots_dir(hv_lab.FABRIC).parent
    folder.mkdir(exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "none", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.parametrize("what", ["save", "suspend"])
def test_a_full_disk_leaves_the_guest_running_and_nothing_behind(cellar, what) -> None:
    write(cellar, "full")
    with little_room():
        save = keeper(cellar).save(SPECS, Wanted("large"))
        with pytest.raises(HostError, match="No space left on device; free space"):
            cellar.run(save if what == "save" else keeper(cellar).suspend(SPECS[0]))
        save.close()
        assert list(paths.snapshots_dir(hv_lab.FABRIC).parent.iterdir()) == []
        free = os.statvfs(paths.snapshots_dir(hv_lab.FABRIC).parent)
        assert free.f_bavail * free.f_bsize == 8 << 20
        assert read(cellar) == b"full\nfull\n"
    assert kept_by_disk() == set()


def test_a_paused_guest_is_saved_and_stays_paused(cellar, old) -> None:
    cellar.run(cellar.manager.pause(hv_lab.FABRIC, "vm-1"))
    made = cellar.run(keeper(cellar).save(SPECS[:1], Wanted("paused")))
    again = cellar.run(keeper(cellar).save(SPECS[:1], Wanted("again")))
    assert made.of("vm-1").memory_bytes > 1 << 20
    assert again.of("vm-1").parent == made.id
    assert cellar.status(1).state is GuestState.PAUSED
    cellar.run(cellar.manager.close())
    cellar.manager = cellar.new_manager()
    (status, _) = cellar.run(cellar.manager.adopt(hv_lab.FABRIC, SPECS))
    assert status.state is GuestState.PAUSED
    cellar.run(cellar.manager.resume(hv_lab.FABRIC, "vm-1"))
    assert read(cellar) == b"new\nnew\n"
