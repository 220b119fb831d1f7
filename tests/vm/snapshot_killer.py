"""A manager that is killed in a snapshot: `python -m tests.vm.snapshot_killer NAMESPACE WHAT STEP`.

It takes over the guests of the lab whose folders are in its environment, begins WHAT, and SIGKILLs itself
once the STEP is done.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import signal
import sys
from dataclasses import replace

from tests.vm import hv_lab
from vnet.hv.disk import Disk
from vnet.hv.live import disk_snapshots, saved_start, saving, snapshot_making
from vnet.hv.live import snapshot_files as files
from vnet.hv.live.guest import Guest
from vnet.hv.live.manager import HvManager
from vnet.hv.live.performing import Performer
from vnet.hv.live.snapshots import Snapshots, Wanted

SPECS = [replace(hv_lab.spec(1), disks=(Disk("data", 32 << 20),)), hv_lab.spec(2)]

SAVE = {
    "begun": (files, "begin"),
    "noted": (Guest, "saving"),
    "copied": (saving.Saving, "copy"),
    "stopped": (saving.Saving, "stop"),
    "taken": (saving.Saving, "take"),
    "gone-on": (saving.Saving, "go_on"),
    "committed": (files, "commit"),
    "headed": (files, "set_head"),
}
SUSPEND = {
    "begun": (files, "begin"),
    "taken": (saving.Saving, "take"),
    "committed": (files, "commit"),
    "wished": (files, "wish"),
    "ended": (Guest, "suspend"),
}
RESTORE = {
    "wished": (files, "wish"),
    "ended": (Guest, "stop"),
    "taken-back": (disk_snapshots, "take_back"),
    "loaded": (Guest, "load"),
    "gone-on": (Guest, "go_on"),
    "fulfilled": (saved_start, "fulfilled"),
}
WAKE = {
    "loaded": (Guest, "load"),
    "continued": (Performer, "_resume"),
    "gone-on": (Guest, "go_on"),
}
POINTS = {"save": SAVE, "suspend": SUSPEND, "restore": RESTORE, "wake": WAKE}


def deadly(function):
    """A step after which the process is no more."""

    @functools.wraps(function)
    async def asynchronous(*given, **named):
        await function(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    @functools.wraps(function)
    def plain(*given, **named):
        function(*given, **named)
        os.kill(os.getpid(), signal.SIGKILL)

    return asynchronous if inspect.iscoroutinefunction(function) else plain


async def main(namespace: str, what: str, point: str) -> None:
    """Takes the guests over and is killed."""
    manager = HvManager()
    await manager.adopt(hv_lab.FABRIC, SPECS)
    keeper = Snapshots(manager, hv_lab.FABRIC, lambda nic: hv_lab.open_tap(namespace, nic))
    owner, name = POINTS[what][point]
    setattr(owner, name, deadly(getattr(owner, name)))
    if what == "save":
        await keeper.save(SPECS, Wanted("new"))
    elif what == "wake":
        await manager.start(SPECS[0], keeper.open_tap)
    elif what == "suspend":
        await keeper.suspend(SPECS[0])
    else:
        (old,) = (each for each in files.known(hv_lab.FABRIC) if each.name == "old")
        await keeper.restore(old, SPECS, memory=True, progress=print)


assert snapshot_making.files is files  # patched where it is used
if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
