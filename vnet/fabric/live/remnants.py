"""What a fabric that is no more may have left on this host, found by its names."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from vnet.base import paths
from vnet.fabric.symptoms import Process
from vnet.switch.live.netns import NETNS_DIR

_OWNER = re.compile(r"[^.+]+")
"""What a name begins with is a fabric; behind a dot comes a part of it, behind a plus what is made beside."""


def namespaces(known: Collection[str]) -> Iterator[str]:
    """Network namespaces with a name of vnet's, and of none of these fabrics."""
    prefix = paths.netns("")
    for path in sorted(NETNS_DIR.glob(f"{prefix}*")):
        if _owner(path.name.removeprefix(prefix)) not in known:
            yield path.name


def folders(known: Collection[str]) -> Iterator[str]:
    """Pins, sockets and dnsmasq's files of none of these fabrics."""
    for parent in (paths.bpf_dir(), paths.run_dir() / "fabrics", paths.state_dir() / "services"):
        for path in sorted(parent.glob("*")):
            if _owner(path.name) not in known:
                yield str(path)


def processes(known: Collection[str]) -> Iterator[Process]:
    """QEMU and dnsmasq of this host's directories, that work for none of these fabrics."""
    for entry in sorted(Path("/proc").glob("[0-9]*"), key=lambda path: int(path.name)):
        with suppress(OSError):
            words = (entry / "cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
            found = _worker(words)
            if found and found[1] not in known:
                yield Process(int(entry.name), *found)


def _worker(words: str) -> tuple[str, str] | None:
    """Program and fabric, of a command line that names files of one."""
    program = Path(words.partition(" ")[0]).name
    for name, parent in (("qemu", paths.run_dir() / "fabrics"), ("dnsmasq", paths.state_dir() / "services")):
        found = re.search(rf"{re.escape(str(parent))}/([^/\s,]+)/", words)
        if found and program.startswith(name):
            return name, found[1]
    return None


def _owner(name: str) -> str:
    found = _OWNER.match(name)
    return found[0] if found else name
