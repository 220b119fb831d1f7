"""What QEMU is told to copy disks at one moment, and how its jobs get on.

A target is a stack of nodes: qcow2 on LUKS, if it is encrypted, on a file that QEMU has by descriptor.
Names are the same for every backup: a QEMU is busy with one at a time.

Source: QEMU 7.2, docs/interop/bitmaps.rst, live-block-operations.rst, qemu-qmp-ref.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vnet.base.errors import PeerError
from vnet.hv.backup import Bitmap
from vnet.hv.monitor import Command, add_secret

Json = Mapping[str, Any]

FIRST_SET = 1000
"""Of descriptors; those of the VM's own disks count from 1.

No two files get the same one: QEMU lets go of a descriptor that is removed only while its guest runs, and a
name that is used again could still mean the file before (seen with 7.2).
"""

KEY = "backup-key"
"""What the key of encrypted targets is called in QEMU."""

QUERY_SETS = Command("query-fdsets")
QUERY_JOBS = Command("query-jobs")
QUERY_VERSION = Command("query-version")


_JOB = "backup"


def job(index: int) -> str:
    """The job that copies a disk."""
    return f"{_JOB}{index}"


def add_key(key: bytes) -> Command:
    """Tell QEMU the key."""
    return add_secret(KEY, key)


REMOVE_KEY = Command("object-del", {"id": KEY})


# ---- nodes -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class File:
    """A file that QEMU has by descriptor; `index` is its own among those of one operation."""

    index: int
    is_encrypted: bool
    is_read_only: bool = False
    first_set: int = FIRST_SET

    @property
    def set_number(self) -> int:
        """Of the descriptor."""
        return self.first_set + self.index

    @property
    def node(self) -> str:
        """What its contents, as a disk, are called in QEMU."""
        return f"backup{self.index}"

    def add_fd(self, fd: int, path: str = "") -> Command:
        """Hand it over. QEMU keeps `path`, of what is written to, for who asks it (see `written`)."""
        told = {"opaque": path} if path else {}
        return Command("add-fd", {"fdset-id": self.set_number, **told}, fd)

    def protocol(self) -> dict[str, Any]:
        """The node for its bytes, deciphered."""
        plain: dict[str, Any] = {
            "driver": "file",
            "filename": f"/dev/fdset/{self.set_number}",
            "read-only": self.is_read_only,
        }
        if not self.is_encrypted:
            return plain
        return {"driver": "luks", "key-secret": KEY, "read-only": self.is_read_only, "file": plain}


def make_target(file: File, size_bytes: int) -> tuple[Command, ...]:
    """Begin to write an empty qcow2 into it; the job's end has to be waited for."""
    below = f"{file.node}-file"
    return (
        Command("blockdev-add", {**file.protocol(), "node-name": below}),
        Command(
            "blockdev-create",
            {
                "job-id": job(file.index),
                "options": {
                    "driver": "qcow2",
                    "file": below,
                    "size": size_bytes,
                    "compression-type": "zstd",
                },
            },
        ),
    )


def open_target(file: File) -> Command:
    """Open what `make_target` wrote."""
    return Command("blockdev-add", {"driver": "qcow2", "node-name": file.node, "file": f"{file.node}-file"})


def close_target(file: File) -> tuple[Command, ...]:
    """Close a target, in this order; its descriptor stays."""
    names = (file.node, f"{file.node}-file")
    return tuple(Command("blockdev-del", {"node-name": name}) for name in names)


def sets(answer: object) -> tuple[int, ...]:
    """The descriptors of ours that QEMU has, from an answer to QUERY_SETS."""
    if not isinstance(answer, list):
        raise PeerError(f"QEMU answered {answer!r} when it was asked for its descriptors")
    return tuple(sorted(number for each in answer if (number := int(each["fdset-id"])) >= FIRST_SET))


def written(answer: object) -> str:
    """The path of a file that the last backup is written to, from an answer to QUERY_SETS; "" if nobody told
    it."""
    numbers, found = sets(answer), answer if isinstance(answer, list) else ()
    last = [each for each in found if numbers and int(each["fdset-id"]) == numbers[-1]]
    return next((str(fd["opaque"]) for each in last for fd in each["fds"] if fd.get("opaque")), "")


def remove_set(number: int) -> Command:
    """Let go of a descriptor."""
    return Command("remove-fd", {"fdset-id": number})


def open_chain(files: Sequence[File]) -> Command:
    """Open a full file and its increments, in this order, as the one disk that the last of them shows.

    What the files say themselves of files behind them is passed over.
    """
    node: dict[str, Any] | None = None
    for file in files:
        form = {"driver": "qcow2", "read-only": True, "file": file.protocol()}
        node = {**form, "backing": node}
    assert node is not None
    return Command("blockdev-add", {**node, "node-name": files[-1].node})


# ---- the moment --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Copy:
    """A disk's node and the target that it is copied to; `since` is the bitmap of an increment's parent.

    `counts` is the bitmap that begins at that moment. Of raw disks it lasts as long as their QEMU.
    """

    source: str
    target: File
    counts: str = ""
    is_lasting: bool = False
    since: str = ""
    rate_bytes: int = 0
    is_compressed: bool = True


