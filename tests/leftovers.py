"""Names for what tests make on the host, and the removal of what a run left that was killed.

Each name has the process in it (`vnt-KIND4711-`), so that two runs at once do not meet and a
run can tell what belongs to none that lives. What runs in it (a guest, a daemon) is not ended here.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from vnet.fabric.live import netns
from vnet.switch.live.netns import NETNS_DIR

BPF_FS = Path("/sys/fs/bpf")
NAMED = re.compile(r"vnt-[a-z]+-?(\d+)(-|$)")


def prefix(kind: str) -> str:
    """What the names begin with that this process gives to things of a kind (lower-case letters)."""
    return f"vnt-{kind}{os.getpid()}-"


def pins(kind: str) -> Path:
    """The folder of this process for pins of a kind."""
    return BPF_FS / f"vnt-{kind}{os.getpid()}"


def sweep() -> list[str]:
    """Remove the namespaces and pins of test runs that no longer live; their names."""
    spaces = [path.name for path in NETNS_DIR.glob("vnt-*") if _is_dead(path.name)]
    for space in spaces:
        netns.remove(space)
    folders = [path for path in BPF_FS.glob("vnt-*") if _is_dead(path.name)]
    for folder in folders:
        shutil.rmtree(folder)
    return spaces + [folder.name for folder in folders]


def _is_dead(name: str) -> bool:
    found = NAMED.match(name)
    return found is not None and not Path(f"/proc/{found[1]}").exists()
