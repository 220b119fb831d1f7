"""UEFI firmware: which files there are, and the disk, in a way, that keeps its variables."""

from __future__ import annotations

from dataclasses import dataclass

from vnet.base.boot import UEFI_VARIABLES, Boot
from vnet.hv.disk import Disk, DiskFormat

PACKAGE = "ovmf"
NODE = "variables"
"""What they are called in QEMU."""


@dataclass(frozen=True, slots=True)
class Flash:
    """A build of the firmware: its code, which all VMs read, and the variables that each begins with."""

    code: str
    variables: str


BUILDS = (
    Flash("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    Flash("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
    Flash("/usr/share/edk2/x64/OVMF_CODE.4m.fd", "/usr/share/edk2/x64/OVMF_VARS.4m.fd"),
    Flash("/usr/share/edk2/ovmf/OVMF_CODE.fd", "/usr/share/edk2/ovmf/OVMF_VARS.fd"),
)
"""Where distributions have them, those without Secure Boot; the first that is there is taken."""


def kept(boot: Boot) -> tuple[Disk, ...]:
    """What the firmware of a VM keeps, whatever its size; nothing of a BIOS."""
    return (variables_disk(0),) if boot.is_uefi else ()


def variables_disk(size_bytes: int) -> Disk:
    """What keeps the variables of a VM."""
    return Disk(UEFI_VARIABLES, size_bytes, DiskFormat.RAW.value)
