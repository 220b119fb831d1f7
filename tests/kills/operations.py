"""What is killed: each operation is a line, with what shows whether it has been done.

One more operation: the command, what it looks at, and what is seen before and after it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kills.commands import QuickLab
from vnet.fabric.live.service import HALF_CHANGED

FABRIC = f"kills{os.getpid()}"
TEXT = f"""\
name: {FABRIC}
defaults: {{image: micro, cpus: 1, memory: 96M}}
networks: {{lan: {{vlan: 10, subnets: 10.0.0.0/24}}, back: {{vlan: 20, subnets: 10.0.1.0/24}}}}
vms:
  a: {{networks: [lan], disks: [{{name: data, size: SIZE}}]}}
"""
MORE = "  b: {networks: [lan]}\n"

WIDE = TEXT.replace("[lan]", "[lan, back], memory: 160M").replace("SIZE}", "SIZE}, {name: more, size: 8M}")
"""With a NIC, memory and a disk more."""
QUICK = TEXT.replace("[lan]", "[lan], cpus: 2")

Look = Callable[[QuickLab], object]


def vms(host: QuickLab) -> dict[str, dict[str, Any]]:
    """All VMs of the fabric."""
    return {row["vm"]: row for row in host.json("ps") if row["fabric"] == FABRIC}


def state(host: QuickLab) -> object:
    """That of VM a; whether its agent has answered yet does not matter."""
    found = vms(host)["a"]["state"]
    return "ready" if found == "running" else found


def names(host: QuickLab) -> object:
    """Which VMs there are that run."""
    return frozenset(name for name, row in vms(host).items() if row["state"] == "ready")


def snapshots(host: QuickLab) -> object:
    """Their names."""
    return frozenset(row["snapshot"] for row in host.json("snapshot", "ls") if row["fabric"] == FABRIC)


def size(host: QuickLab) -> object:
    """That of a's disk in MiB; 0 without one."""
    return sum(row["size_bytes"] >> 20 for row in host.json("disk", "ls") if row["vm"] == "a")


def locations(host: QuickLab) -> object:
    """Where a's disk lies."""
    return tuple(row["location"] for row in host.json("disk", "ls") if row["vm"] == "a")


def shape(host: QuickLab) -> object:
    """What a has of NICs, disks and memory, as it sees itself; its state if it does not run."""
    if (found := state(host)) != "ready":
        return found
    if vms(host)["a"]["detail"] == HALF_CHANGED:
        return HALF_CHANGED
    command = "ls /sys/class/net | grep -c eth; ls /sys/block | grep -c vd; grep MemTotal /proc/meminfo"
    nics, disks, memory = host.vnet(*IN_A, "sh", "-c", command).splitlines()
    return int(nics), int(disks), int(memory.split()[1]) > LARGE_KIB


LARGE_KIB = 100 << 10


def cpus(host: QuickLab) -> object:
    """How many a uses; its state if it does not run."""
    if (found := state(host)) != "ready" or vms(host)["a"]["detail"]:
        return found, vms(host)["a"]["detail"]
    return int(host.vnet(*IN_A, "nproc"))


def is_there(host: QuickLab) -> object:
    """Whether there is such a fabric."""
    return bool(vms(host))


def copies(host: QuickLab) -> object:
    """How many disks VM c has, which is a copy."""
    return sum(row["vm"] == "c" for row in host.json("disk", "ls"))


def linked(host: QuickLab) -> object:
    """How many disks VM c has, and how many bases there are: one goes with the other."""
    return copies(host), sum(row["kind"] == "base" for row in host.json("image", "ls"))


def backups(host: QuickLab) -> object:
    """How many of a are complete."""
    return sum(row["state"] == "complete" for row in host.json("backup", "ls", "a", "-n", FABRIC))


def entries(host: QuickLab) -> object:
    """How many of a there are, complete or not."""
    return len(host.json("backup", "ls", "a", "-n", FABRIC))


def _disk(host: QuickLab) -> str:
    return str(host.directory / "state" / "disks" / FABRIC / "a" / "data.qcow2")


