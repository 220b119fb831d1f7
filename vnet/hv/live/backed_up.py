"""Whether the disks of a guest that is up are being backed up: by this manager, or still by its QEMU alone.

Meanwhile QEMU lets go of none of them, keeps no snapshot of them and does not save its memory.
"""

from __future__ import annotations

from pathlib import Path

from vnet.base import paths
from vnet.base.errors import HostError
from vnet.hv import backup_commands as commands
from vnet.hv.live.guest import Guest
from vnet.hv.live.qmp import Monitor


async def refuse_backed_up(guest: Guest) -> None:
    """Raises HostError, with what to do, for a guest whose disks are being backed up."""
    guest.refuse_while_copied()
    await refuse_broken_off(guest.monitor, guest.spec.name)


async def refuse_broken_off(monitor: Monitor, vm: str) -> None:
    """The same for a QEMU that has a backup in hand whose manager was killed, also once it has copied all."""
    if not commands.has_jobs(await monitor.execute(commands.QUERY_JOBS)):
        return
    written = commands.written(await monitor.execute(commands.QUERY_SETS))
    raise HostError(
        f"{vm} is still being backed up by its QEMU, though that was broken off: {_way_out(written)}"
    )


def _way_out(written: str) -> str:
    """By the path of a file that is being written, if it is known."""
    if not written:
        return (
            "`vnet backup ls`, with `--store DIR` of another store, says which; then `vnet backup resume` or"
            " `discard`"
        )
    entry = Path(written).parent
    there = "" if entry.parent == paths.backups_dir() else f" --store {entry.parent}"
    return (
        f"`vnet backup resume {entry.name}{there}` finishes it, `vnet backup discard {entry.name}{there}`"
        " removes it"
    )
