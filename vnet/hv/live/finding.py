"""Finding the QEMU of a guest that an earlier manager started."""

from __future__ import annotations

from pathlib import Path

from vnet.hv.live.process import Process, find, search, start_ticks
from vnet.hv.live.record import Record


def find_recorded(run_dir: Path, record: Record) -> Process | None:
    """The process that a record is about, if it still runs.

    A QEMU whose start was broken off may not have written its pid file yet: it is looked for among all
    processes. One that was ready must also have begun when the record says.
    """
    found = find(run_dir / "pid", user=record.user)
    if found is None and not record.ready:
        found = search(run_dir / "pid", user=record.user)
    if found and record.start_ticks and start_ticks(found.pid) != record.start_ticks:
        found.close()
        return None
    return found
