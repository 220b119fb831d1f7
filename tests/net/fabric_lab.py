"""The engine on the real kernel, without guests: directories, pins and namespaces of its own."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from tests import leftovers
from tests.unit.fabric.fakes import FakeGuests, World
from vnet.base import paths
from vnet.fabric.live import netns
from vnet.fabric.live.cables import HostCables
from vnet.fabric.live.endpoints import HostEndpoints
from vnet.fabric.live.engine import Engine
from vnet.fabric.live.host import uptime_s
from vnet.fabric.live.network import HostNetwork
from vnet.fabric.live.parts import Parts
from vnet.fabric.live.registry import Host
from vnet.fabric.live.rule_log import RuleLog
from vnet.fabric.live.store import SqliteStore
from vnet.fabric.live.switch import HostSwitch
from vnet.fabric.live.wiring import tidy

PREFIX = leftovers.prefix("eng")
NETNS = f"{PREFIX}small"
PINS = leftovers.pins("eng")


def make_engine(
    directory: Path, world: World, underlay: str | None = None, host_netns: str | None = None
) -> Engine:
    """A new daemon, as far as the engine can tell. `world` has the guests, which are none.

    `host_netns` is the namespace that plays the host where interfaces are taken from it.
    """

    def parts(fabric: str) -> Parts:
        log = RuleLog(paths.log_dir(fabric))
        network, switch = HostNetwork(paths.netns(fabric)), HostSwitch(fabric, log.see, underlay)
        cables = HostCables(fabric, paths.netns(fabric), host_netns)
        endpoints = HostEndpoints(fabric, paths.netns(fabric), host_netns)
        guests = FakeGuests(world, fabric)
        return Parts(network, switch, guests, log, cables=cables, endpoints=endpoints)

    host = Host(lambda: None, lambda: 8 << 30, lambda: "boot", tidy, partial(datetime.now, UTC), uptime_s)
    return Engine(SqliteStore(directory / "state" / "vnet.db"), parts, host, lambda declared: ())


@contextmanager
def host() -> Iterator[Path]:
    """A directory for a daemon's files, named in the environment; nothing may be left at the end."""
    made = Path(tempfile.mkdtemp(prefix=PREFIX))
    names = {
        "VNET_RUN_DIR": str(made / "run"),
        "VNET_STATE_DIR": str(made / "state"),
        "VNET_BPF_DIR": str(PINS),
        "VNET_NETNS_PREFIX": PREFIX,
    }
    before = {name: os.environ.get(name) for name in names}
    os.environ |= names
    try:
        yield made
    finally:
        left = [
            netns.exists(NETNS),
            PINS.exists() and list(PINS.iterdir()),
            (made / "run" / "fabrics").exists(),
        ]
        netns.remove(NETNS)
        shutil.rmtree(PINS, ignore_errors=True)
        shutil.rmtree(made)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
    assert not any(left), left