def take(copies: Sequence[Copy]) -> Command:
    """Begin to copy all disks as they are at one moment."""
    actions = [action for copy in copies for action in _actions(copy)]
    return Command("transaction", {"actions": actions})


def _actions(copy: Copy) -> list[Json]:
    counting = {"node": copy.source, "name": copy.counts, "persistent": copy.is_lasting}
    begun = [{"type": "block-dirty-bitmap-add", "data": counting}] if copy.counts else []
    backup: dict[str, Any] = {
        "job-id": job(copy.target.index),
        "device": copy.source,
        "target": copy.target.node,
        "sync": "full",
        "compress": copy.is_compressed,
        "auto-dismiss": False,
    }
    if copy.since:
        backup |= {"sync": "bitmap", "bitmap": copy.since, "bitmap-mode": "never"}
    if copy.rate_bytes:
        backup["speed"] = copy.rate_bytes
    return [*begun, {"type": "blockdev-backup", "data": backup}]


def write_back(source: str, target: str, index: int, rate_bytes: int) -> Command:
    """Begin to copy a chain onto a new disk."""
    how: dict[str, Any] = {"device": source, "target": target, "sync": "full", "auto-dismiss": False}
    limit = {"speed": rate_bytes} if rate_bytes else {}
    return Command("blockdev-backup", {"job-id": job(index), **how, **limit})


def remove_bitmap(node: str, name: str) -> Command:
    """Count no more."""
    return Command("block-dirty-bitmap-remove", {"node": node, "name": name})


def bitmaps(nodes: object) -> dict[str, tuple[Bitmap, ...]]:
    """The bitmaps of each node, from an answer to `monitor.QUERY_NODES`."""
    if not isinstance(nodes, list):
        raise PeerError(f"QEMU answered {nodes!r} when it was asked for its disks")
    return {str(node["node-name"]): tuple(map(_bitmap, node.get("dirty-bitmaps", ()))) for node in nodes}


def sizes(nodes: object) -> dict[str, int]:
    """How large the disk is that each node shows, from an answer to `monitor.QUERY_NODES`."""
    found = nodes if isinstance(nodes, list) else ()
    return {str(node["node-name"]): int(node["image"]["virtual-size"]) for node in found}


def encrypted(nodes: object) -> frozenset[str]:
    """The nodes of encrypted disks, from an answer to `monitor.QUERY_NODES`."""
    found = nodes if isinstance(nodes, list) else ()
    return frozenset(str(node["node-name"]) for node in found if node.get("encrypted"))


def taken(nodes: object) -> dict[str, int]:
    """What the file of each node has taken of its file system, from an answer to `monitor.QUERY_NODES`.

    Without what stands behind it, which has a node of its own.
    """
    found = nodes if isinstance(nodes, list) else ()
    return {str(node["node-name"]): int(node["image"].get("actual-size", 0)) for node in found}


def _bitmap(raw: Json) -> Bitmap:
    is_good = bool(raw.get("recording")) and not raw.get("inconsistent")
    return Bitmap(str(raw.get("name", "")), is_good, int(raw.get("count", 0)))


# ---- jobs --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class JobState:
    """How a job gets on."""

    id: str
    status: str
    done_bytes: int
    total_bytes: int
    error: str = ""

    @property
    def has_ended(self) -> bool:
        """Whether it does nothing more."""
        return self.status in ("concluded", "null")


def jobs(answer: object, wanted: Sequence[str]) -> tuple[JobState, ...]:
    """Those of the wanted jobs that are there, from an answer to QUERY_JOBS."""
    if not isinstance(answer, list):
        raise PeerError(f"QEMU answered {answer!r} when it was asked for its jobs")
    return tuple(_job(each) for each in answer if each.get("id") in wanted)


def has_jobs(answer: object) -> bool:
    """Whether a backup has jobs, by an answer to QUERY_JOBS; each has its disk until it is dismissed."""
    ids = [str(each.get("id")) for each in answer] if isinstance(answer, list) else []
    return any(id_.startswith(_JOB) for id_ in ids)


def _job(raw: Json) -> JobState:
    numbers = int(raw.get("current-progress", 0)), int(raw.get("total-progress", 0))
    return JobState(str(raw["id"]), str(raw["status"]), *numbers, str(raw.get("error", "")))


def percent(states: Sequence[JobState]) -> int:
    """How much of all is done, 0 to 100."""
    total = sum(state.total_bytes for state in states)
    return min(100, 100 * sum(state.done_bytes for state in states) // total) if total else 0


def cancel(id_: str) -> Command:
    """Break a job off."""
    return Command("job-cancel", {"id": id_})


def dismiss(id_: str) -> Command:
    """Forget a job that has ended."""
    return Command("job-dismiss", {"id": id_})


def version(answer: object) -> str:
    """`7.2.22`, from an answer to QUERY_VERSION."""
    numbers = answer.get("qemu", {}) if isinstance(answer, Mapping) else {}
    return ".".join(str(numbers.get(part, 0)) for part in ("major", "minor", "micro"))