def _qemu_io(host: QuickLab, command: str) -> str:
    words = ["qemu-io", "-f", "qcow2", "-c", command, _disk(host)]
    return subprocess.run(words, capture_output=True, text=True).stdout


def marked(host: QuickLab) -> object:
    """Whether a's disk has the mark; a does not run."""
    said = _qemu_io(host, f"read -P {MARK} 1M 64k")
    return "Pattern verification failed" not in said if "read 65536" in said else said


def imported(host: QuickLab) -> object:
    """Whether the store has an image of that name."""
    return any(row["name"] == "kept" for row in host.json("image", "ls"))


def exported(host: QuickLab) -> object:
    """Whether the whole file is there."""
    done = subprocess.run(["qemu-img", "check", "-q", _export(host)], capture_output=True)
    return done.returncode == 0


def _export(host: QuickLab) -> str:
    return str(host.directory / "a.qcow2")


MARK = 0x55
SINCE = "/tmp/since"
"""A file in a's memory, of after its snapshot."""


def restored(host: QuickLab) -> object:
    """Its state, and whether it has what was written since the snapshot."""
    found = state(host)
    return found, found == "ready" and host.run(*IN_A, "test", "-e", SINCE).code == 0


def file(host: QuickLab, text: str) -> str:
    """A topology file."""
    path = host.directory / "kills.vnet.yaml"
    path.write_text(text)
    return str(path)


def up(host: QuickLab, *, size_mib: int = 16, more: str = "", text: str = TEXT) -> tuple[str, ...]:
    """The command for a fabric with a disk of that size and more VMs."""
    return ("up", "--yes", "-f", file(host, text.replace("SIZE", f"{size_mib}M") + more))


