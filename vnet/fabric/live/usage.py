"""What a process, a control group and the host have used and waited for, as the kernel counts it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from vnet.fabric.live.host import available_memory_bytes, cpus, memory_bytes
from vnet.fabric.numbers import HostNumbers, Pressure

_TICKS = os.sysconf("SC_CLK_TCK")
_VCPU = re.compile(r"CPU \d+/|ALL CPUs/")
"""How QEMU names the threads that run vCPUs, when it is told to name threads at all."""
_MOUNTS = (Path("/sys/fs/cgroup/unified"), Path("/sys/fs/cgroup"))
"""Where the control groups of version 2 may be."""


def cpu_s(pid: int) -> float:
    """Processor time that a process has used, in user and kernel mode; 0 once it has ended.

    Source: proc(5), fields 14 and 15 of stat.
    """
    fields = _read(Path(f"/proc/{pid}/stat")).rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def ready_s(pid: int) -> float:
    """How long the vCPUs of a QEMU, taken together, stood in run queues; 0 once it has ended.

    Source: Linux Documentation/scheduler/sched-stats.rst, the second field of /proc/PID/schedstat.
    """
    return sum(_waited_ns(task) for task in _vcpus(pid)) / 1e9


def _vcpus(pid: int) -> Iterator[Path]:
    try:
        tasks = list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:  # it has just ended
        return
    yield from (task for task in tasks if _VCPU.match(_read(task / "comm")))


def _waited_ns(task: Path) -> int:
    fields = _read(task / "schedstat").split()
    return int(fields[1]) if len(fields) > 1 else 0


def swapped_bytes(pid: int) -> int:
    """Memory of a process that lies in swap. Source: proc(5), VmSwap of status."""
    found = re.search(r"^VmSwap:\s+(\d+) kB", _read(Path(f"/proc/{pid}/status")), re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def group_pressure(pid: int, group: str) -> Pressure:
    """That of the control group of version 2 that a process is in, if its path ends with `group`."""
    lines = _read(Path(f"/proc/{pid}/cgroup")).splitlines()
    own = next((line.removeprefix("0::") for line in lines if line.startswith("0::")), "")
    if not own.endswith(f"/{group}"):
        return Pressure()
    mount = next((each for each in _MOUNTS if (each / "cgroup.controllers").exists()), _MOUNTS[-1])
    return pressure_in(mount / own.lstrip("/"), "{}.pressure")


def host() -> HostNumbers:
    """What there is to share."""
    return HostNumbers(
        cpus(),
        memory_bytes(),
        available_memory_bytes(),
        pressure_in(Path("/proc/pressure"), "{}"),
    )


def pressure_in(folder: Path, name: str) -> Pressure:
    """What the files of a folder say; nothing where a kernel does not count it."""
    return Pressure(*(stalled_s(_read(folder / name.format(each))) for each in ("cpu", "memory", "io")))


def stalled_s(text: str) -> float:
    """How long at least one task waited, of a file of pressure."""
    found = re.search(r"^some .*\btotal=(\d+)", text, re.MULTILINE)
    return int(found[1]) / 1e6 if found else 0.0


def _read(path: Path) -> str:
    """A file of the kernel's; empty when what it tells of has ended, or this kernel does not tell it."""
    try:
        return path.read_text()
    except OSError:
        return ""
