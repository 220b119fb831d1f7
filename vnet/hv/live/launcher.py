"""From a machine as a value to a QEMU process: the descriptors it gets and where their numbers go."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.hv.accel import Accel
from vnet.hv.argv import Machine, Memory, command_line
from vnet.hv.live.cgroup import Cgroup
from vnet.hv.live.host_files import opened
from vnet.hv.live.image import Image
from vnet.hv.live.process import Process, launch
from vnet.hv.live.threads import kept

LOG = "qemu.log"
_VHOST = "/dev/vhost-net"


@dataclass(frozen=True, slots=True)
class Confinement:
    """What QEMU is shut in: its user, its group, and the accelerator's device group if it needs one."""

    user: int
    cgroup: Cgroup
    accel: Accel
    file_bytes: int = 0
    """How long the largest of its files may become."""

    @property
    def groups(self) -> tuple[int, ...]:
        """Supplementary groups."""
        return () if self.accel.group is None else (self.accel.group,)


async def launch_machine(
    machine: Machine,
    image: Image,
    confinement: Confinement,
    *,
    memory_fd: int | None = None,
    fds: Iterable[int] = (),
) -> Process:
    """Starts QEMU for a machine. All files it needs are opened here and handed over.

    Args:
        machine: kernel, initrd and memory path are filled in here.
        image: the guest image.
        confinement: what it is shut in.
        memory_fd: the template's memory, for templates and clones.
        fds: further descriptors that the machine names by number; they stay the caller's.
    """
    with opened(image.kernel) as kernel, opened(image.initrd) as initrd:
        handed = [*fds, kernel, initrd]
        if machine.memory is not Memory.OWN:
            assert memory_fd is not None
            machine = replace(machine, memory_path=_by_number(memory_fd))
            handed.append(memory_fd)
        machine = replace(machine, kernel=_by_number(kernel), initrd=_by_number(initrd))
        return await launch_opened(machine, confinement, handed)


async def launch_opened(machine: Machine, confinement: Confinement, fds: Iterable[int]) -> Process:
    """Starts QEMU for a machine that names all its files by number; they stay the caller's."""
    return await kept(
        Process.kill,
        launch,
        command_line(machine),
        user=confinement.user,
        groups=confinement.groups,
        fds=tuple(fds),
        log=Path(machine.run_dir, LOG),
        cgroup=confinement.cgroup,
        file_bytes=confinement.file_bytes,
    )


def _by_number(descriptor: int) -> str:
    return f"/proc/self/fd/{descriptor}"


def open_vhost() -> int | None:
    """The kernel's virtio back end for one NIC; None where the host has none."""
    try:
        return os.open(_VHOST, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