Words = tuple[str, ...]
A = ("a", "-n", FABRIC)
IN_A = ("exec", "-n", FABRIC, "a")
MOUNT = """\
disk=/dev/disk/data; mkdir -p /mnt; grep -q /mnt /proc/mounts && exit
mount -t ext4 $disk /mnt 2>/dev/null || { mke2fs $disk && mount -t ext4 $disk /mnt; }"""
"""Backups let file systems stand still."""
WRITES = (*IN_A, "sh", "-c", "! grep -q /mnt /proc/mounts || { date >/mnt/date && sync; }")
"""Frozen ones are not written to before the guest's watchdog comes."""


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done, and how to tell whether it is. `prepare` leads to `before` from wherever one may be."""

    name: str
    words: Callable[[QuickLab], Words]
    look: Look
    before: object
    after: object
    prepare: Callable[[QuickLab], tuple[Words, ...]]
    cold: bool = False
    again: Callable[[QuickLab], Words] | None = None
    """What does it when it was broken off, if that is another command."""


def says(*words: str) -> Callable[[QuickLab], Words]:
    """A command."""
    return lambda host: words


def first(*commands: Words) -> Callable[[QuickLab], tuple[Words, ...]]:
    """Commands one after the other, on a fabric that is up."""
    return lambda host: (up(host), *commands)


ON, OFF = ("start", *A), ("stop", *A)
SAVE, RESTORE, FORGET = (("snapshot", what, "a", "s1", "-n", FABRIC) for what in ("save", "restore", "rm"))
NO_SNAPSHOT, ONE = frozenset(), frozenset({"s1"})


def _emptied(host: QuickLab) -> None:
    """Whatever is up is stopped, and its disk removed."""
    if vms(host):
        host.vnet(*OFF)
    if size(host):
        host.vnet("disk", "rm", "a", "data", "-n", FABRIC)


def _without_disk(host: QuickLab) -> tuple[Words, ...]:
    _emptied(host)
    host.vnet(*up(host))
    _emptied(host)
    return ()


def _unless(look: Look, value: object, *commands: Words) -> Callable[[QuickLab], tuple[Words, ...]]:
    def prepare(host: QuickLab) -> tuple[Words, ...]:
        host.vnet(*up(host))
        return () if look(host) == value else commands

    return prepare


def _since_saved(host: QuickLab) -> tuple[Words, ...]:
    host.vnet(*up(host))
    save = () if snapshots(host) == ONE else ((*IN_A, "rm", "-f", SINCE), SAVE)
    return (ON, *save, (*IN_A, "touch", SINCE))


def _small(host: QuickLab) -> tuple[Words, ...]:
    """A disk cannot be made smaller: it is made anew."""
    _emptied(host)
    return (up(host),)


def _at_default(host: QuickLab) -> tuple[Words, ...]:
    """Stopped, and its disk not at the location that it is to be moved to."""
    if all(row["location"] != "fast" for row in host.json("disk", "location", "ls")):
        (host.directory / "nvme").mkdir(mode=0o755)
        host.vnet("disk", "location", "add", "fast", str(host.directory / "nvme"))
    if locations(host) == ("fast",):
        host.vnet("disk", "move", "a", "data", "default", "-n", FABRIC)
    host.vnet(*up(host))
    return (OFF,)


def _unlike(host: QuickLab) -> tuple[Words, ...]:
    """Stopped, and nothing there of a copy."""
    host.vnet(*up(host))
    if copies(host):
        host.vnet("disk", "rm", "c", "data", "-n", FABRIC)
    return (OFF,)


def _without_backups(host: QuickLab) -> tuple[Words, ...]:
    """Nor a store of them."""
    host.vnet(*up(host))
    there = host.json("backup", "ls", "a", "-n", FABRIC)
    complete = [row["id"] for row in there if row["state"] == "complete"]
    for row in there:
        if row["state"] != "complete":
            host.vnet("backup", "discard", row["id"])
    if complete:
        host.vnet("backup", "rm", *complete)
    shutil.rmtree(host.directory / "state" / "backups", ignore_errors=True)
    return ON, (*IN_A, "sh", "-c", MOUNT)


def _backed_up(host: QuickLab) -> tuple[Words, ...]:
    return (*_without_backups(host), BACK_UP)


def _stopped_with_disk(host: QuickLab) -> tuple[Words, ...]:
    host.vnet(*up(host))
    return (*(() if size(host) else (ON,)), OFF)


def _one_backup(host: QuickLab) -> tuple[Words, ...]:
    host.vnet(*up(host))
    return () if entries(host) == backups(host) == 1 else _backed_up(host)


def _marked_since_backup(host: QuickLab) -> tuple[Words, ...]:
    """Stopped, and its disk not in a snapshot."""
    for words in _stopped_with_disk(host):
        host.vnet(*words)
    if snapshots(host) == ONE:
        host.vnet(*FORGET)
    if backups(host) == 0:
        _qemu_io(host, "write -P 0 1M 64k")
        host.vnet(*BACK_UP)
    _qemu_io(host, f"write -P {MARK} 1M 64k")
    return ()


def _not_imported(host: QuickLab) -> tuple[Words, ...]:
    host.vnet(*up(host))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", host.directory / "kept.qcow2", "8M"], check=True
    )
    return (("image", "rm", "kept"),) if imported(host) else ()


def _not_exported(host: QuickLab) -> tuple[Words, ...]:
    for words in _stopped_with_disk(host):
        host.vnet(*words)
    Path(_export(host)).unlink(missing_ok=True)
    return ()


SMALL, LARGE = (1, 1, False), (2, 2, True)


def _narrow(host: QuickLab) -> tuple[Words, ...]:
    return up(host, size_mib=24), ON


def _wide(host: QuickLab) -> tuple[Words, ...]:
    return up(host, size_mib=24, text=WIDE), ON


def _first_id(host: QuickLab) -> str:
    return str(host.json("backup", "ls", "a", "-n", FABRIC)[0]["id"])


def _backup_again(host: QuickLab) -> Words:
    """Its entry says of itself that it was broken off, and is finished."""
    there = host.json("backup", "ls", "a", "-n", FABRIC)
    broken = [row["id"] for row in there if row["state"] != "complete"]
    return ("backup", "resume", broken[0]) if broken else BACK_UP


BACK_UP = ("backup", "create", *A)
OPERATIONS = (
    Operation("start-clone", says(*ON), state, "stopped", "ready", first(OFF)),
    Operation("start-cold", says(*ON), state, "stopped", "ready", first(OFF), cold=True),
    Operation("stop", says(*OFF), state, "ready", "stopped", first(ON)),
    Operation("pause", says("pause", *A), state, "ready", "paused", first(ON, ("resume", *A))),
    Operation("resume", says("resume", *A), state, "paused", "ready", first(ON, ("pause", *A))),
    Operation("reset", says("reset", *A), state, "ready", "ready", first(ON)),
    Operation("disk-create", says(*ON), size, 0, 16, _without_disk),
    Operation(
        "add-vm",
        lambda host: up(host, more=MORE),
        *(names, frozenset({"a"}), frozenset({"a", "b"}), first(ON)),
    ),
    Operation(
        "remove-vm",
        lambda host: up(host),
        *(names, frozenset({"a", "b"}), frozenset({"a"})),
        lambda host: (up(host, more=MORE), ON, ("start", "b", "-n", FABRIC)),
    ),
    Operation("suspend", says("suspend", *A), state, "ready", "suspended", first(ON)),
    Operation(
        "wake", says(*ON), state, "suspended", "ready", _unless(state, "suspended", ON, ("suspend", *A))
    ),
    Operation(
        "snapshot-save", says(*SAVE), snapshots, NO_SNAPSHOT, ONE, _unless(snapshots, NO_SNAPSHOT, FORGET)
    ),
    Operation("snapshot-rm", says(*FORGET), snapshots, ONE, NO_SNAPSHOT, _unless(snapshots, ONE, SAVE)),
    Operation(
        "clone",
        lambda host: ("clone", "-f", up(host)[-1], "a", "c"),
        *(copies, 0, 1, _unlike),
    ),
    Operation(
        "clone-linked",
        lambda host: ("clone", "--linked", "-f", up(host)[-1], "a", "c"),
        *(linked, (0, 0), (1, 1), _unlike),
    ),
    Operation("snapshot-restore", says(*RESTORE), restored, ("ready", True), ("ready", False), _since_saved),
    Operation("backup", says(*BACK_UP), backups, 0, 1, _without_backups, again=_backup_again),
    Operation("backup-increment", says(*BACK_UP), backups, 1, 2, _backed_up, again=_backup_again),
    Operation(
        "backup-rm", lambda host: ("backup", "rm", _first_id(host)), *(entries, 1, 0), prepare=_one_backup
    ),
    Operation(
        "backup-restore",
        lambda host: ("backup", "restore", _first_id(host), "--overwrite"),
        *(marked, True, False, _marked_since_backup),
    ),
    Operation(
        "image-import",
        lambda host: ("image", "import", str(host.directory / "kept.qcow2")),
        *(imported, False, True, _not_imported),
    ),
    Operation(
        "image-rm",
        says("image", "rm", "kept"),
        *(imported, True, False),
        lambda host: (*_not_imported(host), ("image", "import", str(host.directory / "kept.qcow2"))),
    ),
    Operation(
        "export",
        lambda host: ("export", "-n", FABRIC, "a", _export(host)),
        *(exported, False, True, _not_exported),
    ),
    Operation("disk-rm", says("disk", "rm", "a", "data", "-n", FABRIC), size, 16, 0, _stopped_with_disk),
    Operation(
        "disk-move",
        says("disk", "move", "a", "data", "fast", "-n", FABRIC),
        *(locations, ("default",), ("fast",), _at_default),
    ),
    # the last ones: the fabric of the others has one disk of 16 MiB, and none is made smaller
    Operation("disk-grow", lambda host: up(host, size_mib=24), size, 16, 24, _small),
    Operation("plug", lambda host: up(host, size_mib=24, text=WIDE), shape, SMALL, LARGE, _narrow),
    Operation("unplug", lambda host: up(host, size_mib=24), shape, LARGE, SMALL, _wide),
    Operation("add-cpu", lambda host: up(host, size_mib=24, text=QUICK), cpus, 1, 2, _narrow),
    Operation("down", says("down", "-n", FABRIC), is_there, True, False, _narrow),
)
