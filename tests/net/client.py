"""A namespace that is a guest to the switch: its interface is wired to the TAP of a NIC."""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from tests.bpf.bench import sh
from vnet.fabric.live.netns import Namespace
from vnet.switch.live import ports

T = TypeVar("T")

_TUNSETOFFLOAD, _CSUM_TSO4_TSO6 = 0x400454D0, 0x7
"""linux/if_tun.h: TUN_F_CSUM, TUN_F_TSO4 and TUN_F_TSO6."""
FRAME_BYTES = 66_000
"""A super-packet with its header."""


@contextmanager
def client(name: str, fabric_netns: str, tap: str, mac: str, offload: bool = False) -> Iterator[str]:
    """A namespace whose eth0 is plugged into a TAP of the fabric; frames go both ways unchanged.

    With `offload` its TCP leaves segments and checksums to whoever gets them, as a guest's does.
    """
    sh(f"ip netns add {name}")
    wire = None
    try:
        _inside(name, ports.create_tap, "eth0")
        near = _inside(name, ports.open_tap, "eth0")
        sh(f"ip -n {name} link set eth0 down address {mac}")
        sh(f"ip netns exec {name} sysctl -qw net.ipv6.conf.eth0.accept_dad=0")
        sh(f"ip -n {name} link set eth0 up")
        sh(f"ip -n {name} link set lo up")
        far = _inside(fabric_netns, ports.open_tap, tap)
        for end in (near, far) if offload else ():
            fcntl.ioctl(end, _TUNSETOFFLOAD, _CSUM_TSO4_TSO6)
        wire = _Wire(near, far)
        yield name
    finally:
        if wire:
            wire.close()
        sh(f"ip netns del {name}")


def _inside(netns: str, function: Callable[[str], T], ifname: str) -> T:
    namespace = Namespace(netns)
    try:
        return namespace.run_blocking(function, ifname)
    finally:
        namespace.close()


class _Wire:
    """Carries what one descriptor gives to the other, in a thread."""

    def __init__(self, *ends: int) -> None:
        self._ends, self._stop = ends, os.pipe()
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def _carry(self) -> None:
        other = dict(zip(self._ends, reversed(self._ends), strict=True))
        while True:
            for end in select.select([*self._ends, self._stop[0]], [], [])[0]:
                if end == self._stop[0]:
                    return
                with suppress(OSError):  # the other end is down, or full
                    os.write(other[end], os.read(end, FRAME_BYTES))

    def close(self) -> None:
        os.write(self._stop[1], b"x")
        self._thread.join()
        for end in (*self._ends, *self._stop):
            os.close(end)


def run(name: str, command: str, timeout_s: float = 20) -> subprocess.CompletedProcess[str]:
    """Run a command in the namespace; its exit code is the caller's to look at."""
    words = ["ip", "netns", "exec", name, "sh", "-c", command]
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout_s, check=False)


def leased(name: str, more: str = "") -> str:
    """What udhcpc is told, as its script sees it."""
    folder = Path(tempfile.mkdtemp(prefix="vnt-leased-"))
    script, told = folder / "script", folder / "told"
    script.write_text(f'#!/bin/sh\n[ "$1" = bound ] && env | sort >{told}\nexit 0\n')
    script.chmod(0o755)
    try:
        done = run(name, f"udhcpc -i eth0 -n -q -f -t 4 -T 1 -O mtu -O search -s {script} {more}")
        return told.read_text() if told.exists() else done.stderr
    finally:
        shutil.rmtree(folder)
