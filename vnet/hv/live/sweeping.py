"""What daemons that were killed have left half-made on this host, and nobody is at work on any more.

What they have left of guests is found with the guests (`adopting`, `snapshots`). Images and templates are
built by other processes too: of those in the store a lock tells (`workshop`), of the others who builds next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from vnet.base import paths
from vnet.hv.live import backup_store, disk, disk_clone, export, image_store, worker, workshop

SWEEPS: tuple[Callable[[], object], ...] = (
    disk_clone.sweep,
    disk.sweep,
    image_store.sweep,
    lambda: workshop.sweep(paths.image_store()),
    export.sweep,
    lambda: backup_store.sweep(paths.backups_dir()),
)


async def sweep() -> None:
    """Removes it, once, before guests are taken over; QEMUs that have some of it open are ended first."""
    await worker.sweep()
    for each in SWEEPS:
        await asyncio.to_thread(each)
