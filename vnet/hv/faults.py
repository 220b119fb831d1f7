"""What QEMU tells of disks that fail: read out of its events and answers, and put in words.

A disk that takes room as it is written to finds none when the host's file system is full; one on a network
can be away for a while; and what a guest writes over while it is backed up is copied to the store first. QEMU
lets the guest stand still when it cannot write, and keeps what it was about to; told to go on, it tries
again. Of what cannot be read the guest is told, as by a disk of a real machine.

Source: QEMU 7.2, docs/interop/qemu-qmp-ref (BLOCK_IO_ERROR, BLOCK_IMAGE_CORRUPTED, query-block) and
qemu-system-x86_64(1), werror=stop and rerror=report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vnet.hv.disk import Plugged

BASE = "-base"
"""Ends the name of what a disk is made of; the disk's own comes before."""
_UNNAMED = "#"
"""Begins the name of what QEMU puts before a disk while it is copied: all else has names of ours."""


@dataclass(frozen=True, slots=True)
class DiskFault:
    """What happened to a disk that QEMU knows as `node`, in QEMU's words.

    `halts`: the guest stands still, nothing is lost. `no_room`: for want of room on the host.
    `damaged`: what is in the disk's file contradicts itself.
    """

    node: str
    text: str
    halts: bool = False
    no_room: bool = False
    damaged: bool = False

    @property
    def is_of_copy(self) -> bool:
        """Whether it is not the disk that fails but what it is being copied to."""
        return self.node.startswith(_UNNAMED)

    @property
    def passes(self) -> bool:
        """Whether it is likely to be over some day, without anybody doing anything about the disk."""
        return self.halts and (self.no_room or self.is_of_copy)


def parse(message: Mapping[str, object]) -> DiskFault | None:
    """The fault in a QMP event, or None if it tells of none."""
    name, data = message.get("event"), message.get("data")
    if not isinstance(data, Mapping):
        return None
    node = str(data.get("node-name") or data.get("device") or "").removesuffix(BASE)
    if name == "BLOCK_IMAGE_CORRUPTED":
        return DiskFault(node, str(data.get("msg", "")), damaged=True)
    if name == "BLOCK_IO_ERROR" and data.get("action") != "ignore":
        text = f"{data.get('operation', 'use')}: {data.get('reason', 'error')}"
        return DiskFault(node, text, data.get("action") == "stop", bool(data.get("nospace")))
    return None


def found(answer: object) -> DiskFault | None:
    """Out of an answer to `query-block`: why a guest stands still whose disks let it."""
    for each in answer if isinstance(answer, Sequence) else ():
        status = each.get("io-status", "ok")
        if status != "ok":
            node = str(each.get("inserted", {}).get("node-name", ""))
            return DiskFault(node, f"I/O status {status}", halts=True, no_room=status == "nospace")
    return None


def disk_name(fault: DiskFault, disks: Sequence[Plugged]) -> str:
    """The disk as the topology has it; QEMU's word for one that is not there any more."""
    return next((each.disk.name for each in disks if each.node == fault.node), fault.node)


def in_words(fault: DiskFault, vm: str, disk: str, folder: str) -> str:
    """What happened, and what to do.

    Args:
        fault: what happened.
        vm: the guest.
        disk: the disk's name.
        folder: the guest's folder of disks.
    """
    if fault.is_of_copy:
        return (
            f"what it writes cannot be copied to its backup first, or written to {folder} ({fault.text}). It "
            f"stands still, nothing is lost; it goes on once the backup has been given up"
        )
    if fault.damaged:
        return f"its disk {disk} is damaged ({fault.text}). Stop it; {remedy(f'{folder}/{disk}.qcow2')}"
    if fault.no_room:
        return (
            f"its disk {disk} cannot grow: no space left in {folder}. It stands still, nothing is lost; "
            f"it goes on once there is room again, or with `vnet resume {vm}`"
        )
    if fault.halts:
        return (
            f"its disk {disk} in {folder} fails ({fault.text}). It stands still, nothing is lost; "
            f"`vnet resume {vm}` tries again"
        )
    return f"its disk {disk} failed ({fault.text}), and the guest was told so"


def found_damaged(info: Mapping[str, object]) -> str:
    """Out of what `qemu-img info` tells: what a QEMU has found wrong with the file; or empty."""
    specific = info.get("format-specific")
    data = specific.get("data") if isinstance(specific, Mapping) else None
    is_marked = isinstance(data, Mapping) and bool(data.get("corrupt"))
    return "QEMU has found that its file contradicts itself, and marked it as corrupt" if is_marked else ""


def remedy(path: str) -> str:
    """What to do about a disk's file that is damaged."""
    return (
        f"`qemu-img check {path}` says what is wrong (`-r all` on a copy mends what can be), `vnet snapshot "
        "restore` and `vnet backup restore` go back to what was kept, `vnet disk rm` begins anew"
    )
