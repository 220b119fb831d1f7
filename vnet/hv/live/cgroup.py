"""A control group for each guest: limits where the host allows them, none where it does not.

Groups are made below the manager's own, version 2 first, then version 1. A guest without a group runs
all the same: the group guards the host against a QEMU gone wild, it is not what isolates guests.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vnet.hv.admission import OVERHEAD_BYTES

_TASKS = 128
_GRACE_BYTES = 192 << 20
"""On top of what admission counts: page cache and kernel memory are charged to the group too."""

_REMOVE_TIMEOUT_S = 2.0


@dataclass(frozen=True, slots=True)
class Cgroup:
    """The folders of one guest, one per hierarchy; none if the host lets us make none."""

    folders: tuple[Path, ...]

    def add(self, pid: int) -> None:
        """Moves a process in. Called before it has allocated anything: memory charged does not move."""
        for folder in self.folders:
            with contextlib.suppress(OSError):
                (folder / "cgroup.procs").write_text(str(pid))

    def remove(self) -> None:
        """Removes the folders; the kernel may need a moment after the last process has gone."""
        for folder in self.folders:
            deadline = time.monotonic() + _REMOVE_TIMEOUT_S
            while folder.is_dir() and time.monotonic() < deadline:
                with contextlib.suppress(OSError):
                    folder.rmdir()
                    break
                time.sleep(0.01)
            with contextlib.suppress(OSError):  # the fabric's folder, once the last guest has gone
                folder.parent.rmdir()


def of(folders: Iterable[str]) -> Cgroup:
    """The group that a record names."""
    return Cgroup(tuple(map(Path, folders)))


def group_of(fabric: str, name: str) -> str:
    """How the paths of a guest's groups end."""
    return f"vnet-{fabric}/{name}"


def find(fabric: str, name: str) -> Cgroup:
    """The groups of a guest that are there."""
    folders = (base / group_of(fabric, name) for base, _ in _hierarchies(0))
    return Cgroup(tuple(folder for folder in folders if folder.is_dir()))


def create(fabric: str, name: str, memory_bytes: int) -> Cgroup:
    """Makes the groups for a guest, empty."""
    made = []
    for base, values in _hierarchies(_limit(memory_bytes)):
        folder = base / group_of(fabric, name)
        try:
            folder.parent.mkdir(exist_ok=True)
            _enable(base, folder.parent)
            folder.mkdir(exist_ok=True)
        except OSError:
            continue
        _set(folder, values)
        made.append(folder)
    return Cgroup(tuple(made))


def resize(group: Cgroup, memory_bytes: int) -> None:
    """Lets a guest that runs have more memory, or less from now on."""
    for folder in group.folders:
        limits = {name: str(_limit(memory_bytes)) for name in _MEMORY_FILES if (folder / name).exists()}
        _set(folder, limits)


_MEMORY_FILES = ("memory.max", "memory.limit_in_bytes")
"""Where the limit stands in version 2 and 1."""


def _limit(memory_bytes: int) -> int:
    """Twice its memory: QEMU reads all of it to save a guest, and of a clone the kernel then makes pages for
    all that its template has not, and counts them besides the clone's own."""
    return 2 * memory_bytes + OVERHEAD_BYTES + _GRACE_BYTES


def _hierarchies(limit: int) -> Iterable[tuple[Path, dict[str, str]]]:
    """Where groups go and what is set there: (our own group's folder, file name to value)."""
    own = dict(_own_groups())
    if "" in own:
        base = _mount_of_version_2() / own[""].lstrip("/")
        if "memory" in _words(base / "cgroup.controllers"):
            yield base, {"memory.max": str(limit), "pids.max": str(_TASKS)}
            return
    for controller, values in (
        ("memory", {"memory.limit_in_bytes": str(limit)}),
        ("pids", {"pids.max": str(_TASKS)}),
    ):
        base = Path("/sys/fs/cgroup", controller, own.get(controller, "").lstrip("/"))
        if controller in own and base.is_dir():
            yield base, values


def _own_groups() -> Iterable[tuple[str, str]]:
    """Controller and path of each group that this process is in; version 2 has no controller's name."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            yield controller, path


def _mount_of_version_2() -> Path:
    unified = Path("/sys/fs/cgroup/unified")
    return unified if unified.is_dir() else Path("/sys/fs/cgroup")


def _enable(*folders: Path) -> None:
    """Hands the controllers of version 2 down; version 1 has no such file.

    The kernel refuses it for a group that itself holds processes, as the daemon's own does under
    systemd: then the guests' groups exist, and can be looked at, but have no limits.
    """
    for folder in folders:
        if (folder / "cgroup.subtree_control").exists():
            with contextlib.suppress(OSError):
                (folder / "cgroup.subtree_control").write_text("+memory +pids")


def _set(folder: Path, values: dict[str, str]) -> None:
    for name, value in values.items():
        with contextlib.suppress(OSError):
            (folder / name).write_text(value)


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
