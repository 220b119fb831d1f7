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
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from vnet.switch.abi import Point
from vnet.switch.address import Address, parse
from vnet.switch.events import packet_in
from vnet.switch.live.datapath import EbpfDatapath
from vnet.switch.live.links import LinkMonitor
from vnet.switch.live.netns import inside
from vnet.switch.live.server import SwitchServer

PINS = Path("/sys/fs/bpf/vnet-exam")


@dataclass(frozen=True, slots=True)
class Target:
    """What to run: `ports` are interface names by number."""

    netns: str
    ports: Mapping[int, str]
    datapath_id: int
    controllers: tuple[Address, ...]
    """Those that are called, and passive ones on which the switch listens."""
    pins: Path


@contextlib.contextmanager
def namespace(target: Target) -> Iterator[None]:
    """The namespace with its veth pairs, for the time of the context."""
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


@contextlib.asynccontextmanager
async def switch(target: Target) -> AsyncIterator[SwitchServer]:
    """The switch in the kernel and its server, for the time of the context; call it in the namespace."""
    name = target.pins.name
    datapath = EbpfDatapath.open(name, None, target.pins)
    server = SwitchServer(datapath, name, target.datapath_id)
    links: LinkMonitor | None = None
    loop = asyncio.get_running_loop()
    try:
        for number, ifname in target.ports.items():
            datapath.attach(number, ifname)
        for address in target.controllers:
            await (server.listen(address) if address.passive else server.call(address))
        links = LinkMonitor(None)
        loop.add_reader(datapath.event_fd, _hand_in, datapath, server)
        loop.add_reader(links.fd, _link_changed, links, server)
        yield server
    finally:
        loop.remove_reader(datapath.event_fd)
        if links is not None:
            loop.remove_reader(links.fd)
            links.close()
        await server.stop()
        datapath.destroy()
        with contextlib.suppress(OSError):  # another switch lives there still
            target.pins.parent.rmdir()


def _hand_in(datapath: EbpfDatapath, server: SwitchServer) -> None:
    """Packets for the controllers, as `vnet.fabric.live.switch` hands them in."""
    for event in datapath.read_events():
        if event.point is Point.CONTROLLER:
            server.packet_in(packet_in(event))


def _link_changed(links: LinkMonitor, server: SwitchServer) -> None:
    links.drain()
    server.port_changed()


# -- command line ---------------------------------------------------------------------------------


def _run(*command: str) -> None:
    subprocess.run(command, check=True, timeout=20)


async def _serve(target: Target) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with switch(target):
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
    target = Target(given.netns, dict(given.port), given.datapath_id, tuple(given.controller), pins)
    # The whole process works in there; `ip netns exec` would hide the pins under a /sys of its own.
    with namespace(target) if given.create else contextlib.nullcontext(), inside(given.netns):
        asyncio.run(_serve(target))
    return 0


if __name__ == "__main__":
    sys.exit(main())
