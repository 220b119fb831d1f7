"""The machine of guests that vnet has not made: a PC with firmware, a screen, a keyboard and a drive.

The micro guest's machine has none of that, and does not change for it: templates of warm clones are bound to
its every word.

Source: QEMU 7.2, qemu-system-x86_64(1); docs/system/i386/pc; OVMF README, "flash" and "fw_cfg".
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from vnet.hv.firmware import NODE as VARIABLES
from vnet.hv.stream import STREAMS, port_of, socket_of

DEFAULT_COMMAND_LINE = "console=ttyS0"
"""Of a kernel for which none is given: its messages are to be seen."""

_ISO_SET, _CODE_SET, _VARIABLES_SET, _SEED_SET = 128, 129, 130, 131
"""Of descriptors; those of disks and what they are made of lie below."""

MACHINE = "q35,vmport=off,smbus=off,hpet=off,memory-backend=ram"
_DISKS_FIRST, _DRIVE_FIRST = 1, 100
_DRIVE_BOOT_INDEX = 50


@dataclass(frozen=True, slots=True)
class Pc:
    """What a PC has besides CPUs, memory, NICs and disks; files are descriptor numbers.

    `kernel` and `initrd` are paths as QEMU sees them, empty without. `code_fd` and `variables_fd` are of UEFI
    firmware; without them it is a BIOS.
    """

    kernel: str = ""
    initrd: str = ""
    cmdline: str = ""
    iso_fd: int | None = None
    iso_first: bool = False
    code_fd: int | None = None
    variables_fd: int | None = None
    seed_fd: int | None = None
    """By which cloud-init is told who the guest is."""

    @property
    def disks_begin(self) -> int:
        """The place of the first disk in boot order."""
        return _DRIVE_FIRST if self.iso_first else _DISKS_FIRST


def machine(pc: Pc) -> str:
    """The value of `-machine`."""
    flash = f",pflash0=firmware,pflash1={VARIABLES}" if pc.code_fd is not None else ""
    return f"{MACHINE}{flash}"


def words(pc: Pc, run_dir: str) -> tuple[str, ...]:
    """What is said of all else.

    Args:
        pc: the machine.
        run_dir: the folder of sockets, as it stands in an option.
    """
    return (
        *("-boot", "strict=on"),
        *_firmware(pc),
        *_kernel(pc),
        *_drive(pc),
        *_seed(pc),
        *_streams(run_dir),
        *("-device", "VGA", "-device", "qemu-xhci,id=usb", "-device", "usb-tablet,bus=usb.0"),
        *("-vnc", f"unix:{run_dir}/vnc.sock"),
    )


def _firmware(pc: Pc) -> tuple[str, ...]:
    if pc.code_fd is None or pc.variables_fd is None:
        return ()
    return (
        *_opened("firmware", pc.code_fd, _CODE_SET, read_only=True),
        *_opened(VARIABLES, pc.variables_fd, _VARIABLES_SET, read_only=False),
    )


def _kernel(pc: Pc) -> tuple[str, ...]:
    if not pc.kernel:
        return ()
    initrd = ("-initrd", pc.initrd) if pc.initrd else ()
    return ("-kernel", pc.kernel, *initrd, "-append", pc.cmdline or DEFAULT_COMMAND_LINE)


def _drive(pc: Pc) -> tuple[str, ...]:
    if pc.iso_fd is None:
        return ()
    device = {
        "driver": "ide-cd",
        "id": "drive",
        "drive": "iso",
        "bus": "ide.0",
        "bootindex": _DRIVE_BOOT_INDEX,
    }
    return (*_opened("iso", pc.iso_fd, _ISO_SET, read_only=True), "-device", json.dumps(device))


def _seed(pc: Pc) -> tuple[str, ...]:
    """A disk and no medium in a drive: kernels of clouds have no driver for drives."""
    if pc.seed_fd is None:
        return ()
    device = {"driver": "virtio-blk-pci", "id": "seed-disk", "drive": "seed", "serial": "cidata"}
    return (*_opened("seed", pc.seed_fd, _SEED_SET, read_only=True), "-device", json.dumps(device))


def _streams(run_dir: str) -> tuple[str, ...]:
    """Ports for programs in the guest that talk to one on the host: see `vnet.hv.stream`."""
    ports = (
        word
        for number in range(STREAMS)
        for word in (
            *("-chardev", f"socket,id=stream{number},path={run_dir}/{socket_of(number)},server=on,wait=off"),
            *("-device", f"virtserialport,bus=streams.0,chardev=stream{number},name={port_of(number)}"),
        )
    )
    return ("-device", "virtio-serial-pci,id=streams", *ports)


def _opened(node: str, descriptor: int, set_number: int, *, read_only: bool) -> tuple[str, ...]:
    """A file that is what it is, as a node of QEMU."""
    file: Mapping[str, object] = {
        "driver": "file",
        "filename": f"/dev/fdset/{set_number}",
        "aio": "threads",
        "read-only": read_only,
    }
    block = {"driver": "raw", "node-name": node, "read-only": read_only, "file": file}
    return ("-add-fd", f"fd={descriptor},set={set_number}", "-blockdev", json.dumps(block))
