"""The files of a guest opened for its QEMU, which gets descriptors and no names; disks are made and grown."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, replace
from pathlib import Path

from vnet.base.boot import Firmware
from vnet.hv.argv import DiskArgument
from vnet.hv.disk import Disk, plugged
from vnet.hv.firmware import variables_disk
from vnet.hv.live import disk as disks
from vnet.hv.live import root_disk
from vnet.hv.live.boot import Prepared, flash, kernel_of
from vnet.hv.live.host_files import opened
from vnet.hv.live.seed import opened_seed
from vnet.hv.pc import Pc
from vnet.hv.spec import GuestSpec


@dataclass(frozen=True, slots=True)
class Opened:
    """A guest's machine and disks as descriptors."""

    pc: Pc
    disks: tuple[DiskArgument, ...]
    fds: tuple[int, ...]


def open_for(
    spec: GuestSpec, prepared: Prepared, stack: contextlib.ExitStack, *, as_they_are: bool = False
) -> Opened:
    """All files of a guest that is not vnet's own, closed with the stack; disks are as in `open_disks`."""
    pc = _open_boot(prepared, stack)
    if prepared.boot.firmware == Firmware.UEFI.value:
        code, variables = _open_flash(spec, stack)
        pc = replace(pc, code_fd=code, variables_fd=variables)
    if prepared.boot.has_seed(prepared.root is not None and prepared.root.cloud_init):
        pc = replace(pc, seed_fd=stack.enter_context(opened_seed(spec, prepared.boot.cloud_init)))
    found = open_disks(spec, prepared, stack, as_they_are=as_they_are)
    ordered = tuple(replace(each, boot_index=pc.disks_begin + each.plugged.index) for each in found)
    fds = tuple(each for each in (pc.iso_fd, pc.code_fd, pc.variables_fd, pc.seed_fd) if each is not None)
    kernels = tuple(int(each.rpartition("/")[2]) for each in (pc.kernel, pc.initrd) if each)
    return Opened(pc, ordered, (*fds, *kernels, *(fd for each in ordered for fd in each.fds)))


def _open_boot(prepared: Prepared, stack: contextlib.ExitStack) -> Pc:
    boot = prepared.boot
    kernel, initrd = kernel_of(boot.loaded) if boot.loaded else (b"", b"")
    return Pc(
        kernel=_in_memory("kernel", kernel, stack),
        initrd=_in_memory("initrd", initrd, stack),
        cmdline=boot.loaded.cmdline if boot.loaded else "",
        iso_fd=stack.enter_context(opened(prepared.iso)) if prepared.iso else None,
        iso_first=boot.iso_first,
    )


def _in_memory(name: str, data: bytes, stack: contextlib.ExitStack) -> str:
    """The path by which QEMU reads it; it opens it as another user, whom files of root's are closed to."""
    if not data:
        return ""
    descriptor = os.memfd_create(name, os.MFD_CLOEXEC)
    stack.callback(os.close, descriptor)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    return f"/proc/self/fd/{descriptor}"


def _open_flash(spec: GuestSpec, stack: contextlib.ExitStack) -> tuple[int, int]:
    found = flash()
    blank = Path(found.variables).read_bytes()
    path = disks.path_of(spec.fabric, spec.name, variables_disk(len(blank)))
    with disks.swept(path.parent):
        if not path.exists() or path.stat().st_size != len(blank):
            with disks.made_beside(path) as part:
                part.write_bytes(blank)
    code = stack.enter_context(opened(Path(found.code)))
    return code, stack.enter_context(opened(path, os.O_RDWR))


def open_disks(
    spec: GuestSpec, prepared: Prepared | None, stack: contextlib.ExitStack, *, as_they_are: bool = False
) -> tuple[DiskArgument, ...]:
    """The disks of a guest, made where they are missing and grown where they are too small.

    Args:
        spec: the guest.
        prepared: what its disks are made of; None of vnet's own guest, whose are made of nothing.
        stack: closes the descriptors.
        as_they_are: they may not even grow: a saved memory belongs to them.
    """
    found = spec.disks if prepared is None else prepared.disks
    if not as_they_are:
        for disk in found:
            _ensure(spec, prepared, disk)
    places = plugged(found, len(spec.nics))
    return tuple(disks.open_disk(spec.fabric, spec.name, each, stack) for each in places)


def _ensure(spec: GuestSpec, prepared: Prepared | None, disk: Disk) -> None:
    if not disk.is_root:
        disks.ensure(spec.fabric, spec.name, disk)
        return
    assert prepared is not None
    assert prepared.root is not None
    root_disk.ensure(spec.fabric, spec.name, disk, prepared.root, str(prepared.boot.root))
