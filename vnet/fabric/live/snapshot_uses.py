"""What snapshots need, and so may not be removed before them."""

from __future__ import annotations

from vnet.base.errors import HostError
from vnet.hv.live import snapshot_files as files


def refuse_kept(fabric: str, vm: str, disk: str) -> None:
    """Raises HostError for a suspended VM, or a disk that snapshots need."""
    files.refuse_kept_memory(fabric, vm)
    names = [
        each.name
        for each in files.known(fabric)
        if vm in each.vms and disk in {kept.name for kept in each.of(vm).disks}
    ]
    if names:
        raise HostError(
            f"the disk {disk} of {vm} keeps the snapshots {', '.join(names)}:"
            f" `vnet snapshot rm {vm} NAME` first"
        )
