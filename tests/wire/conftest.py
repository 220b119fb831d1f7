"""A switch that listens on a unix socket, in a thread of its own, and `ovs-ofctl` to talk to it."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import threading
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.fakes.memory_datapath import MemoryDatapath
from vnet.switch.address import Address, parse
from vnet.switch.datapath import SwitchPort
from vnet.switch.live.server import SwitchServer
from vnet.switch.live.tls import Identity

T = TypeVar("T")

PORTS = (SwitchPort(1, "tap-web", 0x020000000001, True), SwitchPort(2, "tap-db", 0x020000000002, False))


@dataclass
class Done:
    """What a command printed and how it ended."""

    code: int
    out: str
    err: str


@dataclass
class Switch:
    """The server under test; `ofctl` runs `ovs-ofctl -O OpenFlow13 WORDS` with the socket put in."""

    path: Path
    datapath: MemoryDatapath
    server: SwitchServer
    loop: asyncio.AbstractEventLoop

    def ofctl(self, command: str, *words: str, options: tuple[str, ...] = (), where: str = "") -> Done:
        argv = [
            "ovs-ofctl",
            "-O",
            "OpenFlow13",
            "--timeout=20",
            *options,
            command,
            where or f"unix:{self.path}",
            *words,
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
        return Done(done.returncode, done.stdout, done.stderr)

    def dump(self, *words: str) -> list[str]:
        """The flows as they are, without counters, in ovs-ofctl's words."""
        done = self.ofctl("dump-flows", *words, options=("--no-stats",))
        assert done.code == 0, done.err
        return [line.strip() for line in done.out.splitlines() if line.startswith(" ")]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Await something in the server's event loop."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(10)

    def listens(self, where: str, identity: Identity | None = None) -> Address:
        return self.run(self.server.listen(parse(where), identity))

    def calls(self, where: str, identity: Identity | None = None) -> None:
        self.run(self.server.call(parse(where), identity))

    def call(self, function, *arguments) -> None:
        """Run a function of the server in its event loop."""
        done = threading.Event()

        def run() -> None:
            function(*arguments)
            done.set()

        self.loop.call_soon_threadsafe(run)
        assert done.wait(10)


@pytest.fixture
def switch(tmp_path: Path) -> Iterator[Switch]:
    assert shutil.which("ovs-ofctl"), "ovs-ofctl is missing: apt install openvswitch-common"
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    datapath = MemoryDatapath(PORTS)
    server = SwitchServer(datapath, "lab", 0x42, chance=lambda: 0.0)
    path = tmp_path / "switch.sock"
    asyncio.run_coroutine_threadsafe(server.start(path), loop).result(10)
    yield Switch(path, datapath, server, loop)
    asyncio.run_coroutine_threadsafe(server.stop(), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()
    assert not path.exists()
