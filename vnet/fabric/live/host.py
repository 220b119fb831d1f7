"""What this host must have before anything is made, asked all at once: `vnet doctor` and every `up`."""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.fabric.live import dnsmasq, nft
from vnet.hv import admission

BPFFS = Path("/sys/fs/bpf")
_TOOLS = {
    "qemu-system-x86_64": "qemu-system-x86",
    "apt-get": "apt",
    "dpkg-deb": "dpkg",
}
"""Program → the Debian package that has it."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at. `hint` is what to do when it is not `ok`; `needed` ones stop `up`."""

    name: str
    ok: bool
    detail: str
    hint: str = ""
    needed: bool = True


def checks() -> tuple[Check, ...]:
    """Everything vnet needs of the host, whether it is there, and what to do if not."""
    return tuple(_checks())


def require() -> None:
    """Raise HostError naming everything that is missing and how to get it."""
    missing = [check for check in checks() if check.needed and not check.ok]
    if missing:
        lines = [f"  {check.name}: {check.detail}; {check.hint}" for check in missing]
        raise HostError("\n".join(["this host lacks what a fabric needs:", *lines]))


def cpus() -> int:
    """Those that the daemon, and so guests, may use."""
    return len(os.sched_getaffinity(0))


def memory_bytes() -> int:
    """All that this host has."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def vcpus_per_cpu() -> int:
    """How many vCPUs may share a CPU. Raises InputError."""
    return admission.vcpus_per_cpu(os.environ.get(admission.VCPUS_PER_CPU_VARIABLE))


def boot_id() -> str:
    """A text that differs after every boot."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def uptime_s() -> float:
    """Seconds since boot, time asleep included (clock_gettime(2), CLOCK_BOOTTIME)."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def available_memory_bytes() -> int:
    """What the kernel estimates can be given out without swapping (proc(5), MemAvailable)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    raise HostError("cannot read MemAvailable from /proc/meminfo")


def _checks() -> Iterator[Check]:
    yield Check("root", os.geteuid() == 0, f"uid {os.geteuid()}", "run the command as root, or with sudo")
    yield _tun()
    yield _bpffs()
    yield from _tools(_TOOLS.items())
    yield _dnsmasq()
    yield _nft()
    yield _kernel()
    yield _writable("run directory", paths.run_dir())
    yield _writable("state directory", paths.state_dir())
    vhost = os.access("/dev/vhost-net", os.R_OK | os.W_OK)
    yield Check(
        "/dev/vhost-net", vhost, "there" if vhost else "not there", "plain TAP is used without it", False
    )


def _tun() -> Check:
    device = Path("/dev/net/tun")
    hint = "load it with `modprobe tun`, or give this machine or container the device"
    if not device.exists():
        return Check(str(device), False, "there is no such device", hint)
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return Check(str(device), False, str(error.strerror), hint)
    return Check(str(device), True, "usable")


def _bpffs() -> Check:
    """The switch mounts it at its usual place when nobody has."""
    path = paths.bpf_dir()
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    if any(path.is_relative_to(mount[1]) for mount in mounts if mount[2] == "bpf"):
        return Check("bpf file system", True, f"{path} is on one")
    usual = path.is_relative_to(BPFFS) and BPFFS.is_dir()
    detail = f"{path} is not on one" + ("; the first switch mounts it" if usual else "")
    return Check("bpf file system", usual, detail, f"mount it with `mount -t bpf bpf {BPFFS}`")


def _tools(tools: Iterable[tuple[str, str]]) -> Iterator[Check]:
    for program, package in tools:
        found = shutil.which(program)
        yield Check(
            program, found is not None, found or "not found", f"install it with `apt install {package}`"
        )


def _dnsmasq() -> Check:
    found = dnsmasq.find_program()
    hint = "networks with dhcp, ra or dns need it: `apt install dnsmasq-base`"
    return Check("dnsmasq", found is not None, found or "not found", hint, False)


def _nft() -> Check:
    found = nft.find_program()
    hint = "routers with an uplink need it: `apt install nftables`"
    return Check("nft", found is not None, found or "not found", hint, False)


def _kernel() -> Check:
    release = platform.release()
    major, minor = (int("".join(filter(str.isdigit, part)) or 0) for part in release.split(".")[:2])
    return Check("kernel", (major, minor) >= (5, 10), release, "Linux 5.10 or later is needed")


def _writable(name: str, path: Path) -> Check:
    nearest = next(parent for parent in (path, *path.parents) if parent.exists())
    ok = os.access(nearest, os.W_OK | os.X_OK)
    hint = "run as root, or set VNET_RUN_DIR and VNET_STATE_DIR to directories of yours"
    return Check(name, ok, f"{path} {'can' if ok else 'cannot'} be written", hint)
