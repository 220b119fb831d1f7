"""`vnet switch` in a lab's namespace, apart from whatever else of vnet is on the machine."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path

NAME = "lab"
RUNS = f"switch {NAME} runs"
"""What it says when its ports are attached and it listens."""
_BPFFS = Path("/sys/fs/bpf")


def command(netns: str, folder: Path, ports: Mapping[int, str], *options: str) -> list[str]:
    """Run it from the checkout; `folder` is for its sockets, `ports` are interfaces of the namespace."""
    named = [word for number, ifname in ports.items() for word in ("--port", f"{number}={ifname}")]
    where = f"VNET_RUN_DIR={folder}", f"VNET_BPF_DIR={_BPFFS / netns}"
    return ["env", *where, sys.executable, "-m", "vnet", "switch", NAME, "--netns", netns, *named, *options]


def socket(folder: Path) -> Path:
    """Where it listens for ovs-ofctl."""
    return folder / "switches" / f"{NAME}.sock"


def pins(netns: str) -> Path:
    """The folder of it and nothing else."""
    return _BPFFS / f"{netns}-switch"


def remove_pins(netns: str) -> None:
    """Take it out of the kernel when its process could not: links first."""
    for part in (pins(netns) / NAME / "links", pins(netns)):
        shutil.rmtree(part, ignore_errors=True)
