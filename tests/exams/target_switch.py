"""Our switch as a process, for exams and other people's controllers, until a signal ends it.

    python -m tests.exams.target_switch --netns lab --port 1=p1 --port 2=p2 \\
        --datapath-id 1 --controller tcp:127.0.0.1:6653

makes the interfaces p1 and p2 of the namespace `lab` ports of a switch that connects to the controller, from
inside that namespace, and goes on trying; with `--listen` controllers connect to it. With `--create` the
namespace is made first, and each interface as one end of a veth pair whose other end is called like it with
an `x` before it; both go at the end. It prints `ready` when the ports are attached, and leaves nothing
behind, unless it is killed: then another one with the same `--pins` takes over.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from vnet.switch.address import parse
from vnet.switch.live.standalone import Standalone, running

PINS = Path("/sys/fs/bpf/vnet-exam")


@contextlib.contextmanager
def namespace(target: Standalone) -> Iterator[None]:
    """The namespace with its veth pairs, for the time of the context."""
    assert target.netns is not None
    _run("ip", "netns", "add", target.netns)
    try:
        _run("ip", "-n", target.netns, "link", "set", "lo", "up")
        silent = "net.ipv6.conf.default.disable_ipv6=1"  # else the kernel itself sends by the links
        _run("ip", "netns", "exec", target.netns, "sysctl", "-qw", silent)
        for name in target.ports.values():
            far = f"x{name}"
            _run("ip", "-n", target.netns, "link", "add", name, "type", "veth", "peer", "name", far)
            for end in (name, far):
                _run("ip", "-n", target.netns, "link", "set", end, "up")
        yield
    finally:
        _run("ip", "netns", "del", target.netns)


# -- command line ---------------------------------------------------------------------------------


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20)


async def _serve(target: Standalone) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with running(target):
        print("ready", flush=True)
        await ended.wait()


def _port(text: str) -> tuple[int, str]:
    number, _, name = text.partition("=")
    return int(number), name


def main() -> int:
    """Run the switch that the arguments ask for."""
    parser = argparse.ArgumentParser(prog="python -m tests.exams.target_switch")
    parser.add_argument("--netns", required=True, help="network namespace that the ports are in")
    parser.add_argument("--port", action="append", type=_port, default=[], metavar="NUMBER=INTERFACE")
    parser.add_argument("--datapath-id", type=lambda text: int(text, 0), default=1)
    parser.add_argument("--controller", action="append", type=parse, default=[], metavar="tcp:HOST:PORT")
    parser.add_argument(
        "--listen", action="append", type=parse, default=[], dest="controller", metavar="punix:PATH"
    )
    parser.add_argument("--pins", type=Path, help="folder below /sys/fs/bpf; default by the process")
    parser.add_argument("--create", action="store_true", help="make the namespace and its veth pairs")
    given = parser.parse_args()
    pins = given.pins or PINS / f"{given.netns}-{os.getpid()}"
    lock = Path("/run/vnet-exam") / f"{pins.name}.lock"
    target = Standalone(
        pins.name, given.datapath_id, given.netns, dict(given.port), tuple(given.controller), pins, lock
    )
    with namespace(target) if given.create else contextlib.nullcontext():
        asyncio.run(_serve(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
